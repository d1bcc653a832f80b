//! An application server that identifies itself (RFC 8292), well or badly, written with nothing of the crate.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _,
};

pub const HEADER: &str = r#"{"typ":"JWT","alg":"ES256"}"#;

pub struct ApplicationServer {
    random: SystemRandom,
    document: Vec<u8>,
}

impl ApplicationServer {
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        Self { random, document: document.as_ref().to_vec() }
    }

    /// The uncompressed point.
    pub fn octets(&self) -> Vec<u8> {
        self.pair(&ECDSA_P256_SHA256_FIXED_SIGNING).public_key().as_ref().to_vec()
    }

    /// The same in text.
    pub fn key(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.octets())
    }

    /// The field of a message to an origin.
    pub fn field(&self, origin: &str, expires: u64) -> String {
        self.field_of(HEADER, &claims(origin, expires))
    }

    /// The same with a header and claims of one's own.
    pub fn field_of(&self, header: &str, claims: &str) -> String {
        format!("vapid t={}, k={}", self.token(header, claims), self.key())
    }

    pub fn token(&self, header: &str, claims: &str) -> String {
        self.signed(header, claims, &ECDSA_P256_SHA256_FIXED_SIGNING)
    }

    /// A token whose signature is in DER.
    pub fn der_token(&self, header: &str, claims: &str) -> String {
        self.signed(header, claims, &ECDSA_P256_SHA256_ASN1_SIGNING)
    }

    fn signed(&self, header: &str, claims: &str, algorithm: &'static EcdsaSigningAlgorithm) -> String {
        let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let signature = self.pair(algorithm).sign(&self.random, signed.as_bytes()).expect("it signs");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn pair(&self, algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
        EcdsaKeyPair::from_pkcs8(algorithm, &self.document, &self.random).expect("it was made here")
    }
}

pub fn claims(origin: &str, expires: u64) -> String {
    format!(r#"{{"aud":"{origin}","exp":{expires},"sub":"mailto:push@example.com"}}"#)
}
