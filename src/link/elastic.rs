//! Buffers of the heap: a gateway has many links, and most of them are idle.

use super::memory::{Fixed, Memory, Storage};
use crate::limits::{GATEWAY_LINK_MTU_BYTES, GATEWAY_LINK_RX_BYTES, GATEWAY_LINK_TX_BYTES, GATEWAY_LINK_URGENT_BYTES};
use crate::wire::cobs::Deframer;

/// At most `N` octets of the heap, none while none are needed.
#[derive(Clone, Debug, Default)]
pub struct Elastic<const N: usize>(Vec<u8>);

impl<const N: usize> Storage for Elastic<N> {
    const BYTES_MAX: usize = N;

    fn reserve(&mut self, bytes: usize) {
        if bytes > self.0.len() {
            self.0.resize(bytes.min(N), 0);
        }
    }

    fn release(&mut self) {
        self.0 = Vec::new();
    }

    fn octets(&self) -> &[u8] {
        &self.0
    }

    fn octets_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// The buffers of a gateway's end: large messages take memory only while they are on their way.
#[derive(Clone, Copy, Debug)]
pub struct GatewayMemory;

impl Memory for GatewayMemory {
    type Send = Elastic<GATEWAY_LINK_TX_BYTES>;
    type SendUrgent = Elastic<GATEWAY_LINK_URGENT_BYTES>;
    type Receive = Fixed<GATEWAY_LINK_RX_BYTES>;
    type ReceiveUrgent = Fixed<0>;
    type Frame = Deframer<GATEWAY_LINK_MTU_BYTES>;
}
