//! The least of an HTTP/2 client, so that it is the server that is measured: fields go without compression, and of what
//! comes only frame headers are read. Windows are so large that they are of no interest.

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::dial::Server;

const FRAME_HEADER_BYTES: usize = 9;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Of settings: streams that the server may have open, and the window of a stream.
const STREAM_COUNT_MAX: (u16, u32) = (3, 1_000);
const WINDOW: (u16, u32) = (4, 1 << 20);
const WINDOW_MAX: u32 = (1 << 31) - 1;
const WINDOW_INITIAL: u32 = 65_535;

/// A frame, but for its payload.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub kind: u8,
    flags: u8,
    pub stream: u32,
    /// Octets of its payload.
    pub octets: usize,
}

impl Frame {
    pub fn ends_stream(self) -> bool {
        (self.kind == DATA || self.kind == HEADERS) && self.flags & END_STREAM != 0
    }

    /// Streams that the server promised have even numbers.
    pub fn is_pushed(self) -> bool {
        self.stream.is_multiple_of(2)
    }
}

pub struct Http2 {
    stream: TlsStream<TcpStream>,
    host: String,
    input: BytesMut,
    output: Vec<u8>,
    next_stream: u32,
}

impl Http2 {
    pub async fn connect(server: &Server) -> std::io::Result<Self> {
        let stream = server.connect(b"h2").await?;
        let host = server.address.to_string();
        let mut http = Self { stream, host, input: BytesMut::new(), output: PREFACE.to_vec(), next_stream: 1 };
        let settings =
            [STREAM_COUNT_MAX, WINDOW].map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
        http.frame(SETTINGS, 0, 0, &settings.concat());
        http.frame(WINDOW_UPDATE, 0, 0, &(WINDOW_MAX - WINDOW_INITIAL).to_be_bytes());
        http.flush().await;
        Ok(http)
    }

    /// Writes a request with the fields of a message if it has content; it leaves with the next flush.
    pub fn request(&mut self, method: &str, path: &str, body: &[u8]) -> u32 {
        // RFC 7541 §6.1, §6.2.2: `:scheme: https`, then literals with names of the static table.
        let mut block = vec![0x87];
        literal(&mut block, &[2], method);
        literal(&mut block, &[1], &self.host);
        literal(&mut block, &[4], path);
        if !body.is_empty() {
            literal(&mut block, &[0, 3, b't', b't', b'l'], "3600");
            literal(&mut block, &[0x0f, 26 - 15], "aes128gcm");
        }
        let stream = self.next_stream;
        self.next_stream += 2;
        self.frame(HEADERS, END_HEADERS | if body.is_empty() { END_STREAM } else { 0 }, stream, &block);
        if !body.is_empty() {
            self.frame(DATA, END_STREAM, stream, body);
        }
        stream
    }

    pub async fn flush(&mut self) {
        self.stream.write_all(&self.output).await.expect("the server is there");
        self.output.clear();
    }

    /// Waits until the server has read all that was written.
    pub async fn ping(&mut self) {
        self.frame(PING, 0, 0, &[0; 8]);
        self.flush().await;
        loop {
            let frame = self.next().await;
            if frame.kind == PING && frame.flags & ACK != 0 {
                return;
            }
        }
    }

    /// The next frame; whether the server is there it is told, and its settings are accepted.
    pub async fn next(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.take() {
                if (frame.kind == SETTINGS) && frame.flags & ACK == 0 {
                    self.frame(SETTINGS, ACK, 0, &[]);
                    self.flush().await;
                }
                assert!(![RST_STREAM, GOAWAY].contains(&frame.kind), "the server refuses: {frame:?}");
                return frame;
            }
            let read = self.stream.read_buf(&mut self.input).await.expect("the server is there");
            assert!(read > 0, "the server is there");
        }
    }

    /// Whether more has been read than was looked at.
    pub fn has_more(&self) -> bool {
        self.frame_bytes().is_some_and(|bytes| self.input.len() >= bytes)
    }

    /// Posts `count` messages as fast as they are accepted, one path after the other, so many waiting at once.
    pub async fn post_all(&mut self, paths: &[String], body: &[u8], count: usize, at_once: usize) {
        let (mut posted, mut accepted) = (0, 0);
        while accepted < count {
            while posted < count && posted - accepted < at_once {
                self.request("POST", &paths[posted % paths.len()], body);
                posted += 1;
            }
            self.flush().await;
            loop {
                let frame = self.next().await;
                // What is refused has a reason as its content.
                assert!(frame.kind != HEADERS || frame.ends_stream(), "the service accepts what the bench sends");
                accepted += usize::from(frame.kind == HEADERS);
                if !self.has_more() {
                    break;
                }
            }
        }
    }

    fn frame_bytes(&self) -> Option<usize> {
        let head = self.input.get(..FRAME_HEADER_BYTES)?;
        Some(FRAME_HEADER_BYTES + u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize)
    }

    fn take(&mut self) -> Option<Frame> {
        let bytes = self.frame_bytes().filter(|bytes| self.input.len() >= *bytes)?;
        let head = &self.input[..FRAME_HEADER_BYTES];
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let frame = Frame { kind: head[3], flags: head[4], stream, octets: bytes - FRAME_HEADER_BYTES };
        self.input.advance(bytes);
        Some(frame)
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.output.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        self.output.extend_from_slice(&[kind, flags]);
        self.output.extend_from_slice(&stream.to_be_bytes());
        self.output.extend_from_slice(payload);
    }
}

/// A field that no table remembers.
fn literal(block: &mut Vec<u8>, name: &[u8], value: &str) {
    assert!(value.len() < 127, "its length takes one octet");
    block.extend_from_slice(name);
    block.push(value.len() as u8);
    block.extend_from_slice(value.as_bytes());
}
