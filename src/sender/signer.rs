//! The key by which an application server identifies itself to push services, and the field that does it.
//!
//! The key signs and does nothing else: messages are encrypted with other ones (RFC 8292 §3.2).
//!
//! Source: RFC 8292 §2, §3; RFC 5958 (form of the file).

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use http::HeaderValue;
use rcgen::KeyPair;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;
use zeroize::Zeroizing;

use crate::limits::{VAPID_CONTACT_BYTES_MAX, VAPID_KEY_FILE_BYTES_MAX, VAPID_LIFE_S};
use crate::time::UnixTime;
use crate::webpush::base64url;
use crate::webpush::vapid::ApplicationServerKey;

const HEADER: &str = r#"{"typ":"JWT","alg":"ES256"}"#;
const OTHERS: u32 = 0o077;

/// Identifies an application server.
pub struct Signer {
    pair: EcdsaKeyPair,
    key: ApplicationServerKey,
    contact: Option<Contact>,
    random: SystemRandom,
    current: Option<Current>,
}

/// A field in use: push services verify a token once if it comes again (RFC 8292 §5).
struct Current {
    authority: String,
    expires: UnixTime,
    field: HeaderValue,
}

/// Where the operator of a push service reaches that of an application server: a mailto: or https: URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact(String);

/// Not such a URI, or a long one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidContact;

/// Why a key cannot be used or made.
#[derive(Debug)]
pub enum SignerError {
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// Others may read it, by this mode.
    Exposed(PathBuf, u32),
    /// There is no private key on P-256 in it, or none in PKCS#8.
    Malformed(PathBuf),
    /// It cannot be written; one that is there stays.
    Unwritable(PathBuf, io::Error),
}

impl Signer {
    /// Makes a key and writes it to a new file, for its owner alone.
    ///
    /// # Errors
    /// [`SignerError::Unwritable`], in particular if the file is there: what was subscribed for its key would be lost.
    pub fn create(path: &Path) -> Result<(), SignerError> {
        let key = KeyPair::generate().expect("the operating system has randomness");
        let text = Zeroizing::new(key.serialize_pem());
        let failed = |error| SignerError::Unwritable(path.to_owned(), error);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| {
            // A part of a key is none.
            std::fs::remove_file(path).ok();
            failed(error)
        })
    }

    /// Reads the key in a file, in PEM.
    ///
    /// # Errors
    /// [`SignerError`].
    pub fn read(path: &Path, contact: Option<Contact>) -> Result<Self, SignerError> {
        let unreadable = |error| SignerError::Unreadable(path.to_owned(), error);
        let malformed = || SignerError::Malformed(path.to_owned());
        let file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
        if mode & OTHERS != 0 {
            return Err(SignerError::Exposed(path.to_owned(), mode));
        }
        let mut octets = Zeroizing::new(Vec::new());
        file.take(VAPID_KEY_FILE_BYTES_MAX as u64).read_to_end(&mut octets).map_err(unreadable)?;
        let document = PrivatePkcs8KeyDer::from_pem_slice(&octets).map_err(|_| malformed())?;
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.secret_pkcs8_der(), &random);
        let pair = pair.map_err(|_| malformed())?;
        let key = ApplicationServerKey::from_octets(pair.public_key().as_ref()).map_err(|_| malformed())?;
        Ok(Self { pair, key, contact, random, current: None })
    }

    /// The public key: what a subscription is restricted to.
    pub fn key(&self) -> &ApplicationServerKey {
        &self.key
    }

    /// The value of the `Authorization` field for messages to `https://` + `authority`, the same one for half of its life.
    pub fn field(&mut self, authority: &str, now: UnixTime) -> HeaderValue {
        let is_good = |current: &&Current| {
            let rest_s = current.expires.0.saturating_sub(now.0);
            current.authority == authority && (VAPID_LIFE_S / 2..=VAPID_LIFE_S).contains(&rest_s)
        };
        if let Some(current) = self.current.as_ref().filter(is_good) {
            return current.field.clone();
        }
        let expires = UnixTime(now.0.saturating_add(VAPID_LIFE_S));
        let field = self.signed(authority, expires);
        self.current = Some(Current { authority: authority.to_owned(), expires, field: field.clone() });
        field
    }

    fn signed(&self, authority: &str, expires: UnixTime) -> HeaderValue {
        let mut claims = json!({ "aud": format!("https://{authority}"), "exp": expires.0 });
        if let Some(Contact(contact)) = &self.contact {
            claims["sub"] = contact.as_str().into();
        }
        let signed = [HEADER, &claims.to_string()].map(|part| base64url(part.as_bytes())).join(".");
        let signature = self.pair.sign(&self.random, signed.as_bytes()).expect("the operating system has randomness");
        let text = format!("vapid t={signed}.{}, k={}", base64url(signature.as_ref()), self.key.as_str());
        let mut field = HeaderValue::from_str(&text).expect("base64url is a field value");
        field.set_sensitive(true);
        field
    }
}

impl FromStr for Contact {
    type Err = InvalidContact;

    fn from_str(text: &str) -> Result<Self, InvalidContact> {
        let scheme = text.split_once(':').filter(|(_, rest)| !rest.is_empty()).map(|(scheme, _)| scheme);
        let is_known =
            scheme.is_some_and(|scheme| ["mailto", "https"].iter().any(|it| it.eq_ignore_ascii_case(scheme)));
        let is_uri = text.len() <= VAPID_CONTACT_BYTES_MAX && text.bytes().all(|octet| octet.is_ascii_graphic());
        if is_known && is_uri { Ok(Self(text.to_owned())) } else { Err(InvalidContact) }
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("key", &self.key).finish_non_exhaustive()
    }
}

impl fmt::Display for InvalidContact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a mailto: or https: URI of at most {VAPID_CONTACT_BYTES_MAX} octets, such as mailto:push@example.com"
        )
    }
}

impl fmt::Display for SignerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => {
                write!(f, "{} cannot be read: {error}; make a key with: fieldgate vapid --new {0}", path.display())
            }
            Self::Exposed(path, mode) => {
                write!(f, "{0} has mode {mode:04o} and holds a secret; run: chmod 600 {0}", path.display())
            }
            Self::Malformed(path) => write!(
                f,
                "{0} holds no private key on P-256 in the form PKCS#8 in PEM; convert one in another form with: \
                 openssl pkcs8 -topk8 -nocrypt -in {0}",
                path.display()
            ),
            Self::Unwritable(path, error) => {
                write!(f, "{} cannot be made: {error}; a key that is there is kept, name another file", path.display())
            }
        }
    }
}

impl std::error::Error for InvalidContact {}
impl std::error::Error for SignerError {}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::AUTHORIZATION;

    use super::*;
    use crate::webpush::from_base64url;
    use crate::webpush::vapid::Identification;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn signer(contact: Option<&str>) -> Signer {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("vapid.pem");
        Signer::create(&path).expect("made");
        Signer::read(&path, contact.map(|contact| contact.parse().expect("a contact"))).expect("a key")
    }

    fn read(field: &HeaderValue) -> Identification {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, field.clone())]);
        Identification::from_headers(&headers).expect("well-formed").expect("of the scheme")
    }

    /// The header and the claims, as they are written.
    fn token(field: &HeaderValue) -> [String; 2] {
        let text = field.to_str().expect("text").strip_prefix("vapid t=").expect("the scheme");
        let part = |index| {
            let octets = from_base64url(text.split(['.', ',']).nth(index).expect("a part")).expect("base64url");
            String::from_utf8(octets).expect("text")
        };
        [part(0), part(1)]
    }

    /// D-8292-01, D-8292-02, D-8292-05: the field is one that a push service takes, for its origin and no other.
    #[test]
    fn d_8292_05_the_field_identifies_the_holder_of_the_key() {
        let mut signer = signer(Some("mailto:push@example.com"));
        let field = signer.field("push.example.net:8443", NOW);
        assert!(field.is_sensitive());
        let [header, claims] = token(&field);
        assert_eq!(header, r#"{"typ":"JWT","alg":"ES256"}"#);
        let expires = NOW.0 + VAPID_LIFE_S;
        assert_eq!(
            claims,
            format!(r#"{{"aud":"https://push.example.net:8443","exp":{expires},"sub":"mailto:push@example.com"}}"#)
        );
        let identification = read(&field);
        assert_eq!((identification.key(), identification.key().octets().len()), (signer.key(), 65));
        let origin = |text: &str| identification.check(&text.parse().expect("a host"), NOW);
        assert_eq!((origin("push.example.net:8443"), identification.verify()), (Ok(()), Ok(())));
        origin("push.example.net").expect_err("another origin");
    }

    /// D-8292-03, D-8292-16: a token is used again until half of its time has passed, and is never good for more than a day.
    #[test]
    fn d_8292_03_a_token_is_renewed_before_it_ends() {
        let mut signer = signer(None);
        let mut at = |authority, seconds: i64| signer.field(authority, UnixTime(NOW.0.saturating_add_signed(seconds)));
        let (first, half) = (at("a", 0), i64::try_from(VAPID_LIFE_S / 2).expect("it fits"));
        assert_eq!(at("a", half), first);
        let second = at("a", half + 1);
        assert_ne!(second, first);
        assert_ne!(at("b", half + 1), second);
        // The clock was set back: the token at hand would be good for too long.
        let third = at("b", -200_000);
        let then = UnixTime(NOW.0 - 200_000);
        assert_eq!(read(&third).check(&"b".parse().expect("a host"), then), Ok(()));
        assert!(!token(&first)[1].contains("sub"));
    }

    /// D-8292-04: a contact is a mailto: or https: URI.
    #[test]
    fn d_8292_04_a_contact_is_a_uri_of_two_schemes() {
        let longest = format!("https://{}", "a".repeat(VAPID_CONTACT_BYTES_MAX - 8));
        for good in ["mailto:push@example.com", "https://example.com/\"", "MAILTO:a", &longest] {
            assert!(good.parse::<Contact>().is_ok(), "{good}");
        }
        let longer = format!("{longest}a");
        for bad in ["", "mailto:", "push@example.com", "http://example.com", "tel:1", "mailto:a b", "mailto:ü", &longer]
        {
            assert_eq!(bad.parse::<Contact>(), Err(InvalidContact), "{bad}");
        }
        let escaped = token(&signer(Some("https://example.com/\"")).field("a", NOW))[1].clone();
        assert!(escaped.contains(r#""sub":"https://example.com/\"""#), "{escaped}");
    }

    #[test]
    fn a_key_file_is_its_owners_alone_and_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("vapid.pem");
        Signer::create(&path).expect("made");
        let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        let before = std::fs::read(&path).expect("readable");
        assert!(matches!(Signer::create(&path), Err(SignerError::Unwritable(..))));
        assert_eq!(std::fs::read(&path).expect("readable"), before);

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("it is ours");
        let refused = Signer::read(&path, None).expect_err("others may read it").to_string();
        assert!(refused.contains("0640") && refused.contains("chmod 600"), "{refused}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
        let text = String::from_utf8(before).expect("PEM");
        for wrong in ["", "x", &text[..text.len() / 2], &text.replace("PRIVATE KEY", "EC PRIVATE KEY")] {
            std::fs::write(&path, wrong).expect("written");
            assert!(matches!(Signer::read(&path, None), Err(SignerError::Malformed(_))), "{wrong}");
        }
        std::fs::remove_file(&path).expect("it is ours");
        let missing = Signer::read(&path, None).expect_err("it is gone");
        assert!(missing.to_string().contains("fieldgate vapid --new"), "{missing}");
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let signer = signer(None);
        assert_eq!(format!("{signer:?}"), format!("Signer {{ key: {:?}, .. }}", signer.key()));
    }
}
