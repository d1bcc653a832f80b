//! Where a simulated device is.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use tokio::net::{TcpStream, UnixStream};

use crate::transport::endpoint::{InvalidEndpoint, LinkEndpoint};
use crate::transport::stack::serial::{self, Pty};
use crate::transport::stack::{ByteStream, socket};

/// The device's side of a link.
///
/// Layout: `pty`, `pty:/path/of/a/link`, `serial:/dev/ttyUSB0?baud=115200`, `unix:/path`, `tcp:HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A new pseudo-terminal, and where a symbolic link to its far end is kept.
    Pty(Option<PathBuf>),
    /// A serial port.
    Serial {
        /// Absolute path of the port.
        path: PathBuf,
        /// Line rate in baud.
        baud: u32,
    },
    /// A Unix socket of the gateway.
    Unix(PathBuf),
    /// A TCP socket of the gateway: name or address, and port.
    Tcp(String),
}

/// Why a text is no place for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidPlace {
    /// None of the kinds, or a path or parameter that its kind does not allow.
    Endpoint(InvalidEndpoint),
    /// A TCP place without a port.
    NoPort,
}

impl FromStr for Place {
    type Err = InvalidPlace;

    fn from_str(text: &str) -> Result<Self, InvalidPlace> {
        match text.split_once(':') {
            None if text == "pty" => Ok(Self::Pty(None)),
            Some(("pty", path)) if path.starts_with('/') => Ok(Self::Pty(Some(path.into()))),
            Some(("pty", _)) => Err(InvalidPlace::Endpoint(InvalidEndpoint::RelativePath)),
            Some(("tcp", address)) => match address.rsplit_once(':') {
                Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(Self::Tcp(address.into())),
                _ => Err(InvalidPlace::NoPort),
            },
            _ => match text.parse().map_err(InvalidPlace::Endpoint)? {
                LinkEndpoint::Serial { path, baud } => Ok(Self::Serial { path, baud }),
                LinkEndpoint::Unix { path } => Ok(Self::Unix(path)),
                LinkEndpoint::Tcp(address) => Ok(Self::Tcp(address.to_string())),
            },
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pty(None) => f.write_str("pty"),
            Self::Pty(Some(path)) => write!(f, "pty:{}", path.display()),
            Self::Serial { path, baud } => write!(f, "serial:{}?baud={baud}", path.display()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl fmt::Display for InvalidPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(InvalidEndpoint::UnknownKind) => {
                f.write_str("a device is at pty, pty:/PATH, serial:/dev/PORT?baud=N, unix:/PATH or tcp:HOST:PORT")
            }
            Self::Endpoint(error) => error.fmt(f),
            Self::NoPort => f.write_str("a TCP link needs a host and a port, as in tcp:localhost:7000"),
        }
    }
}

impl std::error::Error for InvalidPlace {}

/// A place that is ready to be connected at, again and again.
pub(crate) enum Site {
    /// Connected as long as it exists.
    Pty(Pty),
    /// Connected anew each time.
    Remote(Place),
}

impl Site {
    pub fn new(place: Place) -> io::Result<Self> {
        match place {
            Place::Pty(link) => Pty::new(link.as_deref()).map(Self::Pty),
            remote => Ok(Self::Remote(remote)),
        }
    }

    /// One attempt.
    pub async fn connect(&mut self) -> io::Result<Box<dyn ByteStream + '_>> {
        Ok(match self {
            Self::Pty(pty) => Box::new(pty.near()),
            Self::Remote(Place::Serial { path, baud }) => Box::new(serial::open(path, *baud)?),
            Self::Remote(Place::Unix(path)) => Box::new(UnixStream::connect(path).await?),
            Self::Remote(Place::Tcp(address)) => {
                let stream = TcpStream::connect(address.as_str()).await?;
                socket::without_delay(&stream)?;
                Box::new(stream)
            }
            Self::Remote(Place::Pty(_)) => unreachable!("a pseudo-terminal is made at once"),
        })
    }
}

/// What others open, or what is connected to.
impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pty(pty) => pty.path().display().fmt(f),
            Self::Remote(place) => place.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_read_and_written_back() {
        for text in [
            "pty",
            "pty:/tmp/meter",
            "serial:/dev/ttyUSB0?baud=9600",
            "unix:/run/a.sock",
            "tcp:127.0.0.1:7000",
            "tcp:localhost:7000",
            "tcp:[::1]:7000",
        ] {
            assert_eq!(text.parse::<Place>().map(|place| place.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn malformed_places_say_what_is_wrong() {
        for (text, words) in [
            ("usb:1", "pty, pty:/PATH"),
            ("pty:meter", "must be absolute"),
            ("tcp:localhost", "needs a host and a port"),
            ("tcp::7000", "needs a host and a port"),
            ("tcp:localhost:70000", "needs a host and a port"),
            ("unix:a", "must be absolute"),
        ] {
            let error = text.parse::<Place>().expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
