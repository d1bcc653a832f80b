//! Protocol stacks: compositions of protocols that carry an application.

pub mod tcp_tls;
