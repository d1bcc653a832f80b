//! Protocol stacks: compositions of protocols that carry an application.

pub mod memory;
pub mod serial;
pub mod socket;
pub mod tcp_tls;

use tokio::io::{AsyncRead, AsyncWrite};

/// What a stack below a device link offers: octets in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> ByteStream for S {}

/// An established connection of any such stack.
pub type LinkConnection = Box<dyn ByteStream>;
