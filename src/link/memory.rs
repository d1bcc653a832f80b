//! The buffers of a link: of a size fixed at build time, or taken as needed where there is a heap
//! ([`elastic`](super::elastic)).
//!
//! A gateway has many links, most of them idle; a device has one, and no heap.

use crate::wire::cobs::Deframer;

/// Octets that a link may write to.
pub trait Storage: Default {
    /// How many there can be.
    const BYTES_MAX: usize;

    /// Sees to it that the first `bytes`, at most [`BYTES_MAX`](Self::BYTES_MAX), are there. What is there stays.
    fn reserve(&mut self, bytes: usize);

    /// None of what is there is needed any more.
    fn release(&mut self);

    /// The octets that are there.
    fn octets(&self) -> &[u8];

    /// The octets that are there.
    fn octets_mut(&mut self) -> &mut [u8];
}

/// The buffers of one end of a link.
pub trait Memory {
    /// Messages on their way to the peer, and a length of one or two octets each.
    type Send: Storage;
    /// The same of the urgent stream.
    type SendUrgent: Storage;
    /// The window of the ordered stream.
    type Receive: Storage;
    /// The window of the urgent stream.
    type ReceiveUrgent: Storage;
    /// One frame that is being received.
    type Frame: FrameStorage;
}

/// Where a frame is put together.
pub trait FrameStorage {
    /// Octets of the largest frame.
    const MTU: usize;

    /// One that drops frames of more than `mtu` octets.
    fn new(mtu: usize) -> Self;

    /// See [`Deframer::feed`](crate::wire::cobs::Deframer::feed).
    fn feed(&mut self, octets: &[u8]) -> (usize, bool);

    /// See [`Deframer::frame`](crate::wire::cobs::Deframer::frame).
    fn frame(&self) -> &[u8];
}

impl<const MTU: usize> FrameStorage for Deframer<MTU> {
    const MTU: usize = MTU;

    fn new(mtu: usize) -> Self {
        Self::new(mtu)
    }

    fn feed(&mut self, octets: &[u8]) -> (usize, bool) {
        self.feed(octets)
    }

    fn frame(&self) -> &[u8] {
        self.frame()
    }
}

/// `N` octets that are always there.
#[derive(Clone, Debug)]
pub struct Fixed<const N: usize>([u8; N]);

impl<const N: usize> Default for Fixed<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> Storage for Fixed<N> {
    const BYTES_MAX: usize = N;

    fn reserve(&mut self, _: usize) {}

    fn release(&mut self) {}

    fn octets(&self) -> &[u8] {
        &self.0
    }

    fn octets_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// The buffers of a device, all of a fixed size.
///
/// Layout: `MTU` octets for a frame, `WINDOW` and `URGENT` for what arrives, `TX` for what it sends.
#[derive(Clone, Copy, Debug)]
pub struct DeviceMemory<const MTU: usize, const WINDOW: usize, const URGENT: usize, const TX: usize>;

impl<const MTU: usize, const WINDOW: usize, const URGENT: usize, const TX: usize> Memory
    for DeviceMemory<MTU, WINDOW, URGENT, TX>
{
    type Send = Fixed<TX>;
    type SendUrgent = Fixed<0>;
    type Receive = Fixed<WINDOW>;
    type ReceiveUrgent = Fixed<URGENT>;
    type Frame = Deframer<MTU>;
}
