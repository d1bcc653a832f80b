//! Judges the certificates of a peer: chain, name, purpose, revocation and validity as the library does, at a time that
//! a board without a clock has as well.
//!
//! Source: RFC 5280 §6; RFC 9525 §6.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

use super::certificate::latest_not_before;
use super::clock::WallClock;
use crate::time::Duration;

/// The library's verifier, and the clock that says at which time it judges.
#[derive(Debug)]
pub struct Judge {
    verifier: Arc<WebPkiServerVerifier>,
    clock: WallClock,
}

impl Judge {
    /// Judges by this clock.
    pub fn new(verifier: Arc<WebPkiServerVerifier>, clock: WallClock) -> Self {
        Self { verifier, clock }
    }
}

/// Everything but the time is the library's.
impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(end_entity).chain(intermediates).map(AsRef::as_ref);
        let at = self.clock.judged_at(latest_not_before(chain));
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at.0));
        self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::RootCertStore;

    use super::*;
    use crate::time::ClockReading;
    use crate::transport::clock::BUILT;

    const DAY_S: u64 = 86_400;
    const NAME: &str = "push.example";
    /// Two years after this was built, which a board has spent on a shelf.
    const NOW_S: u64 = BUILT.0 + 730 * DAY_S;
    const FAR_S: u64 = 4_070_908_800;

    type Validity = (u64, u64);
    const ISSUED_A_MONTH_AGO: Validity = (NOW_S - 30 * DAY_S, NOW_S + 60 * DAY_S);

    fn params(name: &str, validity: Validity) -> CertificateParams {
        let date = |secs| std::time::UNIX_EPOCH + Duration::from_secs(secs);
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        (params.not_before, params.not_after) = (date(validity.0).into(), date(validity.1).into());
        params
    }

    fn key() -> KeyPair {
        KeyPair::generate().expect("a key")
    }

    /// An authority, one below it with this validity, and a chain of that one.
    struct Chain {
        root: CertificateDer<'static>,
        chain: [CertificateDer<'static>; 2],
    }

    impl Chain {
        fn new(leaf: Validity, below: Validity) -> Self {
            let authority = |validity| {
                let mut params = params("authority.example", validity);
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params
            };
            let root = CertifiedIssuer::self_signed(authority((0, FAR_S)), key()).expect("a certificate");
            let below = CertifiedIssuer::signed_by(authority(below), key(), &root).expect("a certificate");
            let leaf = params(NAME, leaf).signed_by(&key(), &below).expect("a certificate");
            Self { root: root.der().clone(), chain: [leaf.der().clone(), below.der().clone()] }
        }

        fn of(leaf: Validity) -> Self {
            Self::new(leaf, (0, FAR_S))
        }

        fn judged(&self, root: &Self, name: &str, clock: WallClock) -> Result<(), String> {
            let mut roots = RootCertStore::empty();
            roots.add(root.root.clone()).expect("a certificate");
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
            let judge = Judge::new(verifier.expect("it has a root"), clock);
            let name = ServerName::try_from(name.to_owned()).expect("a name");
            let [leaf, below] = &self.chain;
            // What the library would have judged at does not matter.
            let at = UnixTime::since_unix_epoch(Duration::from_secs(1));
            let judged = judge.verify_server_cert(leaf, std::slice::from_ref(below), &name, &[], at);
            judged.map(drop).map_err(|error| error.to_string())
        }

        fn is_trusted(&self, clock: WallClock) -> bool {
            match self.judged(self, NAME, clock) {
                Ok(()) => true,
                Err(error) if error.contains("expired") || error.contains("not valid yet") => false,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn clock(seconds: u64, is_synchronised: bool) -> WallClock {
        WallClock::new(move || ClockReading { wall_ms: seconds * 1_000, is_synchronised })
    }

    fn knowing(stored_s: u64) -> WallClock {
        let clock = clock(12, false);
        clock.set_stored(Some(crate::time::UnixTime(stored_s)));
        clock
    }

    #[test]
    fn after_two_years_on_a_shelf_a_new_certificate_is_trusted() {
        let chain = Chain::of(ISSUED_A_MONTH_AGO);
        for seconds in [0, 12, BUILT.0, FAR_S] {
            assert!(chain.is_trusted(clock(seconds, false)), "{seconds}");
        }
        assert!(!chain.is_trusted(clock(12, true)), "a clock that is synchronised counts");
        assert!(!chain.is_trusted(clock(BUILT.0, true)), "and when this was built does not");
        assert!(chain.is_trusted(clock(NOW_S, true)));
        // An authority that is younger than what it signed.
        assert!(Chain::new((NOW_S - 90 * DAY_S, FAR_S), ISSUED_A_MONTH_AGO).is_trusted(clock(12, false)));
    }

    #[test]
    fn a_certificate_that_was_over_before_a_known_time_is_refused() {
        let over = (BUILT.0 - 90 * DAY_S, BUILT.0 - 1);
        assert!(!Chain::of(over).is_trusted(clock(12, false)), "when this was built");
        let chain = Chain::of((BUILT.0 - 30 * DAY_S, BUILT.0 + 60 * DAY_S));
        assert!(chain.is_trusted(knowing(BUILT.0 + 60 * DAY_S)));
        assert!(!chain.is_trusted(knowing(BUILT.0 + 60 * DAY_S + 1)), "the stored time");
        let below = Chain::new(ISSUED_A_MONTH_AGO, (0, NOW_S - 31 * DAY_S));
        assert!(!below.is_trusted(clock(12, false)), "when another one of the chain began");
        assert!(!chain.is_trusted(clock(BUILT.0 + 61 * DAY_S, true)), "a clock");
        assert!(!chain.is_trusted(clock(BUILT.0 - 31 * DAY_S, true)), "a clock that is early");
    }

    #[test]
    fn another_name_and_another_authority_are_refused_whatever_the_clock_says() {
        let chain = Chain::of(ISSUED_A_MONTH_AGO);
        let other = Chain::of(ISSUED_A_MONTH_AGO);
        let clocks = || {
            let seconds = [0, BUILT.0, NOW_S, FAR_S];
            let read = seconds.into_iter().flat_map(|seconds| [clock(seconds, false), clock(seconds, true)]);
            read.chain(seconds.map(knowing))
        };
        for clock in clocks() {
            assert!(chain.judged(&chain, "other.example", clock.clone()).is_err());
            assert!(chain.judged(&other, NAME, clock).is_err());
        }
        let because = |result: Result<(), String>| result.expect_err("it is refused");
        assert!(because(chain.judged(&chain, "other.example", clock(12, false))).contains("not valid for name"));
        let reason = because(chain.judged(&other, NAME, clock(12, false)));
        assert!(reason.contains("UnknownIssuer") || reason.contains("BadSignature"), "{reason}");
    }
}
