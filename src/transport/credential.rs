//! What lets a gateway in at a service: a bearer token in a file of its owner (RFC 8030 §8.3, RFC 6750 §2.1).

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use http::HeaderValue;
use ring::hmac;
use zeroize::Zeroizing;

use crate::limits::CREDENTIAL_BYTES_MAX;

const OTHERS: u32 = 0o077;

/// A bearer token.
pub struct Credential(Zeroizing<String>);

/// Why a credential cannot be used.
#[derive(Debug)]
pub enum CredentialError {
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// Others may read it, by this mode.
    Exposed(PathBuf, u32),
    /// Empty, too long, or not one word of printable ASCII.
    Malformed(PathBuf),
}

impl Credential {
    /// Reads the token; white space around it does not belong to it.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub fn read(path: &Path) -> Result<Self, CredentialError> {
        let unreadable = |error| CredentialError::Unreadable(path.to_owned(), error);
        let file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
        if mode & OTHERS != 0 {
            return Err(CredentialError::Exposed(path.to_owned(), mode));
        }
        let mut text = Zeroizing::new(String::new());
        file.take(CREDENTIAL_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
        let token = text.trim_ascii();
        let is_token = !token.is_empty() && token.bytes().all(|octet| octet.is_ascii_graphic());
        if !is_token || text.len() > CREDENTIAL_BYTES_MAX {
            return Err(CredentialError::Malformed(path.to_owned()));
        }
        Ok(Self(Zeroizing::new(token.to_owned())))
    }

    /// The value of an `Authorization` field; never indexed by header compression, never printed.
    pub fn field(&self) -> HeaderValue {
        let text = Zeroizing::new(format!("Bearer {}", self.0.as_str()));
        let mut value = HeaderValue::from_str(&text).expect("printable ASCII is a field value");
        value.set_sensitive(true);
        value
    }

    /// Whether an `Authorization` field presents the token. How long that takes says nothing of how much of it is right.
    pub fn is(&self, presented: &HeaderValue) -> bool {
        let Some((scheme, token)) = presented.to_str().ok().and_then(|text| text.split_once(' ')) else { return false };
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"");
        let tag = hmac::sign(&key, self.0.as_bytes());
        scheme.eq_ignore_ascii_case("Bearer") && hmac::verify(&key, token.trim_ascii().as_bytes(), tag.as_ref()).is_ok()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => {
                write!(f, "{} cannot be read: {error}; let this user read it", path.display())
            }
            Self::Exposed(path, mode) => {
                write!(f, "{0} has mode {mode:04o} and holds a secret; run: chmod 600 {0}", path.display())
            }
            Self::Malformed(path) => write!(
                f,
                "{} holds no bearer token: one word of printable ASCII, at most {CREDENTIAL_BYTES_MAX} octets",
                path.display()
            ),
        }
    }
}

impl std::error::Error for CredentialError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A-PS-89: the whole token with its scheme is right, and nothing else.
    #[test]
    fn a_ps_89_a_presented_token_is_compared_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        std::fs::write(&path, "s3cret").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
        let credential = Credential::read(&path).expect("a token");
        for right in ["Bearer s3cret", "bearer s3cret", "Bearer  s3cret"] {
            assert!(credential.is(&HeaderValue::from_static(right)), "{right}");
        }
        for wrong in ["s3cret", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret2", "Bearer S3cret", "Basic s3cret"]
        {
            assert!(!credential.is(&HeaderValue::from_static(wrong)), "{wrong}");
        }
    }

    /// A-UA-42, A-UA-43: a token is read from a file that is its owner's alone, and is never printed.
    #[test]
    fn only_a_token_in_a_file_of_its_owner_is_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let read = |content: &[u8], mode| {
            std::fs::write(&path, content).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
            Credential::read(&path)
        };
        for mode in [0o600, 0o400] {
            let credential = read(b"s3cret-token\n", mode).expect("a token");
            assert!(credential.field() == "Bearer s3cret-token" && credential.field().is_sensitive());
            assert_eq!(format!("{credential:?} {:?}", credential.field()), "Credential(..) Sensitive");
        }
        for mode in [0o640, 0o604, 0o660] {
            let refused = read(b"s3cret-token", mode).expect_err("others may read it").to_string();
            assert!(refused.contains(&format!("{mode:04o}")) && refused.contains("chmod 600"), "{refused}");
        }
        let longest = vec![b'x'; CREDENTIAL_BYTES_MAX];
        assert!(read(&longest, 0o600).is_ok());
        for wrong in [&b""[..], b" \n", b"two words", b"caf\xc3\xa9", &[longest, vec![b'x']].concat()] {
            assert!(matches!(read(wrong, 0o600), Err(CredentialError::Malformed(_))), "{wrong:?}");
        }
        std::fs::remove_file(&path).expect("it is ours");
        assert!(matches!(Credential::read(&path), Err(CredentialError::Unreadable(..))));
    }
}
