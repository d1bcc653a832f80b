//! What a connection must offer (RFC 9622 §6.2, §6.3).

use std::path::PathBuf;

/// Whom to trust, and which protocol to speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityParameters {
    /// The certification authorities that may vouch for the peer.
    pub trust: Trust,
    /// A PEM file with the lists of certificates that they have revoked.
    pub revocations: Option<PathBuf>,
    /// The application protocol, negotiated by ALPN (RFC 7301); a peer that selects none of them has failed.
    pub protocols: Vec<&'static str>,
}

/// Certification authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Those of a PEM file, and no others.
    File(PathBuf),
    /// Those that the operating system trusts.
    System,
}
