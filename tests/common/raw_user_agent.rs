//! A user agent that writes and reads single HTTP/2 frames over TLS.
//!
//! It writes field blocks without compression and reads only the first octet of those it gets, which names a status
//! of the static table: 0x88 is 200, 0x89 is 204, 0x8c is 400, 0x8d is 404.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::service::{PATIENCE, Rig};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const ENABLE_PUSH: u16 = 2;
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;

pub const STATUS_200: u8 = 0x88;
pub const STATUS_400: u8 = 0x8c;
pub const STATUS_404: u8 = 0x8d;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The stream a PUSH_PROMISE reserves.
    pub fn promised(&self) -> u32 {
        assert_eq!(self.kind, PUSH_PROMISE);
        self.number(0)
    }

    /// The error code of a RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        self.number(if self.kind == GOAWAY { 4 } else { 0 })
    }

    pub fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four octets"))
    }
}

/// A frame as octets.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut octets = u32::try_from(payload.len()).expect("short").to_be_bytes()[1..].to_vec();
    octets.extend([kind, flags]);
    octets.extend(stream.to_be_bytes());
    octets.extend(payload);
    octets
}

/// A field block without compression: each field literal and with its name; lengths below 127 need no continuation.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [&[0][..], &text(name), &text(value)].concat()).collect()
}

/// The pairs in the payload of SETTINGS.
pub fn settings(payload: &[u8]) -> Vec<(u16, u32)> {
    let value = |pair: &[u8]| u32::from_be_bytes(pair[2..6].try_into().expect("four octets"));
    payload.chunks(6).map(|pair| (u16::from_be_bytes([pair[0], pair[1]]), value(pair))).collect()
}

pub struct RawUserAgent {
    stream: TlsStream<TcpStream>,
    authority: String,
    pings: u64,
    /// Settings the service sent.
    pub settings: Vec<(u16, u32)>,
}

impl RawUserAgent {
    /// Connects, sends preface and settings, and reads the service's settings.
    pub async fn connect(rig: &Rig, settings: &[(u16, u32)]) -> Self {
        let stream = rig.tls(&["h2"]).await;
        let mut this = Self { stream, authority: rig.authority(), pings: 0, settings: vec![] };
        this.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("written");
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend(id.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        this.send(SETTINGS, 0, 0, &payload).await;
        this.barrier().await;
        this
    }

    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.send_together(&[frame(kind, flags, stream, payload)]).await;
    }

    /// Sends frames in one TLS record.
    pub async fn send_together(&mut self, frames: &[Vec<u8>]) {
        self.stream.write_all(&frames.concat()).await.expect("written");
        self.stream.flush().await.expect("flushed");
    }

    /// Sends octets that the service may not want to read to their end; whether they are gone.
    pub async fn flood(&mut self, octets: &[u8]) -> bool {
        timeout(PATIENCE, self.stream.write_all(octets)).await.expect("in time").is_ok()
    }

    pub async fn request(&mut self, stream: u32, method: &str, path: &str, fields: &[(&str, &str)]) {
        let request = self.request_frame(stream, method, path, fields);
        self.send_together(&[request]).await;
    }

    /// A request without content, as a frame.
    pub fn request_frame(&self, stream: u32, method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
        let pseudo = [(":method", method), (":scheme", "https"), (":authority", &*self.authority), (":path", path)];
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&[&pseudo, fields].concat()))
    }

    pub async fn reset(&mut self, stream: u32, code: u32) {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    pub async fn open_window(&mut self, stream: u32, octets: u32) {
        self.send(WINDOW_UPDATE, 0, stream, &octets.to_be_bytes()).await;
    }

    /// The next frame that says something; None once the connection is closed.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            let frame = timeout(PATIENCE, self.read()).await.expect("in time")?;
            match (frame.kind, frame.flags & ACK) {
                (SETTINGS, 0) => {
                    self.settings.extend(settings(&frame.payload));
                    self.send(SETTINGS, ACK, 0, &[]).await;
                }
                (SETTINGS, _) | (WINDOW_UPDATE, _) => {}
                (PING, 0) => self.send(PING, ACK, 0, &frame.payload).await,
                _ => return Some(frame),
            }
        }
    }

    /// The next frame of a service that may end the connection at any moment, and answers no more.
    pub async fn next_or_end(&mut self) -> Option<Frame> {
        timeout(PATIENCE, self.read()).await.expect("in time")
    }

    pub async fn expect(&mut self, kind: u8, stream: u32) -> Frame {
        let frame = self.next().await.expect("the connection is open");
        assert_eq!((frame.kind, frame.stream), (kind, stream), "{frame:?}");
        frame
    }

    /// Everything the service did up to now.
    ///
    /// The first PING is answered with what was read together with it; the second after all that followed from that.
    pub async fn barrier(&mut self) -> Vec<Frame> {
        let mut seen = self.until_pong().await;
        seen.extend(self.until_pong().await);
        seen
    }

    async fn until_pong(&mut self) -> Vec<Frame> {
        self.pings += 1;
        let question = self.pings.to_be_bytes();
        self.send(PING, 0, 0, &question).await;
        let mut seen = Vec::new();
        loop {
            let frame = self.next().await.expect("the connection is open");
            if frame.kind == PING && frame.payload == question {
                return seen;
            }
            seen.push(frame);
        }
    }

    async fn read(&mut self) -> Option<Frame> {
        read_frame(&mut self.stream).await
    }
}

/// The next frame; None once the connection is closed.
pub async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = head;
    let mut payload = vec![0; usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2)];
    stream.read_exact(&mut payload).await.ok()?;
    Some(Frame { kind, flags, stream: u32::from_be_bytes([s0, s1, s2, s3]), payload })
}
