//! The push protocol as data: URIs, header fields, requests and answers, message encryption.
//!
//! Nothing here does I/O. Gateway, service and sender share these modules, so each rule of RFC 8030, RFC 8188, RFC 8288,
//! RFC 8291 and RFC 8292 is written once.

pub mod alt_svc;
pub mod ece;
pub mod exchange;
pub mod headers;
pub mod link;
pub mod resource;
mod scan;
pub mod subscription;
pub mod vapid;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Encodes as base64url without padding (RFC 4648 §5), the form of keys and secrets in Web Push.
pub fn base64url(octets: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}

/// Decodes base64url; padding, which some libraries add, is accepted.
pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}
