//! Endpoints as a person writes them (RFC 9622 §6.1), checked once.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Rates that a serial endpoint may name, in baud.
const BAUD_MIN: u32 = 1_200;
const BAUD_MAX: u32 = 4_000_000;
const BAUD_DEFAULT: u32 = 115_200;

/// A peer by name and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RemoteEndpoint {
    /// Name or literal address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl RemoteEndpoint {
    /// Reads the authority of an https URI; the port is 443 when none is named.
    pub fn of_authority(authority: &str) -> Option<Self> {
        let authority: http::uri::Authority = authority.parse().ok()?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        (!host.is_empty()).then_some(Self { host, port: authority.port_u16().unwrap_or(443) })
    }
}

impl fmt::Display for RemoteEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Where a device link lives.
///
/// Layout: `serial:/dev/ttyUSB0?baud=115200`, `unix:/run/fieldgate/meter.sock`, `tcp:127.0.0.1:7000`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LinkEndpoint {
    /// A serial port, or the near end of a pseudo-terminal.
    Serial {
        /// Absolute path of the port.
        path: PathBuf,
        /// Line rate in baud.
        baud: u32,
    },
    /// A Unix stream socket.
    Unix {
        /// Absolute path of the socket.
        path: PathBuf,
    },
    /// A TCP address on the loopback interface: links are not authenticated yet.
    Tcp(SocketAddr),
}

/// Why a text is no link endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidEndpoint {
    /// It starts with none of `serial:`, `unix:`, `tcp:`.
    UnknownKind,
    /// The path is not absolute.
    RelativePath,
    /// A parameter other than `baud`, or a baud rate that is no number within bounds.
    InvalidParameter(String),
    /// Not an IP address and a port.
    InvalidAddress,
    /// An address that other machines can reach.
    NotLoopback(SocketAddr),
}

impl FromStr for LinkEndpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        match text.split_once(':') {
            Some(("serial", rest)) => serial(rest),
            Some(("unix", path)) => Ok(Self::Unix { path: absolute(path)? }),
            Some(("tcp", address)) => {
                let address: SocketAddr = address.parse().map_err(|_| InvalidEndpoint::InvalidAddress)?;
                if address.ip().is_loopback() {
                    Ok(Self::Tcp(address))
                } else {
                    Err(InvalidEndpoint::NotLoopback(address))
                }
            }
            _ => Err(InvalidEndpoint::UnknownKind),
        }
    }
}

fn serial(rest: &str) -> Result<LinkEndpoint, InvalidEndpoint> {
    let (path, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let mut baud = BAUD_DEFAULT;
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        baud = parameter
            .strip_prefix("baud=")
            .and_then(|rate| rate.parse().ok())
            .filter(|rate| (BAUD_MIN..=BAUD_MAX).contains(rate))
            .ok_or_else(|| InvalidEndpoint::InvalidParameter(parameter.to_owned()))?;
    }
    Ok(LinkEndpoint::Serial { path: absolute(path)?, baud })
}

fn absolute(path: &str) -> Result<PathBuf, InvalidEndpoint> {
    Some(PathBuf::from(path)).filter(|path| path.is_absolute()).ok_or(InvalidEndpoint::RelativePath)
}

impl fmt::Display for LinkEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial { path, baud } => write!(f, "serial:{}?baud={baud}", path.display()),
            Self::Unix { path } => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl fmt::Display for InvalidEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKind => f.write_str("a link is serial:/dev/PORT?baud=N, unix:/PATH or tcp:127.0.0.1:PORT"),
            Self::RelativePath => f.write_str("the path of a link must be absolute"),
            Self::InvalidParameter(parameter) => {
                write!(f, "parameter {parameter:?}: only baud={BAUD_MIN}..{BAUD_MAX} is known")
            }
            Self::InvalidAddress => f.write_str("a TCP link needs an IP address and a port, as in tcp:127.0.0.1:7000"),
            Self::NotLoopback(address) => {
                write!(
                    f,
                    "{address} can be reached from other machines; links are not authenticated, use 127.0.0.1 or [::1]"
                )
            }
        }
    }
}

impl std::error::Error for InvalidEndpoint {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_read_and_written_back() {
        for text in ["serial:/dev/ttyUSB0?baud=9600", "unix:/run/a.sock", "tcp:127.0.0.1:7000", "tcp:[::1]:7000"] {
            assert_eq!(text.parse::<LinkEndpoint>().map(|link| link.to_string()), Ok(text.to_owned()));
        }
        let default_rate = "serial:/dev/ttyS0".parse::<LinkEndpoint>().map(|link| link.to_string());
        assert_eq!(default_rate, Ok("serial:/dev/ttyS0?baud=115200".to_owned()));
    }

    #[test]
    fn remote_endpoints_are_read_from_authorities() {
        for (authority, host, port, shown) in [
            ("push.example", "push.example", 443, "push.example:443"),
            ("push.example:8443", "push.example", 8443, "push.example:8443"),
            ("[::1]:7", "::1", 7, "[::1]:7"),
        ] {
            let remote = RemoteEndpoint::of_authority(authority).expect("valid");
            assert_eq!((remote.host.as_str(), remote.port, remote.to_string()), (host, port, shown.to_owned()));
        }
        assert_eq!(RemoteEndpoint::of_authority(""), None);
    }

    #[test]
    fn addresses_that_others_can_reach_are_refused() {
        for text in ["tcp:0.0.0.0:7000", "tcp:192.0.2.1:7000", "tcp:[2001:db8::1]:7000"] {
            assert!(matches!(text.parse::<LinkEndpoint>(), Err(InvalidEndpoint::NotLoopback(_))), "{text}");
        }
    }

    #[test]
    fn malformed_links_say_what_is_wrong() {
        assert_eq!("usb:1".parse::<LinkEndpoint>(), Err(InvalidEndpoint::UnknownKind));
        assert_eq!("unix:a.sock".parse::<LinkEndpoint>(), Err(InvalidEndpoint::RelativePath));
        assert_eq!("tcp:localhost:7000".parse::<LinkEndpoint>(), Err(InvalidEndpoint::InvalidAddress));
        for text in ["serial:/dev/a?baud=0", "serial:/dev/a?baud=fast", "serial:/dev/a?parity=odd"] {
            assert!(matches!(text.parse::<LinkEndpoint>(), Err(InvalidEndpoint::InvalidParameter(_))), "{text}");
        }
    }
}
