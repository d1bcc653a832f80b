//! A push service that writes and reads single HTTP/2 frames over TLS.
//!
//! It says what a test tells it to, and otherwise the least: a subscription for each POST, silence for the first GET, which
//! is that of the monitor, and 204 for everything else. Of a request it reads no more than the method, which a client
//! writes first.

use std::future::Future;
use std::path::PathBuf;

use fieldgate::webpush::resource::PushUri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::push_service::good_acceptor;
use crate::raw_user_agent::{
    ACK, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, PUSH_PROMISE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, frame, read_frame,
};
use crate::service::PATIENCE;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Entries of the static table (RFC 7541 appendix A).
const METHOD_GET: u8 = 0x82;
const METHOD_POST: u8 = 0x83;

/// What a user agent did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Subscribe,
    Get,
    Delete,
    Reset { stream: u32, code: u32 },
    GoAway { code: u32 },
}

/// The listening service.
pub struct RawPushService {
    pub url: String,
    /// Vouches for its certificate.
    pub ca_file: PathBuf,
    listener: TcpListener,
    acceptor: TlsAcceptor,
    _folder: tempfile::TempDir,
}

impl RawPushService {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ca_file = folder.path().join("ca.pem");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let url = format!("https://{}/subscribe", listener.local_addr().expect("an address"));
        Self { url, acceptor: good_acceptor(&ca_file), ca_file, listener, _folder: folder }
    }

    /// The next connection, with the first frame of its client.
    pub async fn accept(&self) -> Connection {
        let (tcp, _) = timeout(PATIENCE, self.listener.accept()).await.expect("in time").expect("it listens");
        let authority = self.listener.local_addr().expect("an address").to_string();
        let mut stream = self.acceptor.accept(tcp).await.expect("a handshake");
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).await.expect("a preface");
        assert_eq!(preface, PREFACE);
        let first = read_frame(&mut stream).await.expect("a frame");
        let mut connection = Connection {
            stream,
            authority,
            first,
            monitor: None,
            subscribed: 0,
            promised: 0,
            credit: 65_535,
            seen: vec![],
        };
        connection.send(&[frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])]).await;
        connection
    }
}

/// One connection of a user agent.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    authority: String,
    /// The first frame that the user agent sent.
    pub first: Frame,
    /// The stream of the request that stays open.
    monitor: Option<u32>,
    subscribed: u32,
    /// The last stream that was promised.
    promised: u32,
    /// Octets of content that may be sent on the connection; who writes DATA by itself takes them away.
    pub credit: i64,
    /// What the user agent did so far.
    pub seen: Vec<Seen>,
}

impl Connection {
    pub async fn send(&mut self, frames: &[Vec<u8>]) {
        self.stream.write_all(&frames.concat()).await.expect("written");
        self.stream.flush().await.expect("flushed");
    }

    /// Serves while something else is waited for.
    pub async fn serve<T>(&mut self, wait: impl Future<Output = T>) -> T {
        tokio::select! {
            done = wait => done,
            () = self.serve_until(|_| false) => unreachable!("it serves for ever"),
        }
    }

    /// Serves until the user agent has done something.
    pub async fn serve_until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let frame = timeout(PATIENCE, read_frame(&mut self.stream)).await.expect("in time");
            self.answer(frame.unwrap_or_else(|| panic!("the connection is open: {:?}", self.seen))).await;
        }
    }

    /// Whether there is a request on which pushes can be promised.
    pub fn is_monitored(&self) -> bool {
        self.monitor.is_some()
    }

    /// How often something was done.
    pub fn count(&self, what: Seen) -> usize {
        self.seen.iter().filter(|seen| **seen == what).count()
    }

    async fn answer(&mut self, frame: Frame) {
        match (frame.kind, frame.payload.first()) {
            (HEADERS, Some(&METHOD_POST)) => {
                self.seen.push(Seen::Subscribe);
                let number = self.subscribed;
                self.subscribed += 1;
                let fields = [
                    (":status", "201"),
                    ("location", &format!("/s/{number}")),
                    ("link", &format!("</p/{number}>; rel=\"urn:ietf:params:push\"")),
                    ("link", "</t/0>; rel=\"urn:ietf:params:push:set\""),
                ];
                self.send(&[head(frame.stream, &fields, END_STREAM)]).await;
            }
            (HEADERS, Some(&METHOD_GET)) if self.monitor.is_none() => {
                self.seen.push(Seen::Get);
                self.monitor = Some(frame.stream);
            }
            (HEADERS, Some(&method)) => {
                self.seen.push(if method == METHOD_GET { Seen::Get } else { Seen::Delete });
                self.send(&[head(frame.stream, &[(":status", "204")], END_STREAM)]).await;
            }
            (PING, _) if frame.flags & ACK == 0 => self.send(&[self::frame(PING, ACK, 0, &frame.payload)]).await,
            (WINDOW_UPDATE, _) if frame.stream == 0 => self.credit += i64::from(frame.number(0)),
            (RST_STREAM, _) => self.seen.push(Seen::Reset { stream: frame.stream, code: frame.code() }),
            (GOAWAY, _) => self.seen.push(Seen::GoAway { code: frame.code() }),
            _ => {}
        }
    }

    /// A promise of a message to a subscription, as it should be; the stream, and the frame.
    pub fn promise(&mut self, to: &PushUri, path: &str) -> (u32, Vec<u8>) {
        let authority = self.authority.clone();
        let link = format!("<{}>; rel=\"urn:ietf:params:push\"", to.as_str());
        let pseudo = [(":method", "GET"), (":scheme", "https"), (":authority", &*authority), (":path", path)];
        self.promise_of(&[&pseudo[..], &[("link", &link)]].concat())
    }

    /// A promise with these fields; the stream, and the frame.
    pub fn promise_of(&mut self, fields: &[(&str, &str)]) -> (u32, Vec<u8>) {
        self.promised += 2;
        let payload = [&self.promised.to_be_bytes()[..], &block(fields)].concat();
        let monitor = self.monitor.expect("it monitors");
        (self.promised, frame(PUSH_PROMISE, END_HEADERS, monitor, &payload))
    }

    /// Pushes a message with a head of these fields; the stream.
    pub async fn push(&mut self, to: &PushUri, path: &str, fields: &[(&str, &str)], body: &[u8]) -> u32 {
        let (stream, promise) = self.promise(to, path);
        self.credit -= body.len() as i64;
        self.send(&[promise, head(stream, fields, 0), frame(DATA, END_STREAM, stream, body)]).await;
        stream
    }
}

/// The head of a message as it should be.
pub const GOOD_HEAD: [(&str, &str); 2] = [(":status", "200"), ("content-encoding", "aes128gcm")];

/// A head with these fields; flags are those beside END_HEADERS.
pub fn head(stream: u32, fields: &[(&str, &str)], flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &block(fields))
}
