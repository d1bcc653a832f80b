//! The octets of an HTTP/2 connection, between TLS and the HTTP/2 library.
//!
//! Outgoing, it gathers what is written until the flush, so that promise, head and message of a push leave in one TLS
//! record, and a burst of answers in few.
//!
//! Incoming, it looks at frame headers for three facts the library keeps to itself: whether the client switched server
//! push off, that its other settings may have changed, and which streams it reset, for a stream that we have ended is forgotten there although the client may
//! still refuse it. Outgoing, it looks how far promises have come, and the heads of receipts. The octets pass unchanged; a
//! malformed frame is the library's to judge.
//!
//! ```text
//! +-----------------------------------------------+
//! | length (24) | type (8) | flags (8) | stream (32) |   RST_STREAM: 4 octets follow, SETTINGS: 6 for each parameter,
//! +-----------------------------------------------+    PUSH_PROMISE: the promised stream (32), for ours are not padded
//! ```
//!
//! Source: RFC 9113 §3.4 (preface), §4.1 (frames), §6.4 (RST_STREAM), §6.5 (SETTINGS), §6.6 (PUSH_PROMISE).

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::limits::{SERVICE_ASKED_COUNT_MAX, SERVICE_ASKED_MS, SERVICE_WRITE_BYTES};
use crate::time::Duration;

const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const ACK: u8 = 1;
const ENABLE_PUSH: u16 = 2;

/// What was seen on the way in, and when anything went out.
#[derive(Debug)]
pub(super) struct Sightings {
    push_disabled: Cell<bool>,
    heard: Cell<Instant>,
    sent: Cell<Instant>,
    /// The stream that was promised last.
    promised: Cell<u32>,
    /// Streams of ours whose head is not yet written. Whoever expects it bounds this.
    headless: RefCell<BTreeSet<u32>>,
    /// Whether the client changed its settings since the last look.
    settings: Cell<bool>,
    /// Frames that only want an answer, in the time since `asked_since`.
    asked_count: Cell<u32>,
    asked_since: Cell<Instant>,
    /// Streams whose reset is of interest. Whoever watches bounds this, and with it `reset`.
    watched: RefCell<BTreeSet<u32>>,
    reset: RefCell<Vec<u32>>,
}

impl Default for Sightings {
    fn default() -> Self {
        Self {
            push_disabled: Cell::new(false),
            heard: Cell::new(Instant::now()),
            sent: Cell::new(Instant::now()),
            promised: Cell::new(0),
            headless: RefCell::default(),
            settings: Cell::new(false),
            asked_count: Cell::new(0),
            asked_since: Cell::new(Instant::now()),
            watched: RefCell::default(),
            reset: RefCell::default(),
        }
    }
}

impl Sightings {
    /// Whether the client's last word is that it takes no pushes.
    pub(super) fn push_disabled(&self) -> bool {
        self.push_disabled.get()
    }

    /// When anything last came from the client.
    pub(super) fn heard(&self) -> Instant {
        self.heard.get()
    }

    /// When octets last left for the client.
    pub(super) fn sent(&self) -> Instant {
        self.sent.get()
    }

    /// The stream whose promise was written last; those before it were written as well.
    pub(super) fn promised(&self) -> u32 {
        self.promised.get()
    }

    /// Takes note of when the head of a stream of ours is written.
    pub(super) fn expect_head(&self, stream: u32) {
        self.headless.borrow_mut().insert(stream);
    }

    /// Whether a head that was expected is written, and all before it.
    pub(super) fn has_head(&self, stream: u32) -> bool {
        !self.headless.borrow().contains(&stream)
    }

    pub(super) fn saw_head(&self, stream: u32) {
        self.headless.borrow_mut().remove(&stream);
    }

    /// Whether the client changed its settings, and with them perhaps what may be promised, since they were last taken note
    /// of.
    pub(super) fn has_settings(&self) -> bool {
        self.settings.get()
    }

    pub(super) fn took_settings(&self) {
        self.settings.set(false);
    }

    /// Whether the client sent more PING and SETTINGS frames within [`SERVICE_ASKED_MS`] than anybody needs to: each costs an
    /// answer.
    ///
    /// Source: RFC 9113 §10.5.
    pub(super) fn is_flooded(&self) -> bool {
        self.asked_count.get() > SERVICE_ASKED_COUNT_MAX
    }

    fn saw_question(&self) {
        let heard = self.heard.get();
        if heard.duration_since(self.asked_since.get()) >= Duration::from_millis(SERVICE_ASKED_MS) && !self.is_flooded()
        {
            self.asked_since.set(heard);
            self.asked_count.set(0);
        }
        self.asked_count.set(self.asked_count.get().saturating_add(1));
    }

    pub(super) fn watch(&self, stream: u32) {
        self.watched.borrow_mut().insert(stream);
    }

    pub(super) fn unwatch(&self, stream: u32) {
        self.watched.borrow_mut().remove(&stream);
    }

    pub(super) fn has_resets(&self) -> bool {
        !self.reset.borrow().is_empty()
    }

    /// The watched streams that were reset since the last call; they are watched no more.
    pub(super) fn take_resets(&self) -> Vec<u32> {
        self.reset.take()
    }

    fn saw_reset(&self, stream: u32) {
        if self.watched.borrow_mut().remove(&stream) {
            self.reset.borrow_mut().push(stream);
        }
    }
}

/// A byte stream that gathers writes and takes note of incoming frames.
pub(super) struct Wire<T> {
    inner: T,
    incoming: Frames,
    outgoing: Frames,
    sightings: Rc<Sightings>,
    out: BytesMut,
}

impl<T> Wire<T> {
    pub(super) fn new(inner: T, sightings: Rc<Sightings>) -> Self {
        Self { inner, incoming: Frames::of_client(), outgoing: Frames::of_server(), sightings, out: BytesMut::new() }
    }
}

impl<T: AsyncWrite + Unpin> Wire<T> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, &self.out))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => {
                    self.sightings.sent.set(Instant::now());
                    self.out.advance(written);
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Wire<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
        let new = &buffer.filled()[before..];
        if !new.is_empty() {
            this.sightings.heard.set(Instant::now());
            this.incoming.read(new, &this.sightings);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.out.len() >= SERVICE_WRITE_BYTES {
            ready!(this.poll_drain(cx))?;
        }
        let taken = octets.len().min(SERVICE_WRITE_BYTES - this.out.len());
        this.out.extend_from_slice(&octets[..taken]);
        this.outgoing.read(&octets[..taken], &this.sightings);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

/// Where in the frames of one side the reader is. It holds a frame header or less, never a payload.
#[derive(Debug)]
struct Frames {
    /// Whether they are ours: what a client promises is no fact.
    is_ours: bool,
    state: State,
    /// Octets gathered for the current header or parameter.
    gathered: [u8; FRAME_HEADER_BYTES],
    gathered_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Preface { rest: usize },
    Header,
    Settings { rest: usize },
    Promise { rest: usize },
    Skip { rest: usize },
}

impl Frames {
    fn of_client() -> Self {
        Self::new(false, State::Preface { rest: PREFACE_BYTES })
    }

    fn of_server() -> Self {
        Self::new(true, State::Header)
    }

    fn new(is_ours: bool, state: State) -> Self {
        Self { is_ours, state, gathered: [0; FRAME_HEADER_BYTES], gathered_bytes: 0 }
    }

    fn read(&mut self, mut octets: &[u8], sightings: &Sightings) {
        while !octets.is_empty() {
            match self.state {
                State::Preface { rest } | State::Skip { rest } => {
                    let skipped = rest.min(octets.len());
                    octets = &octets[skipped..];
                    self.state = match (self.state, rest - skipped) {
                        (_, 0) => State::Header,
                        (State::Preface { .. }, rest) => State::Preface { rest },
                        (_, rest) => State::Skip { rest },
                    };
                }
                State::Header => {
                    if self.gather(&mut octets, FRAME_HEADER_BYTES) {
                        self.state = self.header(sightings);
                    }
                }
                State::Settings { rest } => {
                    if self.gather(&mut octets, 6) {
                        self.parameter(sightings);
                        self.state = after_parameter(rest - 6);
                        // The library knows of it by the time this is looked at: it has been given the whole frame.
                        sightings.settings.set(sightings.settings.get() || rest < 12);
                    }
                }
                State::Promise { rest } => {
                    if self.gather(&mut octets, 4) {
                        let [s0, s1, s2, s3, ..] = self.gathered;
                        sightings.promised.set(stream_of([s0, s1, s2, s3]));
                        self.state = skip(rest - 4);
                    }
                }
            }
        }
    }

    /// Gathers up to `wanted` octets; true when they are complete.
    fn gather(&mut self, octets: &mut &[u8], wanted: usize) -> bool {
        let taken = (wanted - self.gathered_bytes).min(octets.len());
        self.gathered[self.gathered_bytes..][..taken].copy_from_slice(&octets[..taken]);
        *octets = &octets[taken..];
        self.gathered_bytes += taken;
        let is_complete = self.gathered_bytes == wanted;
        if is_complete {
            self.gathered_bytes = 0;
        }
        is_complete
    }

    fn header(&self, sightings: &Sightings) -> State {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = self.gathered;
        let bytes = usize::try_from(u32::from_be_bytes([0, l0, l1, l2])).expect("24 bits fit");
        match (kind, self.is_ours) {
            (HEADERS, true) => sightings.saw_head(stream_of([s0, s1, s2, s3])),
            (PUSH_PROMISE, true) => return State::Promise { rest: bytes },
            (SETTINGS, false) if flags & ACK == 0 => {
                sightings.saw_question();
                return after_parameter(bytes);
            }
            (PING, false) if flags & ACK == 0 => sightings.saw_question(),
            (RST_STREAM, false) => sightings.saw_reset(stream_of([s0, s1, s2, s3])),
            _ => {}
        }
        skip(bytes)
    }

    fn parameter(&self, sightings: &Sightings) {
        let [i0, i1, v0, v1, v2, v3, ..] = self.gathered;
        if u16::from_be_bytes([i0, i1]) == ENABLE_PUSH {
            sightings.push_disabled.set(u32::from_be_bytes([v0, v1, v2, v3]) == 0);
        }
    }
}

fn stream_of(octets: [u8; 4]) -> u32 {
    u32::from_be_bytes(octets) & 0x7fff_ffff
}

fn after_parameter(rest: usize) -> State {
    if rest >= 6 { State::Settings { rest } } else { skip(rest) }
}

fn skip(rest: usize) -> State {
    if rest == 0 { State::Header } else { State::Skip { rest } }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut octets = u32::try_from(payload.len()).expect("short").to_be_bytes()[1..].to_vec();
        octets.extend([kind, flags]);
        octets.extend(stream.to_be_bytes());
        octets.extend(payload);
        octets
    }

    fn conversation() -> Vec<u8> {
        let mut octets = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        octets.extend(frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9, 0, 2, 0, 0, 0, 0, 0, 4, 0, 0, 1, 0]));
        octets.extend(frame(SETTINGS, ACK, 0, &[]));
        octets.extend(frame(0, 1, 1, &[RST_STREAM; 40]));
        octets.extend(frame(RST_STREAM, 0, 4, &8_u32.to_be_bytes()));
        octets.extend(frame(RST_STREAM, 0, 4, &8_u32.to_be_bytes()));
        octets.extend(frame(RST_STREAM, 0, 6, &8_u32.to_be_bytes()));
        octets.extend(frame(RST_STREAM, 0, 2, &8_u32.to_be_bytes()));
        octets
    }

    #[tokio::test]
    async fn resets_and_the_push_setting_are_seen_however_the_octets_are_cut() {
        let all = conversation();
        for piece in [1, 2, 7, 9, 100, all.len()] {
            let sightings = Rc::new(Sightings::default());
            (2..=4).for_each(|stream| sightings.watch(stream));
            let mut frames = Frames::of_client();
            all.chunks(piece).for_each(|octets| frames.read(octets, &sightings));
            assert!(sightings.push_disabled());
            assert_eq!(sightings.take_resets(), [4, 2], "pieces of {piece}");
            assert!(!sightings.has_resets());
        }
    }

    #[tokio::test]
    async fn promises_are_seen_however_the_octets_are_cut_and_only_ours() {
        let mut all = frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 0]);
        all.extend(frame(PUSH_PROMISE, 4, 1, &[0x80, 0, 1, 2, 0x82]));
        all.extend(frame(RST_STREAM, 0, 2, &8_u32.to_be_bytes()));
        for piece in [1, 3, 10, all.len()] {
            let sightings = Rc::new(Sightings::default());
            sightings.watch(2);
            let mut frames = Frames::of_server();
            all.chunks(piece).for_each(|octets| frames.read(octets, &sightings));
            assert_eq!(sightings.promised(), 0x102, "pieces of {piece}");
            assert!(!sightings.push_disabled() && !sightings.has_resets());
        }
        let sightings = Rc::new(Sightings::default());
        Frames { state: State::Header, ..Frames::of_client() }.read(&all, &sightings);
        assert_eq!(sightings.promised(), 0);
    }

    #[tokio::test]
    async fn push_is_on_until_it_is_switched_off_and_may_be_switched_on_again() {
        let sightings = Rc::new(Sightings::default());
        let mut frames = Frames { state: State::Header, ..Frames::of_client() };
        assert!(!sightings.push_disabled());
        frames.read(&frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 0]), &sightings);
        assert!(sightings.push_disabled());
        frames.read(&frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 1]), &sightings);
        assert!(!sightings.push_disabled());
    }

    #[tokio::test]
    async fn writes_leave_together_at_the_flush_and_nothing_is_lost_at_the_bound() {
        let (near, mut far) = tokio::io::duplex(4 * SERVICE_WRITE_BYTES);
        let mut wire = Wire::new(near, Rc::default());
        wire.write_all(b"one").await.expect("it is only gathered");
        wire.write_all(b"two").await.expect("it is only gathered");
        let mut buffer = vec![0; 6];
        assert!(tokio::time::timeout(std::time::Duration::ZERO, far.read(&mut buffer)).await.is_err());
        wire.flush().await.expect("there is room");
        far.read_exact(&mut buffer).await.expect("it was flushed");
        assert_eq!(buffer, b"onetwo");

        let long = vec![7; 2 * SERVICE_WRITE_BYTES + 1];
        wire.write_all(&long).await.expect("there is room");
        wire.flush().await.expect("there is room");
        let mut read = vec![0; long.len()];
        far.read_exact(&mut read).await.expect("all of it");
        assert_eq!(read, long);
    }
}
