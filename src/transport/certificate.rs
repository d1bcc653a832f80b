//! When a certificate is valid: the one thing about it that is read here. Whether it may be trusted, and at which time,
//! is decided by the library that verifies it, from the same octets.
//!
//! ```text
//! Certificate ::= SEQUENCE { tbsCertificate SEQUENCE {
//!     [0] version OPTIONAL, serialNumber, signature, issuer, validity SEQUENCE { notBefore, notAfter }, ... }, ... }
//! ```
//!
//! Source: RFC 5280 §4.1, §4.1.2.5; X.690 §8.1 (tag, length, contents).

use crate::time::UnixTime;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The time in which a certificate is valid, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Since when.
    pub not_before: UnixTime,
    /// Until when.
    pub not_after: UnixTime,
}

impl Validity {
    /// Reads it from a certificate in DER; none when the octets are no certificate.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (SEQUENCE, certificate, _) = element(certificate)? else { return None };
        let (SEQUENCE, mut rest, _) = element(certificate)? else { return None };
        if rest.first() == Some(&VERSION) {
            rest = element(rest)?.2;
        }
        for _ in ["serialNumber", "signature", "issuer"] {
            rest = element(rest)?.2;
        }
        let (SEQUENCE, validity, _) = element(rest)? else { return None };
        let (tag, not_before, rest) = element(validity)?;
        let not_before = time(tag, not_before)?;
        let (tag, not_after, _) = element(rest)?;
        Some(Self { not_before, not_after: time(tag, not_after)? })
    }
}

/// The latest beginning of the certificates of a chain; those that are none count for nothing here.
pub fn latest_not_before<'c>(chain: impl IntoIterator<Item = &'c [u8]>) -> Option<UnixTime> {
    chain.into_iter().filter_map(|certificate| Some(Validity::of(certificate)?.not_before)).max()
}

/// The tag of the first element, its contents, and what follows it.
fn element(octets: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = octets.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // More than three octets of length are more octets than any certificate has.
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

/// `YYMMDDHHMMSSZ`, of which 50 to 99 are years of the last century, or `YYYYMMDDHHMMSSZ`.
fn time(tag: u8, text: &[u8]) -> Option<UnixTime> {
    let text = text.strip_suffix(b"Z")?;
    let (year, rest) = match (tag, text.len()) {
        (UTC_TIME, 12) => {
            let year = number(&text[..2])?;
            (if year >= 50 { 1900 + year } else { 2000 + year }, &text[2..])
        }
        (GENERALIZED_TIME, 14) => (number(&text[..4])?, &text[4..]),
        _ => return None,
    };
    let mut fields = [0; 5];
    for (field, digits) in fields.iter_mut().zip(rest.chunks(2)) {
        *field = number(digits)?;
    }
    let [month @ 1..=12, day @ 1..=31, hour @ 0..=23, minute @ 0..=59, second @ 0..=59] = fields else { return None };
    // What was before 1970 has passed as well.
    let days = days_since_1970(year, month, day).unwrap_or(0);
    Some(UnixTime(days * 86_400 + hour * 3_600 + minute * 60 + second))
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
}

/// Days of the Gregorian calendar; none before 1970. Counted from March on, a leap day is the last one of its year.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let before = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day;
    before.checked_sub(719_469)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn certificate(not_before: u64, not_after: u64) -> Vec<u8> {
        let date = |secs| std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs);
        let mut params = CertificateParams::new(vec!["push.example".to_owned()]).expect("a name");
        (params.not_before, params.not_after) = (date(not_before).into(), date(not_after).into());
        params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").der().to_vec()
    }

    #[test]
    fn validity_is_read_in_both_forms() {
        // 1970-01-01, 2000-02-29, 2049-12-31 and after it, where the longer form begins, 2100-03-01, 9999-12-31.
        let times = [0, 951_782_400, 951_868_799, 2_524_607_999, 2_524_608_000, 4_107_542_400, 253_402_300_799];
        for pair in times.windows(2) {
            let read = Validity::of(&certificate(pair[0], pair[1]));
            assert_eq!(read, Some(Validity { not_before: UnixTime(pair[0]), not_after: UnixTime(pair[1]) }));
        }
        // Made by somebody else.
        let long = include_bytes!("../../tests/common/certificates/by_rsa2048.pem");
        let der = <rustls::pki_types::CertificateDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(long);
        let validity = Validity::of(&der.expect("a certificate")).expect("readable");
        assert_eq!((validity.not_after.0 - validity.not_before.0) / 86_400, 36_524, "a hundred years");
    }

    #[test]
    fn the_latest_beginning_of_a_chain_counts() {
        let [old, young] = [certificate(1_000, 9_000), certificate(2_000, 3_000)];
        assert_eq!(latest_not_before([&old[..], b"none", &young[..]]), Some(UnixTime(2_000)));
        assert_eq!(latest_not_before([&b"none"[..]]), None);
    }

    #[test]
    fn times_that_are_none_are_not_read() {
        for text in
            [&b"20230101000000"[..], b"20231301000000Z", b"20230100000000Z", b"2023010124000Z", b"2o230101000000Z"]
        {
            assert_eq!(time(GENERALIZED_TIME, text), None, "{text:?}");
        }
        assert_eq!(time(UTC_TIME, b"20230101000000Z"), None);
        assert_eq!(time(UTC_TIME, b"691231235959Z"), Some(UnixTime(86_399)), "before 1970 counts as that day");
    }

    proptest! {
        #[test]
        fn whatever_it_is_given_it_comes_to_an_end(octets in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..400) {
            Validity::of(&octets);
            let mut damaged = certificate(1_000, 2_000);
            let at = at % damaged.len();
            damaged[at] = damaged[at].wrapping_add(1);
            Validity::of(&damaged);
            Validity::of(&damaged[..at]);
        }
    }
}
