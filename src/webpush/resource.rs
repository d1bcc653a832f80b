//! Typed URIs of the protocol's resources (RFC 8030 §2.1).
//!
//! Each is a capability: who knows it may use it (RFC 8030 §8.3). So none has a `Display`, and `Debug` names only the
//! kind; [`as_str`](PushUri::as_str) is the one way to the text.

use std::fmt;

use http::Uri;

use crate::limits::URI_BYTES_MAX;

/// Why a URI is not usable as a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidResource {
    /// The scheme is not `https` (RFC 8030 §8).
    NotHttps,
    /// No host, no port where one is announced, or credentials before the host.
    Authority,
    /// Longer than [`URI_BYTES_MAX`].
    TooLong,
    /// Not on the origin of the push service.
    OtherOrigin,
}

macro_rules! resource {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Takes an absolute URI; host case and a default port make no difference afterwards.
            ///
            /// # Errors
            /// [`InvalidResource`] says what is wrong with it.
            pub fn new(uri: &Uri) -> Result<Self, InvalidResource> {
                canonical(uri).map(Self)
            }

            /// Takes the text of an absolute URI.
            ///
            /// # Errors
            /// [`InvalidResource`]; text that is no URI at all has no [`InvalidResource::Authority`].
            pub fn parse(text: &str) -> Result<Self, InvalidResource> {
                let uri: Uri = text.parse().map_err(|_| InvalidResource::Authority)?;
                Self::new(&uri)
            }

            /// The URI as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Host, and port if not 443.
            pub fn authority(&self) -> &str {
                authority(&self.0)
            }

            /// The URI for a request.
            pub fn uri(&self) -> Uri {
                self.0.parse().expect("it was a URI when this was made")
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

resource! {
    /// Where subscriptions are made; configured, not a secret.
    PushServiceUri
}
resource! {
    /// Where the messages of one subscription are read; private to the user agent.
    SubscriptionUri
}
resource! {
    /// Where the messages of several subscriptions are read; private to the user agent.
    SetUri
}
resource! {
    /// Where an application server posts messages; what gets shared.
    PushUri
}
resource! {
    /// One message: read once, deleted to acknowledge it.
    PushMessageUri
}

fn canonical(uri: &Uri) -> Result<String, InvalidResource> {
    if uri.scheme() != Some(&http::uri::Scheme::HTTPS) {
        return Err(InvalidResource::NotHttps);
    }
    let authority = uri.authority().ok_or(InvalidResource::Authority)?;
    if authority.host().is_empty() || authority.as_str().contains('@') {
        return Err(InvalidResource::Authority);
    }
    let announced_port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    let port = match announced_port.strip_prefix(':') {
        Some("") => None,
        // One that does not exist must not pass for the default port.
        Some(digits) => Some(digits.parse::<u16>().map_err(|_| InvalidResource::Authority)?),
        None if announced_port.is_empty() => None,
        None => return Err(InvalidResource::Authority),
    };
    let host = authority.host().to_ascii_lowercase();
    let port = port.filter(|port| *port != 443).map_or(String::new(), |port| format!(":{port}"));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let text = format!("https://{host}{port}{path}");
    if text.len() > URI_BYTES_MAX { Err(InvalidResource::TooLong) } else { Ok(text) }
}

fn authority(text: &str) -> &str {
    let rest = &text["https://".len()..];
    &rest[..rest.find('/').unwrap_or(rest.len())]
}

impl fmt::Display for InvalidResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHttps => f.write_str("only https URIs are used"),
            Self::Authority => f.write_str("the URI has no valid host and port, or credentials before them"),
            Self::TooLong => write!(f, "the URI is longer than {URI_BYTES_MAX} octets"),
            Self::OtherOrigin => f.write_str("the URI is on another origin than the push service"),
        }
    }
}

impl std::error::Error for InvalidResource {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_resources_compare_equal() {
        let plain = PushUri::parse("https://push.example/p/1").expect("valid");
        for same in ["https://PUSH.example/p/1", "https://push.example:443/p/1"] {
            assert_eq!(PushUri::parse(same).as_ref(), Ok(&plain));
        }
        let other_port = PushUri::parse("https://push.example:8443/p/1").expect("valid");
        assert!(other_port != plain && other_port.authority() == "push.example:8443");
    }

    #[test]
    fn a_port_that_does_not_exist_is_not_the_default_one() {
        for port in ["99999", "x", "-1", "8443x"] {
            assert!(PushUri::parse(&format!("https://push.example:{port}/p")).is_err(), "{port}");
        }
        for host in ["[::1]1", "[::1]x", "[::1]&:1"] {
            assert!(PushUri::parse(&format!("https://{host}/p")).is_err(), "{host}");
        }
        assert_eq!(PushUri::parse("https://push.example:/p"), PushUri::parse("https://push.example/p"));
        assert_eq!(
            PushUri::parse("https://[::1]:65535/p").map(|uri| uri.authority().to_owned()).as_deref(),
            Ok("[::1]:65535")
        );
    }

    /// A-UA-38: a resource that is not https is none.
    #[test]
    fn only_https_is_accepted() {
        assert_eq!(PushUri::parse("http://push.example/p"), Err(InvalidResource::NotHttps));
        assert_eq!(PushUri::parse("/p"), Err(InvalidResource::NotHttps));
        assert_eq!(PushUri::parse("https://user@push.example/p"), Err(InvalidResource::Authority));
    }

    #[test]
    fn the_longest_uri_fits_and_one_more_octet_does_not() {
        let longest = format!("https://push.example/{}", "x".repeat(URI_BYTES_MAX - 21));
        assert!(PushUri::parse(&longest).is_ok());
        assert_eq!(PushUri::parse(&format!("{longest}x")), Err(InvalidResource::TooLong));
    }

    #[test]
    fn capabilities_are_not_printed() {
        let uri = PushUri::parse("https://push.example/secret").expect("valid");
        assert_eq!(format!("{uri:?}"), "PushUri(..)");
    }
}
