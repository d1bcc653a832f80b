//! Another address at which the service listens as well, and how it tells clients of it.
//!
//! It is announced in the field `Alt-Svc` of responses: the HTTP/2 library cannot send the frame of that name.
//!
//! Source: RFC 7838 §3; RFC 8030 §3, §7.1, §9.3 (the port and service name of Web Push).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::HeaderValue;

use crate::limits::{SERVICE_ALTERNATIVE_S, WEBPUSH_PORT};
use crate::webpush::alt_svc;

/// The name of the Web Push port (RFC 8030 §9.3).
const WEBPUSH: &str = "webpush";

/// Another place to listen at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alternative {
    /// Its address; none: that of the service.
    pub ip: Option<IpAddr>,
    /// Its port; 0 takes any free one.
    pub port: u16,
}

/// The text names no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidAlternative;

impl Alternative {
    /// Where to listen.
    pub fn address(self, service: IpAddr) -> SocketAddr {
        SocketAddr::new(self.ip.unwrap_or(service), self.port)
    }

    /// What responses say, once it listens there: the host is left out where it is that of the service.
    pub fn field(self, listening: SocketAddr) -> HeaderValue {
        let (ip, port) = (self.ip.filter(|ip| !ip.is_unspecified()), listening.port());
        let place = ip.map_or(format!(":{port}"), |ip| alt_svc::Alternative { host: ip.to_string(), port }.to_string());
        let text = format!("h2=\"{place}\"; ma={SERVICE_ALTERNATIVE_S}");
        HeaderValue::from_str(&text).expect("addresses and numbers are visible ASCII")
    }
}

/// Reads `[HOST:]PORT`, where the port may be the name `webpush`.
impl FromStr for Alternative {
    type Err = InvalidAlternative;

    fn from_str(text: &str) -> Result<Self, InvalidAlternative> {
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let port = if port == WEBPUSH { WEBPUSH_PORT } else { port.parse().map_err(|_| InvalidAlternative)? };
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let ip = if host.is_empty() { None } else { Some(literal.parse().map_err(|_| InvalidAlternative)?) };
        // Without brackets its end cannot be told from the port.
        let is_bare = ip.is_some_and(|ip: IpAddr| ip.is_ipv6()) && literal == host;
        if is_bare { Err(InvalidAlternative) } else { Ok(Self { ip, port }) }
    }
}

impl fmt::Display for InvalidAlternative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a port or the name webpush, with or without an IP address, such as webpush or [::]:8444")
    }
}

impl std::error::Error for InvalidAlternative {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A-ALL-09: the service name stands for port 1001, with and without an address.
    #[test]
    fn a_all_09_places_are_read_by_port_or_by_name() {
        let service: IpAddr = [192, 0, 2, 1].into();
        for (text, address, field) in [
            ("webpush", "192.0.2.1:1001", "h2=\":1001\"; ma=86400"),
            (":webpush", "192.0.2.1:1001", "h2=\":1001\"; ma=86400"),
            ("1001", "192.0.2.1:1001", "h2=\":1001\"; ma=86400"),
            (":8444", "192.0.2.1:8444", "h2=\":8444\"; ma=86400"),
            ("192.0.2.7:webpush", "192.0.2.7:1001", "h2=\"192.0.2.7:1001\"; ma=86400"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443", "h2=\"[2001:db8::1]:443\"; ma=86400"),
            ("0.0.0.0:8444", "0.0.0.0:8444", "h2=\":8444\"; ma=86400"),
        ] {
            let alternative: Alternative = text.parse().expect(text);
            let listening = alternative.address(service);
            assert_eq!(
                (listening.to_string().as_str(), alternative.field(listening)),
                (address, field.parse().expect(field))
            );
        }
        for bad in
            ["", ":", "Webpush", "web", "65536", "-1", "push.example.net:1001", "::1", "::1:1001", "[::1]", "[::1:1"]
        {
            assert_eq!(bad.parse::<Alternative>(), Err(InvalidAlternative), "{bad}");
        }
    }
}
