//! Messages that wait for room in one link. Both ends are on one thread.

use std::cell::RefCell;
use std::collections::VecDeque;

use tokio::sync::Notify;

use crate::limits::LINK_QUEUE_COUNT;
use crate::time::Instant;
use crate::wire::frame::Stream;

/// A message and the session it is meant for.
#[derive(Debug)]
pub(super) struct Queued {
    pub session: u32,
    pub octets: Box<[u8]>,
    /// When it is too late to begin with it.
    pub until: Option<Instant>,
}

/// As many wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// At most [`LINK_QUEUE_COUNT`] of each stream. It takes no memory while none wait, as in most links at most times.
#[derive(Debug, Default)]
pub(super) struct Queue {
    ordered: RefCell<VecDeque<Queued>>,
    urgent: RefCell<VecDeque<Queued>>,
    arrived: Notify,
}

impl Queue {
    /// Adds a message, unless its stream is full.
    pub fn push(&self, stream: Stream, queued: Queued) -> Result<(), Full> {
        let mut waiting = self.of(stream).borrow_mut();
        if waiting.len() >= LINK_QUEUE_COUNT {
            return Err(Full);
        }
        waiting.push_back(queued);
        self.arrived.notify_one();
        Ok(())
    }

    /// Whether a message of this stream would be taken.
    pub fn has_room(&self, stream: Stream) -> bool {
        self.of(stream).borrow().len() < LINK_QUEUE_COUNT
    }

    /// Octets of the oldest message of a stream.
    pub fn next_bytes(&self, stream: Stream) -> Option<usize> {
        self.of(stream).borrow().front().map(|queued| queued.octets.len())
    }

    /// The oldest message of a stream.
    pub fn pop(&self, stream: Stream) -> Option<Queued> {
        let mut waiting = self.of(stream).borrow_mut();
        let queued = waiting.pop_front();
        if waiting.is_empty() {
            *waiting = VecDeque::new();
        }
        queued
    }

    /// Drops the messages of the ordered stream that are so.
    pub fn drop_where(&self, is_so: impl Fn(&[u8]) -> bool) {
        self.ordered.borrow_mut().retain(|queued| !is_so(&queued.octets));
    }

    /// Waits until a message was added since this was waited for last. Cancel safe.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    fn of(&self, stream: Stream) -> &RefCell<VecDeque<Queued>> {
        match stream {
            Stream::Ordered => &self.ordered,
            Stream::Urgent => &self.urgent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stream_takes_so_many_and_gives_them_back_in_order() {
        let queue = Queue::default();
        for stream in [Stream::Ordered, Stream::Urgent] {
            for session in 0..LINK_QUEUE_COUNT as u32 {
                assert_eq!(queue.push(stream, queued(session)), Ok(()));
            }
            assert!(!queue.has_room(stream));
            assert_eq!(queue.push(stream, queued(0)), Err(Full));
        }
        let all = |stream| std::iter::from_fn(|| queue.pop(stream)).map(|queued| queued.session).collect::<Vec<_>>();
        assert_eq!(all(Stream::Urgent), (0..LINK_QUEUE_COUNT as u32).collect::<Vec<_>>());
        assert_eq!(all(Stream::Ordered).len(), LINK_QUEUE_COUNT);
        assert_eq!(queue.ordered.borrow().capacity(), 0, "an empty queue takes no memory");
    }

    fn queued(session: u32) -> Queued {
        Queued { session, octets: Box::default(), until: None }
    }
}
