//! Push services that are not to be trusted: no octet of a request, and a status that says what a person has to do.

use crate::push_service::{Identity, PushService, Script};
use crate::rig::{Rig, await_true};

const LEAF_KEY: &str = include_str!("../common/certificates/leaf.key");
const RSA_2048: &str = include_str!("../common/certificates/rsa2048_authority.pem");
const RSA_1024: &str = include_str!("../common/certificates/rsa1024_authority.pem");
const GOOD: &str = include_str!("../common/certificates/by_rsa2048.pem");
const SHA_1: &str = include_str!("../common/certificates/by_rsa2048_sha1.pem");
const MD_5: &str = include_str!("../common/certificates/by_rsa2048_md5.pem");
const BY_RSA_1024: &str = include_str!("../common/certificates/by_rsa1024.pem");

/// D-9325-11, A-UA-38: a certificate for another name, one that has expired, and one of an authority that nobody knows.
#[tokio::test(flavor = "local")]
async fn d_9325_11_no_request_goes_to_a_service_that_cannot_be_verified() {
    for (identity, reason) in [
        (Identity::OtherName, "not valid for name"),
        (Identity::Expired, "expired"),
        (Identity::Unknown, "UnknownIssuer"),
    ] {
        let service = PushService::start(Script { identity, ..Script::default() }).await;
        let mut rig = Rig::with_foreign(&service).await;
        rig.start_gateway();
        is_distrusted(&rig, &service, reason).await;
    }
}

/// D-9325-12: a certificate that its authority has revoked is not trusted any more where the list is known, however old the
/// list is; a list by somebody else counts for nothing and is said to.
#[tokio::test(flavor = "local")]
async fn d_9325_12_a_revoked_certificate_is_rejected() {
    let revoked = Script { identity: Identity::Revoked, ..Script::default() };
    let service = PushService::start(revoked).await;
    let mut rig = Rig::with_foreign(&service).await;
    rig.config.push_service.crl_file = Some(service.crl_file.clone());
    rig.start_gateway();
    is_distrusted(&rig, &service, "Revoked").await;
    rig.stop_gateway().await;

    // Without the list nothing is wrong with it: the list alone was.
    rig.config.push_service.crl_file = None;
    rig.start_gateway();
    rig.await_status(|status| status["counters"]["connections"] == 1).await;
    rig.stop_gateway().await;

    // A list of the same name and another key.
    let other = PushService::start(revoked).await;
    rig.config.push_service.crl_file = Some(other.crl_file.clone());
    rig.start_gateway();
    let status = rig.await_status(|status| status["needs_person"] == true).await;
    assert_eq!(status["trouble"], "certificate");
    assert!(status["last_error"].to_string().contains("crl_file"), "{status}");
}

/// D-9325-10: neither a chain with a key of 1024 bits nor one with a digest of the past is trusted, and the same with a
/// key of 2048 bits and SHA-256 is.
#[tokio::test(flavor = "local")]
async fn d_9325_10_weak_keys_and_digests_are_rejected() {
    for (certificate, authority, reason) in [
        (SHA_1, RSA_2048, "UnsupportedSignatureAlgorithm"),
        (MD_5, RSA_2048, "UnsupportedSignatureAlgorithm"),
        (BY_RSA_1024, RSA_1024, "BadSignature"),
    ] {
        let identity = Identity::Given([certificate, LEAF_KEY, authority]);
        let service = PushService::start(Script { identity, ..Script::default() }).await;
        let mut rig = Rig::with_foreign(&service).await;
        rig.start_gateway();
        is_distrusted(&rig, &service, reason).await;
    }
    let identity = Identity::Given([GOOD, LEAF_KEY, RSA_2048]);
    let service = PushService::start(Script { identity, ..Script::default() }).await;
    let mut rig = Rig::with_foreign(&service).await;
    rig.start_gateway();
    rig.await_status(|status| status["counters"]["connections"] == 1).await;
}

async fn is_distrusted(rig: &Rig, service: &PushService, reason: &str) {
    let status = rig.await_status(|status| status["needs_person"] == true).await;
    assert_eq!(status["trouble"], "certificate");
    let error = status["last_error"].as_str().expect("a reason").to_owned();
    assert!(error.contains(reason), "{error}");
    await_true(|| service.count("REFUSED") > 0).await;
    assert_eq!((service.count("CONNECTED"), service.count("POST")), (0, 0));
    assert_eq!(status["counters"]["connections"], 0);
}
