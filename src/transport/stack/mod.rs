//! Protocol stacks: compositions of protocols that carry an application.

pub mod memory;
pub mod serial;
pub mod socket;
pub mod tcp_tls;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::limits::LINK_MTU_BYTES_MAX;
use crate::time::Duration;

/// What a stack below a device link offers: octets in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin {
    /// How long the line is busy with what was written before, as far as the operating system tells.
    ///
    /// What is written meanwhile waits behind that, whatever its urgency.
    fn busy_for(&self) -> Duration {
        Duration::ZERO
    }
}

impl ByteStream for DuplexStream {}
impl ByteStream for TcpStream {}
impl ByteStream for UnixStream {}

impl<S: ByteStream + ?Sized> ByteStream for &mut S {
    fn busy_for(&self) -> Duration {
        (**self).busy_for()
    }
}

/// An established connection of any such stack.
pub type LinkConnection = Box<dyn ByteStream>;

/// What a connection was ready for, and how it went.
#[derive(Debug)]
pub enum Ready {
    /// So many octets were read; none when the other side is gone.
    Read(io::Result<usize>),
    /// So many octets were written.
    Wrote(io::Result<usize>),
}

/// Writes some of `output` or reads into `input`, whichever is possible first. Cancel safe: nothing is lost.
///
/// Writing is tried first: what a link has to write is bounded by its window, what there is to read is not.
pub async fn ready<S: ByteStream + ?Sized>(connection: &mut S, input: &mut [u8], output: &[u8]) -> Ready {
    let mut connection = Pin::new(connection);
    poll_fn(|context| poll_ready(connection.as_mut(), input, output, context)).await
}

/// As [`ready`], into a buffer that others use while this waits: what was read is there until the next wait.
pub async fn ready_in<S, const N: usize>(connection: &mut S, input: &RefCell<[u8; N]>, output: &[u8]) -> Ready
where
    S: ByteStream + ?Sized,
{
    let mut connection = Pin::new(connection);
    poll_fn(|context| poll_ready(connection.as_mut(), &mut *input.borrow_mut(), output, context)).await
}

fn poll_ready<S>(mut connection: Pin<&mut S>, input: &mut [u8], output: &[u8], context: &mut Context<'_>) -> Poll<Ready>
where
    S: ByteStream + ?Sized,
{
    if !output.is_empty()
        && let Poll::Ready(wrote) = connection.as_mut().poll_write(context, output)
    {
        return Poll::Ready(Ready::Wrote(wrote));
    }
    let mut input = ReadBuf::new(input);
    connection.poll_read(context, &mut input).map_ok(|()| input.filled().len()).map(Ready::Read)
}

/// The frame that is being written to a connection, and how far it got. It takes no memory while there is none.
#[derive(Debug)]
pub struct Outgoing {
    octets: Vec<u8>,
    from: usize,
}

impl Outgoing {
    /// Begins a connection with one delimiter, so that what the line held before does not spoil the first frame.
    pub fn new() -> Self {
        Self { octets: vec![0], from: 0 }
    }

    /// The octets not yet written.
    pub fn rest(&self) -> &[u8] {
        &self.octets[self.from..]
    }

    /// So many of them were written.
    pub fn wrote(&mut self, bytes: usize) {
        self.from += bytes;
        if self.from >= self.octets.len() {
            (self.octets, self.from) = (Vec::new(), 0);
        }
    }

    /// Takes the next frame, if there is one. The last one must be written.
    pub fn fill(&mut self, next: impl FnOnce(&mut [u8; LINK_MTU_BYTES_MAX]) -> Option<usize>) {
        let mut frame = [0; LINK_MTU_BYTES_MAX];
        if let Some(bytes) = next(&mut frame) {
            (self.octets, self.from) = (frame[..bytes].to_vec(), 0);
        }
    }
}

impl Default for Outgoing {
    fn default() -> Self {
        Self::new()
    }
}
