//! Whom a connection trusts: certification authorities, and the certificates that they have revoked.
//!
//! Everything is read once, whole and bounded; what is not right is said before anything connects.
//!
//! A revocation list takes trust away and never grants any: a certificate whose issuer has no list in the file is judged
//! by the rest alone, and a list counts beyond the time of its next update, since a board that nobody reaches must not
//! lose its push service by waiting. Revocation that the peer tells of itself (stapled OCSP) is not evaluated.
//!
//! Source: RFC 9325 §7.5 (a strategy against revoked certificates), RFC 5280 §5 (lists).

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use super::properties::Trust;
use crate::limits::{CA_FILE_BYTES_MAX, CRL_FILE_BYTES_MAX};

/// Why a peer cannot be verified at all.
#[derive(Debug)]
pub enum TrustError {
    /// The file of authorities is not right.
    Authorities(PathBuf, Flaw),
    /// The file of revocation lists is not right.
    Revocations(PathBuf, Flaw),
    /// The operating system has no certification authorities.
    NoSystemRoots,
}

/// What is not right with a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The operating system refuses it.
    Unreadable(String),
    /// It has more octets than this.
    TooLarge(usize),
    /// It is no PEM, or what it holds is malformed.
    Damaged(String),
    /// It holds nothing of the kind.
    Empty,
}

/// Prepares the verification of a peer.
///
/// # Errors
/// [`TrustError`]; with it nothing can be verified.
pub fn verifier(
    trust: &Trust,
    revocations: Option<&Path>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, TrustError> {
    let lists = revocations.map(read_revocations).transpose()?.unwrap_or_default();
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(trust)?), provider);
    let built = builder.with_crls(lists).allow_unknown_revocation_status().build();
    built.map_err(|error| match (error, revocations) {
        (VerifierBuilderError::InvalidCrl(error), Some(path)) => {
            TrustError::Revocations(path.to_owned(), Flaw::Damaged(format!("{error:?}")))
        }
        // Roots are never empty here; a later kind of error would concern them as well.
        _ => TrustError::NoSystemRoots,
    })
}

fn roots(trust: &Trust) -> Result<RootCertStore, TrustError> {
    let mut store = RootCertStore::empty();
    match trust {
        Trust::File(path) => {
            let flawed = |flaw| TrustError::Authorities(path.clone(), flaw);
            for certificate in certificates(path)? {
                store
                    .add(certificate)
                    .map_err(|_| flawed(Flaw::Damaged("a part of it is no certificate".to_owned())))?;
            }
        }
        Trust::System => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(TrustError::NoSystemRoots);
            }
        }
    }
    Ok(store)
}

/// Reads the certificates of a PEM file, one at least.
///
/// # Errors
/// [`TrustError::Authorities`].
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    read(path, CA_FILE_BYTES_MAX).map_err(|flaw| TrustError::Authorities(path.to_owned(), flaw))
}

fn read_revocations(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TrustError> {
    read(path, CRL_FILE_BYTES_MAX).map_err(|flaw| TrustError::Revocations(path.to_owned(), flaw))
}

fn read<T: PemObject>(path: &Path, bytes_max: usize) -> Result<Vec<T>, Flaw> {
    let mut pem = Vec::new();
    let file = File::open(path).and_then(|file| file.take(bytes_max as u64 + 1).read_to_end(&mut pem));
    file.map_err(|error| Flaw::Unreadable(error.to_string()))?;
    if pem.len() > bytes_max {
        return Err(Flaw::TooLarge(bytes_max));
    }
    let damaged = |error: pem::Error| Flaw::Damaged(error.to_string());
    let items: Vec<T> = T::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(damaged)?;
    if items.is_empty() { Err(Flaw::Empty) } else { Ok(items) }
}

impl TrustError {
    /// Whether it is about revocation lists.
    pub const fn is_of_revocations(&self) -> bool {
        matches!(self, Self::Revocations(..))
    }
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, flaw, what) = match self {
            Self::Authorities(path, flaw) => (path, flaw, "certificate"),
            Self::Revocations(path, flaw) => (path, flaw, "revocation list"),
            Self::NoSystemRoots => {
                return f.write_str(
                    "the system has no certification authorities: install ca-certificates, or name a file with them",
                );
            }
        };
        write!(f, "{} ", path.display())?;
        match flaw {
            Flaw::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Flaw::TooLarge(bytes_max) => write!(f, "is larger than {bytes_max} octets"),
            Flaw::Damaged(error) => write!(f, "is damaged: {error}"),
            Flaw::Empty => write!(f, "holds no {what}"),
        }?;
        write!(f, "; it must hold {what}s in PEM")
    }
}

impl std::error::Error for TrustError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// C-59: without a trust anchor nothing can be verified.
    #[test]
    fn a_file_without_certificate_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(matches!(judged(file.path(), None), Err(TrustError::Authorities(_, Flaw::Empty))));
        let missing = judged(Path::new("/nonexistent/ca.pem"), None);
        assert!(matches!(missing, Err(TrustError::Authorities(_, Flaw::Unreadable(_)))));
    }

    /// D-9325-12: a list that cannot be used is no list, and nothing starts without it.
    #[test]
    fn d_9325_12_a_file_without_revocation_list_is_refused() {
        let authorities = file(include_bytes!("../../tests/common/certificates/rsa2048_authority.pem"));
        let refused = |revocations: &Path| match judged(authorities.path(), Some(revocations)) {
            Err(TrustError::Revocations(_, flaw)) => flaw,
            other => panic!("{other:?}"),
        };
        assert!(matches!(refused(Path::new("/nonexistent/crl.pem")), Flaw::Unreadable(_)));
        assert_eq!(refused(authorities.path()), Flaw::Empty);
        assert!(matches!(refused(file(b"-----BEGIN X509 CRL-----\n!\n").path()), Flaw::Damaged(_)));
        let empty = file(b"-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n");
        assert!(matches!(refused(empty.path()), Flaw::Damaged(_)));
        let large = file(&vec![b'\n'; CRL_FILE_BYTES_MAX + 1]);
        assert_eq!(refused(large.path()), Flaw::TooLarge(CRL_FILE_BYTES_MAX));
        assert_eq!(refused(file(&vec![b'\n'; CRL_FILE_BYTES_MAX]).path()), Flaw::Empty);
        assert!(judged(authorities.path(), None).is_ok());
    }

    fn judged(authorities: &Path, revocations: Option<&Path>) -> Result<Arc<WebPkiServerVerifier>, TrustError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        verifier(&Trust::File(authorities.to_owned()), revocations, provider)
    }

    fn file(octets: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), octets).expect("written");
        file
    }
}
