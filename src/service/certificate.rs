//! The service's certificates: a private authority that lasts as long as its gateways, and a leaf that is issued at
//! each start and again after two thirds of its life.
//!
//! Files in the state folder: `ca.pem` (what gateways and senders trust; readable), `ca.key` and `service.key`
//! (readable by their owner alone). Keys stay the same for ever, so a pin of either holds; the leaf itself is never
//! stored.
//!
//! Source: RFC 9325 §3 to §4 (TLS), RFC 6125 (names in certificates).

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, SerialNumber,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::limits::{SERVICE_CA_DAYS, SERVICE_CERTIFICATE_DAYS};
use crate::random::{Random, SystemRandom, array};
use crate::time::{Duration, UnixTime};
use crate::webpush::base64url;

use super::resumption::Sessions;

const DAY_S: u64 = 86_400;
/// 2024-01-01: a clock before it was never set, and a certificate issued by it would not be valid yet or any more.
const CLOCK_SET_S: u64 = 1_704_067_200;
/// A leaf is valid from a little before it is issued, for clocks that differ.
const BACKDATE_S: u64 = 3_600;

/// Why there is no certificate.
#[derive(Debug)]
pub enum CertificateError {
    /// The operating system refused a file.
    Io(PathBuf, io::Error),
    /// A file does not hold what it should.
    Damaged(PathBuf),
    /// A name cannot stand in a certificate.
    Name(String),
    /// The clock was never set.
    ClockUnset,
}

/// Issues certificates for the names of the service.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    leaf_key: KeyPair,
    names: Vec<String>,
    ca_file: PathBuf,
}

impl Authority {
    /// Opens the authority in `folder`, or founds it there.
    pub(super) fn open(folder: &Path, names: Vec<String>, now: UnixTime) -> Result<Self, CertificateError> {
        if now.0 < CLOCK_SET_S {
            return Err(CertificateError::ClockUnset);
        }
        CertificateParams::new(names.clone()).map_err(|_| CertificateError::Name(names.join(", ")))?;
        let (key_file, ca_file) = (folder.join("ca.key"), folder.join("ca.pem"));
        if ca_file.exists() && !key_file.exists() {
            // A new key would sign certificates that nobody trusts.
            return Err(CertificateError::Damaged(key_file));
        }
        let key = open_key(&key_file)?;
        let params = ca_params(&key, now);
        if !ca_file.exists() {
            let certificate = params.self_signed(&key).map_err(|_| CertificateError::Damaged(folder.join("ca.key")))?;
            write_new(&ca_file, certificate.pem().as_bytes(), 0o644)?;
        }
        let authority = CertificateDer::from_pem_file(&ca_file);
        let is_its = |certificate: &CertificateDer<'_>| {
            certificate.windows(key.public_key_raw().len()).any(|octets| octets == key.public_key_raw())
        };
        if !authority.as_ref().is_ok_and(is_its) {
            return Err(CertificateError::Damaged(ca_file));
        }
        let leaf_key = open_key(&folder.join("service.key"))?;
        Ok(Self { issuer: Issuer::new(params, key), leaf_key, names, ca_file })
    }

    /// Where the certificate of the authority is.
    pub(super) fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// Issues a leaf valid from `now` on.
    pub(super) fn issue(&self, now: UnixTime) -> Result<CertifiedKey, CertificateError> {
        let bad_name = || CertificateError::Name(self.names.join(", "));
        let mut params = CertificateParams::new(self.names.clone()).map_err(|_| bad_name())?;
        params.distinguished_name.push(DnType::CommonName, "fieldgate push service");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial());
        params.not_before = date(now.0.saturating_sub(BACKDATE_S)).into();
        params.not_after = date(now.0 + SERVICE_CERTIFICATE_DAYS * DAY_S).into();
        let certificate = params.signed_by(&self.leaf_key, &self.issuer).map_err(|_| bad_name())?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der()));
        let key = rustls::crypto::ring::sign::any_supported_type(&key)
            .map_err(|_| CertificateError::Damaged(self.ca_file.with_file_name("service.key")))?;
        Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
    }

    /// How long after its issue a leaf is replaced: two thirds of its life.
    pub(super) const fn renewal() -> Duration {
        Duration::from_secs(SERVICE_CERTIFICATE_DAYS * DAY_S * 2 / 3)
    }
}

/// The certificate in use, which can be replaced while connections are made.
///
/// Handshakes for names that are not the service's fail.
#[derive(Debug)]
pub(super) struct CurrentCertificate {
    key: Mutex<Arc<CertifiedKey>>,
    names: Vec<String>,
}

impl CurrentCertificate {
    pub(super) fn new(authority: &Authority, now: UnixTime) -> Result<Arc<Self>, CertificateError> {
        let key = Mutex::new(Arc::new(authority.issue(now)?));
        Ok(Arc::new(Self { key, names: authority.names.clone() }))
    }

    pub(super) fn replace(&self, key: CertifiedKey) {
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
    }
}

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Clients that connect to an address send no name.
        let is_ours =
            hello.server_name().is_none_or(|name| self.names.iter().any(|own| own.eq_ignore_ascii_case(name)));
        is_ours.then(|| Arc::clone(&self.key.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// The TLS side of the service: 1.2 and 1.3, AEAD suites with forward secrecy, no early data, one short ticket.
pub(super) fn server_config(certificate: Arc<CurrentCertificate>, sessions: Arc<Sessions>) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for both versions")
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = sessions;
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    config
}

fn ca_params(key: &KeyPair, now: UnixTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    // Part of the key's digest tells the authorities of several services apart.
    let digest = ring::digest::digest(&ring::digest::SHA256, &key.subject_public_key_info());
    let name = format!("fieldgate private CA {}", base64url(&digest.as_ref()[..6]));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(serial());
    params.not_before = date(now.0.saturating_sub(BACKDATE_S)).into();
    params.not_after = date(now.0 + SERVICE_CA_DAYS * DAY_S).into();
    params
}

/// A random serial number: 16 octets, positive.
fn serial() -> SerialNumber {
    let mut octets: [u8; 16] = array(&mut SystemRandom::default() as &mut dyn Random);
    octets[0] = octets[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&octets)
}

fn date(secs: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(secs)
}

fn open_key(path: &Path) -> Result<KeyPair, CertificateError> {
    match std::fs::read_to_string(path) {
        Ok(pem) => {
            close_to_others(path).map_err(|error| CertificateError::Io(path.to_owned(), error))?;
            KeyPair::from_pem(&pem).map_err(|_| CertificateError::Damaged(path.to_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = KeyPair::generate().expect("the operating system has randomness");
            write_new(path, key.serialize_pem().as_bytes(), 0o600)?;
            Ok(key)
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(CertificateError::Damaged(path.to_owned())),
        Err(error) => Err(CertificateError::Io(path.to_owned(), error)),
    }
}

/// Takes a key from everybody but its owner; they may have copied it, and a person should know.
fn close_to_others(path: &Path) -> io::Result<()> {
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        tracing::warn!(
            "{} had mode {mode:04o} and is closed to others now; if they read it, found a new authority",
            path.display()
        );
    }
    Ok(())
}

/// Writes a file that is whole or not there, whenever the power fails.
fn write_new(path: &Path, octets: &[u8], mode: u32) -> Result<(), CertificateError> {
    let failed = |error| CertificateError::Io(path.to_owned(), error);
    let draft = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&draft).map_err(failed)?;
    file.write_all(octets).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&draft, path).map_err(failed)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// The names a certificate is issued for: those given, the address listened on, and this machine's own.
pub(super) fn names(given: &[String], listen: IpAddr) -> Vec<String> {
    let mut names = given.to_vec();
    if !listen.is_unspecified() {
        names.push(listen.to_string());
    }
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    let mut unique = Vec::new();
    names.into_iter().for_each(|name| {
        if !unique.contains(&name) {
            unique.push(name);
        }
    });
    unique
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime as PkiTime};

    use super::*;

    const NOW: UnixTime = UnixTime(1_800_000_000);

    fn open(folder: &Path) -> Result<Authority, CertificateError> {
        Authority::open(folder, names(&["push.example".to_owned()], "192.0.2.7".parse().unwrap()), NOW)
    }

    fn is_valid(authority: &Authority, key: &CertifiedKey, name: &str, at_s: u64) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority.ca_file()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let name = ServerName::try_from(name).unwrap();
        let at = PkiTime::since_unix_epoch(Duration::from_secs(at_s));
        verifier.verify_server_cert(&key.cert[0], &[], &name, &[], at).is_ok()
    }

    #[test]
    fn an_authority_without_its_key_is_not_replaced_in_silence() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).unwrap();
        let (key, pem) = (folder.path().join("ca.key"), folder.path().join("ca.pem"));
        let kept = std::fs::read(&key).unwrap();
        std::fs::remove_file(&key).unwrap();
        assert!(matches!(open(folder.path()), Err(CertificateError::Damaged(file)) if file == key));
        assert!(!key.exists());
        std::fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert!(matches!(open(folder.path()), Err(CertificateError::Damaged(file)) if file == pem));
        std::fs::write(&key, kept).unwrap();
        assert!(open(folder.path()).is_ok());
        std::fs::write(&pem, "no certificate").unwrap();
        assert!(matches!(open(folder.path()), Err(CertificateError::Damaged(file)) if file == pem));
    }

    #[test]
    fn leaves_are_valid_for_every_name_and_ninety_days_under_the_stored_authority() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path()).unwrap();
        let before = std::fs::read(first.ca_file()).unwrap();
        let again = open(folder.path()).unwrap();
        assert_eq!(std::fs::read(again.ca_file()).unwrap(), before);

        let leaf = again.issue(NOW).unwrap();
        for name in ["push.example", "192.0.2.7", "localhost", "127.0.0.1", "::1"] {
            assert!(is_valid(&first, &leaf, name, NOW.0), "{name}");
        }
        assert!(!is_valid(&first, &leaf, "other.example", NOW.0));
        let life = SERVICE_CERTIFICATE_DAYS * DAY_S;
        assert!(is_valid(&first, &leaf, "localhost", NOW.0 + life - 1));
        assert!(!is_valid(&first, &leaf, "localhost", NOW.0 + life + 1));
        assert!(Authority::renewal().as_secs() == life / 3 * 2);
        let late = UnixTime(NOW.0 + SERVICE_CA_DAYS * DAY_S - life);
        assert!(is_valid(&first, &again.issue(late).unwrap(), "localhost", late.0 + life - 1));
    }

    #[test]
    fn keys_are_readable_by_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).unwrap();
        for (file, mode) in [("ca.key", 0o600), ("service.key", 0o600)] {
            let permissions = std::fs::metadata(folder.path().join(file)).unwrap().permissions();
            assert_eq!(permissions.mode() & 0o777, mode, "{file}");
        }
    }

    #[test]
    fn damaged_keys_bad_names_and_an_unset_clock_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let unset = Authority::open(folder.path(), vec![], UnixTime(1_000));
        assert!(matches!(unset, Err(CertificateError::ClockUnset)));
        let bad_name = Authority::open(folder.path(), vec!["b\u{fc}ro".to_owned()], NOW);
        assert!(matches!(bad_name, Err(CertificateError::Name(_))));
        std::fs::write(folder.path().join("ca.key"), "no key").unwrap();
        assert!(matches!(open(folder.path()), Err(CertificateError::Damaged(path)) if path.ends_with("ca.key")));
    }

    /// D-9325-10: with an RSA key of 1024 bits that somebody put there the service does not start; with 2048 it does.
    #[test]
    fn d_9325_10_a_weak_key_is_refused() {
        let [weak, strong] = [
            include_str!("../../tests/common/certificates/rsa1024.key"),
            include_str!("../../tests/common/certificates/rsa2048.key"),
        ];
        for file in ["ca.key", "service.key"] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(file), weak).unwrap();
            assert!(matches!(open(folder.path()), Err(CertificateError::Damaged(path)) if path.ends_with(file)));
            std::fs::write(folder.path().join(file), strong).unwrap();
            let authority = open(folder.path()).unwrap();
            assert!(is_valid(&authority, &authority.issue(NOW).unwrap(), "localhost", NOW.0));
        }
    }
}
