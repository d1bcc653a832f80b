//! The octets of one message on their way into a connection, which tell when they are written.
//!
//! HTTP/2 does not say when a frame has left its buffers. But it drops the octets then, and a buffer that is dropped
//! empty was written whole; one that is dropped with octets in it was cut off.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::{Buf, Bytes};

/// Streams whose message was written whole since the last look. Bounded by the un-ended promises of the connection.
pub(super) type Written = Rc<RefCell<Vec<u32>>>;

/// Octets to send, and whom to tell.
pub(super) struct Parcel {
    octets: Bytes,
    report: Option<(Written, u32)>,
}

impl Parcel {
    /// Octets whose sending nobody waits for.
    pub(super) fn plain(octets: Bytes) -> Self {
        Self { octets, report: None }
    }

    /// The last octets of stream `stream`, reported to `written` once they are written.
    pub(super) fn last_of(octets: Bytes, written: &Written, stream: u32) -> Self {
        Self { octets, report: Some((Rc::clone(written), stream)) }
    }
}

impl Buf for Parcel {
    fn remaining(&self) -> usize {
        self.octets.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.octets.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.octets.advance(count);
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        if let Some((written, stream)) = self.report.take().filter(|_| self.octets.is_empty()) {
            written.borrow_mut().push(stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_parcel_that_was_read_to_its_end_is_reported() {
        let written = Written::default();
        let mut whole = Parcel::last_of(Bytes::from_static(b"ab"), &written, 2);
        whole.advance(2);
        drop(whole);
        let mut cut = Parcel::last_of(Bytes::from_static(b"ab"), &written, 4);
        cut.advance(1);
        drop(cut);
        drop(Parcel::plain(Bytes::new()));
        assert_eq!(*written.borrow(), [2]);
    }
}
