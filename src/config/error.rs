//! What can be wrong with a configuration, said so that a person can put it right.

use std::fmt;

#[cfg(feature = "service")]
use crate::service::alternative::InvalidAlternative;
use crate::transport::endpoint::InvalidEndpoint;
use crate::webpush::headers::InvalidUrgency;
use crate::webpush::vapid::InvalidKey;
use crate::wire::InvalidDeviceId;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The line of the text, counted from 1.
    pub line: usize,
    /// The setting in question, as in `device[0].link`; empty for the text as a whole.
    pub key: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a setting.
///
/// None of these holds the URL of the push service: it may be a capability, and errors end up in logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The text is no TOML.
    Syntax(String),
    /// It is longer than a configuration may be.
    TooLong {
        /// The bound in octets.
        bytes_max: usize,
    },
    /// A key that does not exist here.
    Unknown {
        /// The key that was probably meant.
        nearest: Option<&'static str>,
        /// All keys that exist here.
        known: &'static [&'static str],
    },
    /// A key that must be there is not.
    Missing {
        /// What to write.
        example: &'static str,
    },
    /// A value of another type.
    WrongType {
        /// The type it must have.
        expected: &'static str,
        /// The type it has.
        found: &'static str,
    },
    /// A path that depends on the working directory.
    RelativePath,
    /// A path that is longer than what must hold it.
    PathTooLong {
        /// The bound in octets.
        bytes_max: usize,
    },
    /// A state folder whose own control socket would have a path that is too long.
    ControlPathTooLong {
        /// The bound in octets.
        bytes_max: usize,
    },
    /// No URL that a push service can have.
    Url(InvalidUrl),
    /// No device id.
    DeviceId(InvalidDeviceId),
    /// No link.
    Link(InvalidEndpoint),
    /// No name of a push service.
    ServiceName {
        /// The bound in octets.
        bytes_max: usize,
    },
    /// No push service has that name.
    NoSuchService,
    /// No key of an application server.
    ServerKey(InvalidKey),
    /// A key that stands beside one that excludes it.
    Either {
        /// The other key.
        other: &'static str,
    },
    /// No address to listen on.
    #[cfg(feature = "service")]
    ListenAddress,
    /// No host name.
    #[cfg(feature = "service")]
    HostName,
    /// No other place to listen at.
    #[cfg(feature = "service")]
    Alternative(InvalidAlternative),
    /// No level of urgency.
    Urgency(InvalidUrgency),
    /// No name of a network interface.
    InterfaceName {
        /// The bound in octets.
        bytes_max: usize,
    },
    /// None of the words that mean something here.
    OneOf(&'static [&'static str]),
    /// A number that is too small or too large.
    OutOfBounds {
        /// The smallest number allowed.
        min: u32,
        /// The largest number allowed.
        max: u32,
    },
    /// A list without an element.
    Empty,
    /// More elements than allowed.
    TooMany {
        /// What is counted.
        what: &'static str,
        /// The most there may be.
        count_max: usize,
    },
    /// A value that must be unique and is not.
    Duplicate {
        /// The line of the first one.
        first_line: usize,
    },
}

/// Why a text is no URL of a push service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidUrl {
    /// Not a URL at all, or a relative one.
    Malformed,
    /// `http://`: what is sent could be read and changed on its way.
    Insecure,
    /// Any scheme but `https`.
    UnknownScheme,
    /// A user name or password in it.
    Credentials,
    /// A fragment, which is never sent.
    Fragment,
    /// No host, or no port where one is announced.
    InvalidAuthority,
    /// Longer than any URI the gateway stores.
    TooLong {
        /// The bound in octets.
        bytes_max: usize,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.line, self.problem)
        } else {
            // A key in quotes may hold anything, and this is one line of a log.
            write!(f, "{}: {}: {}", self.line, self.key.escape_debug(), self.problem)
        }
    }
}

impl std::error::Error for ConfigError {}
impl std::error::Error for Problem {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(message) => write!(f, "not valid TOML: {message}; see https://toml.io for the format"),
            Self::TooLong { bytes_max } => write!(f, "longer than {bytes_max} octets; shorten it"),
            Self::Unknown { nearest: Some(nearest), .. } => write!(f, "unknown key; did you mean {nearest}?"),
            Self::Unknown { nearest: None, known } => {
                write!(f, "unknown key; remove it, known here: {}", known.join(", "))
            }
            Self::Missing { example } => write!(f, "not set; add, for example: {example}"),
            Self::WrongType { expected, found } => write!(f, "this is {found}; write {expected}"),
            Self::RelativePath => f.write_str("the path is relative; write it from / on"),
            Self::PathTooLong { bytes_max } => write!(f, "longer than {bytes_max} octets; name a shorter path"),
            Self::ControlPathTooLong { bytes_max } => {
                write!(f, "the control socket in it has a path of more than {bytes_max} octets; set control to another")
            }
            Self::Url(error) => error.fmt(f),
            Self::DeviceId(error) => write!(f, "{error}; choose another id"),
            Self::Link(error) => error.fmt(f),
            Self::ServiceName { bytes_max } => {
                write!(f, "no name; write 1 to {bytes_max} characters of A-Z a-z 0-9 . _ -")
            }
            Self::NoSuchService => f.write_str("no [[push_service]] has that name; add one, or name another"),
            Self::ServerKey(error) => write!(f, "{error}; ask the application server for its VAPID public key"),
            Self::Either { other } => write!(f, "not beside {other}; remove one of them"),
            #[cfg(feature = "service")]
            Self::ListenAddress => {
                f.write_str("not an IP address, with or without a port, such as 0.0.0.0 or [::]:8443")
            }
            #[cfg(feature = "service")]
            Self::HostName => f.write_str("not a host name, such as push.example.net; without port, scheme or path"),
            #[cfg(feature = "service")]
            Self::Alternative(error) => error.fmt(f),
            Self::Urgency(error) => error.fmt(f),
            Self::InterfaceName { bytes_max } => {
                write!(f, "no name of an interface; write 1 to {bytes_max} characters in quotes")
            }
            Self::OneOf(words) => write!(f, "write one of: {}", words.join(", ")),
            Self::OutOfBounds { min, max } => write!(f, "out of bounds; write a number from {min} to {max}"),
            Self::Empty => f.write_str("nothing in the list; name at least one, or remove the key"),
            Self::TooMany { what, count_max } => write!(f, "too many; {what} may be {count_max} at most"),
            Self::Duplicate { first_line } => write!(f, "already used in line {first_line}; choose another"),
        }
    }
}

impl fmt::Display for InvalidUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("not a URL; write one such as https://push.example.net/subscribe"),
            Self::Insecure => f.write_str("http:// is not encrypted and refused; write https://"),
            Self::UnknownScheme => f.write_str("the scheme is unknown; write https://"),
            Self::Credentials => f.write_str("user name or password in the URL; remove it up to the @"),
            Self::Fragment => f.write_str("a fragment is never sent; remove the # and what follows"),
            Self::InvalidAuthority => {
                f.write_str("no valid host and port; write https://HOST/PATH or https://HOST:PORT/PATH")
            }
            Self::TooLong { bytes_max } => {
                write!(f, "longer than {bytes_max} octets; ask the service for a shorter one")
            }
        }
    }
}

/// The known key that a mistyped one was probably meant to be: at most two edits away.
pub(super) fn nearest(typed: &str, known: &'static [&'static str]) -> Option<&'static str> {
    const EDITS_MAX: usize = 2;
    let (edits, key) = known.iter().map(|&key| (edits(typed, key), key)).min()?;
    (edits <= EDITS_MAX && edits < key.len()).then_some(key)
}

/// Insertions, deletions and replacements that turn one text into the other (Levenshtein distance).
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, a) in from.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_the_key() {
        let problem = Problem::Unknown { nearest: Some("state"), known: &[] };
        let error = ConfigError { line: 3, key: "a\nb\u{1b}".to_owned(), problem };
        assert_eq!(error.to_string(), "3: a\\nb\\u{1b}: unknown key; did you mean state?");
    }

    #[test]
    fn slips_find_the_key_that_was_meant() {
        const KNOWN: &[&str] = &["state", "control", "push_service", "device"];
        for (typed, meant) in
            [("stat", "state"), ("devices", "device"), ("push-service", "push_service"), ("contorl", "control")]
        {
            assert_eq!(nearest(typed, KNOWN), Some(meant));
        }
        assert_eq!(nearest("colour", KNOWN), None);
        assert_eq!(nearest("", KNOWN), None);
    }
}
