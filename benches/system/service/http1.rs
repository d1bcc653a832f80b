//! The least of an HTTP/1.1 client: one request at a time.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::dial::Server;

pub struct Http1 {
    stream: TlsStream<TcpStream>,
    host: String,
    output: Vec<u8>,
    input: Vec<u8>,
}

/// The head of an answer.
pub struct Head(String);

impl Http1 {
    pub async fn connect(server: &Server) -> io::Result<Self> {
        let stream = server.connect(b"http/1.1").await?;
        Ok(Self { stream, host: server.address.to_string(), output: Vec::new(), input: Vec::new() })
    }

    /// Sends a request, and expects an answer without content.
    pub async fn request(&mut self, method: &str, path: &str, fields: &str, body: &[u8]) -> io::Result<Head> {
        self.output.clear();
        let (host, length) = (&self.host, body.len());
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n{fields}\r\n");
        self.output.extend_from_slice(head.as_bytes());
        self.output.extend_from_slice(body);
        self.stream.write_all(&self.output).await?;
        self.input.clear();
        while !self.input.ends_with(b"\r\n\r\n") {
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Head(String::from_utf8_lossy(&self.input).into_owned()))
    }

    /// Posts a message; returns its path once it is accepted.
    pub async fn post(&mut self, path: &str, body: &[u8]) -> io::Result<String> {
        let fields = "TTL: 3600\r\nContent-Encoding: aes128gcm\r\n";
        let head = self.request("POST", path, fields, body).await?;
        head.expect(201);
        Ok(head.location().to_owned())
    }

    pub async fn delete(&mut self, path: &str) {
        self.request("DELETE", path, "", b"").await.expect("the service is there").expect(204);
    }
}

impl Head {
    pub fn expect(&self, status: u16) {
        assert!(self.0.starts_with(&format!("HTTP/1.1 {status} ")), "{}", self.0);
    }

    pub fn location(&self) -> &str {
        self.fields("location").next().expect("where it is")
    }

    /// The target of the link with a relation.
    pub fn link(&self, relation: &str) -> &str {
        let link = self.fields("link").find(|link| link.contains(relation)).expect("a link");
        link.split(['<', '>']).nth(1).expect("its target")
    }

    fn fields<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let fields = self.0.lines().filter_map(|line| line.split_once(": "));
        fields.filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}
