use http::HeaderMap;
use http::header::AUTHORIZATION;
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

use super::*;
use crate::limits::VAPID_TOKEN_BYTES_MAX;
use crate::webpush::base64url;
use crate::webpush::vapid::ApplicationServerKey;

/// RFC 8292 §2.4.
const TOKEN: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQiLCJleHAiOjE0NTM1MjM3NjgsInN1YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0.i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHzvoD1oA";
const KEY: &str = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";
/// 2016-01-23T04:36:08Z.
const EXPIRES: u64 = 1_453_523_768;
const HEADER: &str = r#"{"alg":"ES256"}"#;

fn identification(token: &str, key: &ApplicationServerKey) -> Identification {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("vapid t={token}, k={}", key.as_str()).parse().expect("a value"));
    Identification::from_headers(&headers).expect("well-formed").expect("of the scheme")
}

fn example() -> Identification {
    identification(TOKEN, &KEY.parse().expect("a key"))
}

/// A token that nobody signed.
fn unsigned(header: &str, claims: &str) -> Identification {
    let token = [header, claims, "s"].map(|part| base64url(part.as_bytes())).join(".");
    identification(&token, &KEY.parse().expect("a key"))
}

fn check(header: &str, claims: &str) -> Result<(), InvalidToken> {
    unsigned(header, claims).check(&authority("push.example.net"), UnixTime(EXPIRES - 60))
}

fn authority(text: &str) -> Authority {
    text.parse().expect(text)
}

/// D-8292-17: the example of §2.4 verifies before its end, and not after.
#[test]
fn d_8292_17_the_example_verifies_until_it_expires() {
    let example = example();
    assert_eq!(example.verify(), Ok(()));
    let at = |now| example.check(&authority("push.example.net"), UnixTime(now));
    assert_eq!(at(EXPIRES - 1), Ok(()));
    assert_eq!(at(EXPIRES), Err(InvalidToken::Expired));
    assert_eq!(at(u64::MAX), Err(InvalidToken::Expired));
}

/// D-8292-03, D-8292-13: a token may live for 24 hours from now, and not a second more.
#[test]
fn d_8292_03_a_token_lives_for_24_hours_at_most() {
    let at = |now| example().check(&authority("push.example.net"), UnixTime(now));
    assert_eq!(at(EXPIRES - VAPID_LIFE_S_MAX), Ok(()));
    assert_eq!(at(EXPIRES - VAPID_LIFE_S_MAX - 1), Err(InvalidToken::TooFarAhead));
    assert_eq!(at(0), Err(InvalidToken::TooFarAhead));
}

/// D-8292-02, D-8292-13: the audience is the origin, however its case and its default port are written.
#[test]
fn d_8292_02_the_audience_is_the_origin() {
    for (audience, place) in [
        ("\"https://push.example.net\"", "push.example.net"),
        ("\"https://push.example.net\"", "push.example.net:443"),
        ("\"HTTPS://Push.Example.net:443\"", "push.example.net"),
        ("\"https://push.example.net:8443\"", "PUSH.example.net:8443"),
        ("\"https://[2001:db8::1]:8443\"", "[2001:db8::1]:8443"),
        ("[1,\"https://other.example\",\"https://push.example.net\"]", "push.example.net"),
    ] {
        let token = unsigned(HEADER, &format!("{{\"aud\":{audience},\"exp\":{EXPIRES}}}"));
        assert_eq!(token.check(&authority(place), UnixTime(EXPIRES - 1)), Ok(()), "{audience}");
    }
    for audience in [
        "\"https://push.example.net:8443\"",
        "\"http://push.example.net\"",
        "\"https://push.example.net/\"",
        "\"https://push.example.net/push\"",
        "\"https://user@push.example.net\"",
        "\"https://push.example.net:99999\"",
        "\"https://push.example.net.\"",
        "\"push.example.net\"",
        "\"https://\"",
        "\"\"",
        "[]",
        "[\"https://other.example\",[\"https://push.example.net\"]]",
        "{\"https://push.example.net\":1}",
        "null",
        "7",
    ] {
        let claims = format!("{{\"aud\":{audience},\"exp\":{EXPIRES}}}");
        assert_eq!(check(HEADER, &claims), Err(InvalidToken::Audience), "{audience}");
    }
}

/// D-8292-01, D-8292-13, D-8292-16: only ES256; the type may be left out, and what is said of the sender does not count.
#[test]
fn d_8292_01_the_algorithm_is_es256() {
    let claims = format!("{{\"aud\":\"https://push.example.net\",\"exp\":{EXPIRES}.5,\"sub\":7}}");
    for header in [HEADER, r#"{"typ":"JWT","alg":"ES256","x":[]}"#] {
        assert_eq!(check(header, &claims), Ok(()), "{header}");
    }
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"HS256"}"#,
        r#"{"alg":"es256"}"#,
        r#"{"alg":["ES256"]}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"ES256","crit":["exp"]}"#,
    ] {
        assert_eq!(check(header, &claims), Err(InvalidToken::Algorithm), "{header}");
    }
}

#[test]
fn what_is_no_token_is_malformed() {
    let origin = r#""aud":"https://push.example.net""#;
    let time = format!("\"exp\":{EXPIRES}");
    for claims in [
        "{}",
        "",
        "[]",
        "{",
        &format!("{{{origin}}}"),
        &format!("{{{time}}}"),
        &format!("{{{origin},\"exp\":\"{EXPIRES}\"}}"),
        &format!("{{{origin},\"exp\":null}}"),
        &format!("{{{origin},\"exp\":1e999}}"),
        &"[".repeat(VAPID_TOKEN_BYTES_MAX / 2),
    ] {
        assert_eq!(check(HEADER, claims), Err(InvalidToken::Malformed), "{claims}");
    }
    assert_eq!(check("7", &format!("{{{origin},{time}}}")), Err(InvalidToken::Malformed));
    assert_eq!(check(HEADER, &format!("{{{origin},\"exp\":-1}}")), Err(InvalidToken::Expired));
    let key = KEY.parse().expect("a key");
    let [header, claims, signature] = TOKEN.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    for token in ["", ".", "..", "...", header, &format!("{header}.{claims}"), &format!("{TOKEN}.{signature}")] {
        let token = identification(token, &key);
        assert_eq!(token.check(&authority("push.example.net"), UnixTime(EXPIRES - 1)), Err(InvalidToken::Malformed));
        assert_eq!(token.verify(), Err(InvalidToken::Signature));
    }
}

/// D-8292-01, D-8292-13: the signature is r and s of 32 octets each, by the key k over what is written.
#[test]
fn d_8292_01_the_signature_has_64_octets() {
    let random = SystemRandom::new();
    let signed = TOKEN.rsplit_once('.').expect("it has parts").0;
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    let verify = |algorithm, signed_by_it: &str| {
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).expect("the same key");
        let key = ApplicationServerKey::from_octets(pair.public_key().as_ref()).expect("a point");
        let signature = pair.sign(&random, signed_by_it.as_bytes()).expect("it signs");
        identification(&format!("{signed}.{}", base64url(signature.as_ref())), &key).verify()
    };
    assert_eq!(verify(&ECDSA_P256_SHA256_FIXED_SIGNING, signed), Ok(()));
    assert_eq!(verify(&ECDSA_P256_SHA256_ASN1_SIGNING, signed), Err(InvalidToken::Signature));
    assert_eq!(verify(&ECDSA_P256_SHA256_FIXED_SIGNING, "else"), Err(InvalidToken::Signature));
    let key = KEY.parse().expect("a key");
    for wrong in [
        TOKEN.replace("i3CY", "i3CZ"),
        TOKEN.replace("eyJhdWQi", "eyJhdWQj"),
        format!("{signed}."),
        format!("{signed}.AAAA"),
    ] {
        assert_eq!(identification(&wrong, &key).verify(), Err(InvalidToken::Signature), "{wrong}");
    }
}

#[test]
fn a_digest_tells_keys_and_tokens_apart() {
    let (one, key) = (example(), KEY.parse().expect("a key"));
    assert_eq!(one.digest(), identification(TOKEN, &key).digest());
    assert_ne!(one.digest(), identification(&TOKEN[..TOKEN.len() - 1], &key).digest());
    // The example of RFC 8291 §5.
    let other = "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8";
    assert_ne!(one.digest(), identification(TOKEN, &other.parse().expect("a key")).digest());
}

proptest! {
    /// D-8292-13: whatever comes for a token is refused, and nothing panics.
    #[test]
    fn d_8292_13_nothing_but_the_token_is_one(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..5),
        flipped in 0..TOKEN.len(),
        now in any::<u64>(),
    ) {
        let key = KEY.parse().expect("a key");
        let token = parts.iter().map(|part| base64url(part)).collect::<Vec<_>>().join(".");
        let token = identification(&token, &key);
        prop_assert!(token.check(&authority("push.example.net"), UnixTime(now)).is_err());
        prop_assert!(token.verify().is_err());

        let mut octets = TOKEN.as_bytes().to_vec();
        octets[flipped] = if octets[flipped] == b'A' { b'B' } else { b'A' };
        let token = identification(std::str::from_utf8(&octets).expect("ASCII"), &key);
        prop_assert!(token.verify().is_err());
        // Its claims may be what they were, and never tell of the signature.
        prop_assert_ne!(token.check(&authority("push.example.net"), UnixTime(now)), Err(InvalidToken::Signature));
    }

    /// D-8292-13: no value of the field panics, and what is read is within its bounds.
    #[test]
    fn d_8292_13_any_field_is_read_or_refused(octets in "[vV]apid[ \t]*([tkx]?[ \t]*=?[ \t]*[\"\\\\a.,=-]{0,4}[, ]?){0,6}", now in any::<u64>()) {
        let mut headers = HeaderMap::new();
        if let Ok(value) = octets.parse() {
            headers.insert(AUTHORIZATION, value);
        }
        if let Ok(Some(read)) = Identification::from_headers(&headers) {
            prop_assert!(read.token.len() <= VAPID_TOKEN_BYTES_MAX);
            prop_assert!(read.check(&authority("a"), UnixTime(now)).is_err() && read.verify().is_err());
        }
    }
}
