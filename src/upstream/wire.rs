//! The octets of an HTTP/2 connection, between TLS and the HTTP/2 library.
//!
//! Three facts are seen in frame headers that the library keeps to itself: that the service lets the connection go, that its
//! settings may be others, and what each octet was for. Of one kind of frame that the library drops the content is read as
//! well: where else the service can be reached. The octets pass unchanged; a malformed frame is the library's to judge.
//!
//! ```text
//! +-----------------------------------------------+
//! | length (24) | type (8) | flags (8) | stream (32) |   length octets follow
//! +-----------------------------------------------+
//! ```
//!
//! Source: RFC 9113 §3.4 (preface), §4.1 (frames), §6.5 (SETTINGS), §6.8 (GOAWAY); RFC 7838 §4 (ALTSVC).

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Add;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::limits::ALTSVC_FRAME_BYTES_MAX;
use crate::webpush::alt_svc::Announcement;
use crate::webpush::resource::PushServiceUri;

const PREFACE_BYTES: u32 = 24;
const FRAME_HEADER_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const ALTSVC: u8 = 10;

/// Octets of HTTP/2, sent and received, by what they were for. TLS adds 22 to each of its records, TCP and IP theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Octets {
    /// Promises and what was promised.
    pub pushes: u64,
    /// Subscribing, monitoring and acknowledging, with the answers.
    pub requests: u64,
    /// Tests of an idle connection.
    pub keep_alive: u64,
    /// What HTTP/2 needs for itself: settings, windows, resets.
    pub control: u64,
}

impl Add for Octets {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            pushes: self.pushes + other.pushes,
            requests: self.requests + other.requests,
            keep_alive: self.keep_alive + other.keep_alive,
            control: self.control + other.control,
        }
    }
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    octets: Cell<Octets>,
    going_away: Notify,
    settings: Notify,
    /// The origin of the connection; without one no frame says anything of alternatives.
    service: Option<PushServiceUri>,
    /// The last one that was not taken; a later one replaces it.
    announcement: RefCell<Option<Announcement>>,
    announced: Notify,
}

impl Sightings {
    /// For a connection to the origin of `service`.
    pub(super) fn of(service: PushServiceUri) -> Self {
        Self { service: Some(service), ..Self::default() }
    }

    /// Waits for what the service says of its alternatives. Cancel safe.
    pub(super) async fn announcement(&self) -> Announcement {
        loop {
            if let Some(announcement) = self.announcement.take() {
                return announcement;
            }
            self.announced.notified().await;
        }
    }

    pub(super) fn octets(&self) -> Octets {
        self.octets.get()
    }

    /// Waits until the service lets the connection go.
    pub(super) async fn going_away(&self) {
        self.going_away.notified().await;
    }

    /// Waits until the service sends settings, or has since the last call.
    pub(super) async fn settings(&self) {
        self.settings.notified().await;
    }

    fn saw_altsvc(&self, stream: u32, payload: &[u8]) {
        let service = self.service.as_ref();
        if let Some(announcement) = service.and_then(|it| Announcement::from_frame(stream, payload, it)) {
            self.announcement.replace(Some(announcement));
            self.announced.notify_one();
        }
    }

    fn saw(&self, kind: u8, stream: u32, bytes: u64) {
        let mut octets = self.octets.get();
        // Even numbers are the service's: it uses them for pushes only.
        let is_pushed = stream.is_multiple_of(2);
        match kind {
            PUSH_PROMISE => octets.pushes += bytes,
            DATA | HEADERS | CONTINUATION if is_pushed => octets.pushes += bytes,
            DATA | HEADERS | CONTINUATION => octets.requests += bytes,
            PING => octets.keep_alive += bytes,
            _ => octets.control += bytes,
        }
        self.octets.set(octets);
        match kind {
            GOAWAY => self.going_away.notify_one(),
            SETTINGS => self.settings.notify_one(),
            _ => {}
        }
    }
}

/// A byte stream that takes note of the frames that pass.
pub(super) struct Wire<T> {
    inner: T,
    incoming: Frames,
    outgoing: Frames,
    sightings: Rc<Sightings>,
}

impl<T> Wire<T> {
    pub(super) fn new(inner: T, sightings: Rc<Sightings>) -> Self {
        let outgoing = Frames { skip: PREFACE_BYTES, ..Frames::default() };
        Self { inner, incoming: Frames::default(), outgoing, sightings }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
        this.incoming.read(&buffer.filled()[before..], &this.sightings);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, octets))?;
        this.outgoing.read(&octets[..written], &this.sightings);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, pieces))?;
        let mut rest = written;
        for piece in pieces {
            let taken = piece.len().min(rest);
            this.outgoing.read(&piece[..taken], &this.sightings);
            rest -= taken;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// Where in the frames of one direction the reader is. It holds a frame header or less, and of payloads only that of an
/// ALTSVC frame.
#[derive(Debug, Default)]
struct Frames {
    header: [u8; FRAME_HEADER_BYTES],
    header_bytes: usize,
    /// Octets of the preface or of a payload that are yet to come.
    skip: u32,
    /// The stream of the ALTSVC frame that is being read, and what came of it.
    kept: Option<(u32, Vec<u8>)>,
}

impl Frames {
    fn read(&mut self, mut octets: &[u8], sightings: &Sightings) {
        while !octets.is_empty() {
            if self.skip > 0 {
                let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(octets.len());
                let (payload, rest) = octets.split_at(skipped);
                octets = rest;
                self.skip -= u32::try_from(skipped).expect("no more than there was to skip");
                self.keep(payload, sightings);
                continue;
            }
            let taken = (FRAME_HEADER_BYTES - self.header_bytes).min(octets.len());
            self.header[self.header_bytes..][..taken].copy_from_slice(&octets[..taken]);
            octets = &octets[taken..];
            self.header_bytes += taken;
            if self.header_bytes == FRAME_HEADER_BYTES {
                self.header_bytes = 0;
                let [l0, l1, l2, kind, _, s0, s1, s2, s3] = self.header;
                self.skip = u32::from_be_bytes([0, l0, l1, l2]);
                let stream = u32::from_be_bytes([s0, s1, s2, s3]) & (u32::MAX >> 1);
                sightings.saw(kind, stream, u64::from(self.skip) + FRAME_HEADER_BYTES as u64);
                let is_kept = kind == ALTSVC && self.skip as usize <= ALTSVC_FRAME_BYTES_MAX;
                self.kept = is_kept.then(|| (stream, Vec::new()));
            }
        }
    }

    /// Takes octets of a payload, if it is one to be read.
    fn keep(&mut self, octets: &[u8], sightings: &Sightings) {
        let Some((stream, payload)) = &mut self.kept else { return };
        payload.extend_from_slice(octets);
        if self.skip == 0 {
            sightings.saw_altsvc(*stream, payload);
            self.kept = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn octets_are_told_apart_and_a_goaway_is_seen_however_they_are_cut() {
        let frames =
            [(HEADERS, 1, 40), (PUSH_PROMISE, 1, 60), (HEADERS, 2, 30), (DATA, 2, 200), (PING, 0, 8), (GOAWAY, 0, 8)];
        let all: Vec<u8> = frames.iter().flat_map(|(kind, stream, length)| frame(*kind, *stream, *length)).collect();
        for piece in [1, 5, 9, 64, all.len()] {
            let sightings = Sightings::default();
            let mut reader = Frames::default();
            all.chunks(piece).for_each(|octets| reader.read(octets, &sightings));
            let expected = Octets { pushes: 290 + 27, requests: 49, keep_alive: 17, control: 17 };
            assert_eq!(sightings.octets(), expected, "pieces of {piece}");
            sightings.going_away().await;
        }
    }

    /// D-7838-10: frames between others, however they are cut: those for the origin of the connection are taken, the last one
    /// of them; others are ignored, and so is one that is too long. All count as what they are.
    #[test]
    fn d_7838_10_alternatives_are_seen_in_frames() {
        let altsvc = |stream: u8, origin: &str, value: &str| {
            let length = u16::try_from(origin.len()).expect("short").to_be_bytes();
            frame_of(ALTSVC, stream, &[&length, origin.as_bytes(), value.as_bytes()].concat())
        };
        let ours = "https://push.example";
        let long = format!("h2=\":9\"{}", " ".repeat(ALTSVC_FRAME_BYTES_MAX));
        for (frames, port) in [
            (vec![altsvc(1, "", "h2=\":1\"")], Some(1)),
            (vec![altsvc(0, ours, "h2=\":2\"")], Some(2)),
            (vec![altsvc(0, ours, "h2=\":2\""), altsvc(3, "", "h2=\":3\"")], Some(3)),
            (vec![altsvc(0, "", "h2=\":4\"")], None),
            (vec![altsvc(1, ours, "h2=\":5\""), altsvc(0, "https://other.example", "h2=\":6\"")], None),
            (vec![altsvc(0, ours, "h2=\":7\""), altsvc(0, "", "h2=\":8\""), altsvc(1, "", &long)], Some(7)),
            (vec![frame_of(ALTSVC, 1, b""), frame_of(ALTSVC, 1, b"\0")], None),
        ] {
            let frames = [frame(PING, 0, 8), frames.concat(), frame(HEADERS, 1, 40)].concat();
            for piece in [1, 7, 9, 64, frames.len()] {
                let service = PushServiceUri::parse("https://push.example/s").expect("valid");
                let (sightings, mut reader) = (Sightings::of(service), Frames::default());
                frames.chunks(piece).for_each(|octets| reader.read(octets, &sightings));
                let octets = sightings.octets();
                assert_eq!((octets.keep_alive, octets.requests), (17, 49), "what comes between is as it was");
                let announcement = sightings.announcement.take();
                let announced = announcement.map(|announcement| announcement.offers[0].alternative.port);
                assert_eq!(announced, port, "pieces of {piece}");
            }
        }
    }

    #[test]
    fn the_preface_is_no_frame() {
        let sightings = Sightings::default();
        let mut wire = Wire::new(tokio::io::empty(), Rc::new(Sightings::default()));
        let octets = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(PING, 0, 8)].concat();
        wire.outgoing.read(&octets, &sightings);
        assert_eq!(sightings.octets(), Octets { keep_alive: 17, ..Octets::default() });
    }

    fn frame(kind: u8, stream: u8, length: u8) -> Vec<u8> {
        frame_of(kind, stream, &vec![0; usize::from(length)])
    }

    fn frame_of(kind: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, stream], payload].concat()
    }
}
