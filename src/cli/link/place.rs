//! Where a line is found: as in the configuration, and whether its speed is known.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::limits::LINK_PROBE_BAUDS;
use crate::transport::endpoint::{InvalidEndpoint, LinkEndpoint};

/// The gateway's side of a line.
///
/// Layout: `serial:/dev/ttyUSB0`, `serial:/dev/ttyUSB0?baud=115200`, `unix:/path`, `tcp:127.0.0.1:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProbePlace {
    pub endpoint: LinkEndpoint,
    /// Speeds to try, in baud: one if it was named, none if there is no such thing.
    pub bauds: Vec<u32>,
}

impl ProbePlace {
    /// The path and speed of a serial port, opened at the first speed.
    pub fn serial(&self) -> Option<(&PathBuf, u32)> {
        match &self.endpoint {
            LinkEndpoint::Serial { path, baud } => Some((path, self.bauds.first().copied().unwrap_or(*baud))),
            LinkEndpoint::Unix { .. } | LinkEndpoint::Tcp(_) => None,
        }
    }

    /// The same place with a speed, as it is written in a configuration.
    pub fn at(&self, baud: Option<u32>) -> LinkEndpoint {
        match (&self.endpoint, baud) {
            (LinkEndpoint::Serial { path, .. }, Some(baud)) => LinkEndpoint::Serial { path: path.clone(), baud },
            (endpoint, _) => endpoint.clone(),
        }
    }
}

impl FromStr for ProbePlace {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let endpoint: LinkEndpoint = text.parse()?;
        let bauds = match &endpoint {
            LinkEndpoint::Serial { baud, .. } if text.contains("?baud=") => vec![*baud],
            LinkEndpoint::Serial { .. } => LINK_PROBE_BAUDS.to_vec(),
            LinkEndpoint::Unix { .. } | LinkEndpoint::Tcp(_) => Vec::new(),
        };
        Ok(Self { endpoint, bauds })
    }
}

/// Without a speed that was not named.
impl fmt::Display for ProbePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.serial() {
            Some((path, _)) if self.bauds.len() > 1 => write!(f, "serial:{}", path.display()),
            Some(_) | None => self.endpoint.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_port_without_a_speed_is_tried_at_all_of_them() {
        let bauds = |text: &str| text.parse::<ProbePlace>().map(|place| (place.bauds.len(), place.to_string()));
        assert_eq!(bauds("serial:/dev/a"), Ok((LINK_PROBE_BAUDS.len(), "serial:/dev/a".to_owned())));
        assert_eq!(bauds("serial:/dev/a?baud=9600"), Ok((1, "serial:/dev/a?baud=9600".to_owned())));
        assert_eq!(bauds("unix:/run/a"), Ok((0, "unix:/run/a".to_owned())));
        assert_eq!(bauds("usb:1"), Err(InvalidEndpoint::UnknownKind));
    }

    #[test]
    fn the_speed_that_was_found_is_what_the_configuration_gets() {
        let place = |text: &str| text.parse::<ProbePlace>().expect("a place");
        assert_eq!(place("serial:/dev/a").at(Some(57_600)).to_string(), "serial:/dev/a?baud=57600");
        assert_eq!(place("tcp:127.0.0.1:7000").at(None).to_string(), "tcp:127.0.0.1:7000");
    }
}
