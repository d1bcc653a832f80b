//! The buffers of the links that are tried: small, and different from one another, so that each bound is met.

use fieldgate::limits::LINK_MTU_BYTES_MAX;
use fieldgate::link::elastic::Elastic;
use fieldgate::link::memory::{Fixed, Memory};
use fieldgate::wire::cobs::Deframer;

/// Octets of messages on their way to the peer.
pub const TX: usize = 300;
/// The same of the urgent stream.
pub const URGENT_TX: usize = 150;
/// The window of the ordered stream.
pub const RX: usize = 100;
/// The window of the urgent stream.
pub const URGENT_RX: usize = 60;

/// The buffers of either end.
pub struct Small;

impl Memory for Small {
    type Send = Elastic<TX>;
    type SendUrgent = Elastic<URGENT_TX>;
    type Receive = Fixed<RX>;
    type ReceiveUrgent = Elastic<URGENT_RX>;
    type Frame = Deframer<LINK_MTU_BYTES_MAX>;
}
