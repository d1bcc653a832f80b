use ring::hmac;

use super::*;
use crate::random::SeededRandom;
use crate::webpush::{base64url, from_base64url};

const PLAINTEXT: &[u8] = b"When I grow up, I want to be a watermelon";
const AS_PUBLIC: &str = "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8";
const AS_PRIVATE: &str = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw";
const UA_PUBLIC: &str = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
const UA_PRIVATE: &str = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94";
const SALT: &str = "DGv6ra1nlYgDCS1FRnbzlw";
const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";
const HEADER: &str = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8";
const RECORD: &str = "8pfeW0KbunFT06SuDKoJH9Ql87S1QUrdirN6GcG7sFz1y1sqLgVi1VhjVkHsUoEsbI_0LpXMuGvnzQ";

/// D-8291-14, D-8291-05, D-8291-06: the example of RFC 8291 section 5 with each value of appendix A.
#[test]
fn the_example_of_rfc_8291_reproduces_with_every_intermediate_value() {
    let receiver = example_keys();
    assert_eq!(base64url(receiver.public()), UA_PUBLIC);
    let sender = SecretKey::from_slice(&octets(AS_PRIVATE)).expect("a key");
    let sender_public = uncompressed(&sender.public_key());
    assert_eq!(base64url(&sender_public), AS_PUBLIC);

    let secret = sender.diffie_hellman(&public_key(receiver.public()).expect("a point"));
    assert_eq!(base64url(secret.raw_secret_bytes()), "kyrL1jIIOHEzg3sM2ZWRHDRB62YACZhhSlknJ672kSs");
    let prk_key = hmac(&octets(AUTH), secret.raw_secret_bytes());
    assert_eq!(base64url(&prk_key), "Snr3JMxaHVDXHWJn5wdC52WjpCtd2EIEGBykDcZW32k");

    let key = public_key(receiver.public()).expect("a point");
    let ikm = input_keying_material(&sender, &key, receiver.auth(), receiver.public(), &sender_public);
    assert_eq!(base64url(&*ikm), "S4lYMb_L0FxCeq0WhDx813KgSYqU26kOyzWUdsXYyrg");
    let prk = hmac(&octets(SALT), &*ikm);
    assert_eq!(base64url(&prk), "09_eUZGrsvxChDCGRCdkLiDXrReGOEVeSCdCcPBSJSc");
    assert_eq!(derived(&octets(SALT), &*ikm), ("oIhVW04MRdy2XN9CiKLxTg".into(), "4h_95klXJ5E_qnoN".into()));

    let salt = octets(SALT).try_into().expect("16 octets");
    let body = encode_with(receiver.public(), receiver.auth(), PLAINTEXT, 0, &sender, salt).expect("encodes");
    assert_eq!(body, [octets(HEADER), octets(RECORD)].concat());
    assert_eq!(body.len(), 144);
    assert_eq!(decode(&receiver, body).as_deref(), Ok(PLAINTEXT));
}

/// D-8188-11, D-8188-01, D-8188-07: RFC 8188 section 3.1.
#[test]
fn the_single_record_example_of_rfc_8188_opens() {
    let ikm = octets("yqdlZ-tYemfogSmv7Ws5PQ");
    let mut body = octets("I1BsxtFttlv3u_Oo94xnmwAAEAAA-NAVub2qFgBEuQKRapoZu-IxkIva3MEB1PD-ly8Thjg");
    assert_eq!(body.len(), 53);
    assert_eq!(base64url(&hmac(&body[..16], &ikm)), "zyeH5phsIsgUyd4oiSEIy35x-gIi4aM7y0hCF8mwn9g");
    assert_eq!(derived(&body[..16], &ikm), ("_wniytB-ofscZDh4tbSjHw".into(), "Bcs8gkIRKLI8GeI8".into()));
    assert_eq!(opened(&ikm, &mut body), Ok(&b"I am the walrus"[..]));
}

const TWO_RECORDS: &str =
    "uNCkWiNYzKTnBN9ji3-qWAAAABkCYTHOG8chz_gnvgOqdGYovxyjuqRyJFjEDyoF1Fvkj6hQPdPHI51OEUKEpgz3SsLWIqS_uA";

/// D-8188-12, D-8188-04: RFC 8188 section 3.2, two records with padding in the first.
#[test]
fn the_two_record_example_of_rfc_8188_opens() {
    let ikm = octets("BO3ZVPxUlnLORbVGMpbT1Q");
    let mut body = octets(TWO_RECORDS);
    assert_eq!(body.len(), 73);
    assert_eq!(base64url(&hmac(&body[..16], &ikm)), "mNHRBFh-eOCdAdmmuVtym8Hf44ov7FPsQZ3f4knYjHE");
    assert_eq!(derived(&body[..16], &ikm), ("u_eEOTjjVWUVrH82pQNwpw".into(), "VqylG1rdt-mJrNgP".into()));
    assert_eq!(opened(&ikm, &mut body), Ok(&b"I am the walrus"[..]));
}

/// D-8188-09, D-8188-06: the first record alone is a truncated message.
#[test]
fn a_body_cut_at_a_record_boundary_is_rejected() {
    let mut body = octets(TWO_RECORDS);
    body.truncate(PREFIX_BYTES + 2 + 25);
    assert_eq!(opened(&octets("BO3ZVPxUlnLORbVGMpbT1Q"), &mut body), Err(DecodeError::Padding));
}

/// D-8291-13, D-8188-05, D-8188-06: padding and its delimiter.
#[test]
fn only_the_last_record_delimiter_is_accepted() {
    let padded = "8pfeW0KbunFT06SuDKoJH9Ql87S1QUrdirN6GcG7sFz1y1sqLgVi1Vhjkq5_r-A7eW-FeKvA9HyDHb7Dql0dLqbke94";
    let empty = "p1gPSRS1XkN9hEVCx_GBFHA";
    assert_eq!(decode_example(padded).as_deref(), Ok(PLAINTEXT));
    assert_eq!(decode_example(empty).as_deref(), Ok(&b""[..]));

    let delimiter_of_more = "8pfeW0KbunFT06SuDKoJH9Ql87S1QUrdirN6GcG7sFz1y1sqLgVi1Vhg9uxmZ24fMhwfd5V_L8k_fw";
    let zeros_only = "pf-7NWLSmhYhvNOOedolP3V-WCrn8BmWgOLva5pr0_8";
    let unknown_delimiter = "8pfeW0KbunFT06SuDKoJH9Ql87S1QUrdirN6GcG7sFz1y1sqLgVi1VhiiCVqQdvCpv6tGZWiNQpQXA";
    for record in [delimiter_of_more, zeros_only, unknown_delimiter] {
        assert_eq!(decode_example(record), Err(DecodeError::Padding));
    }
}

/// D-8291-12: a message of two records is refused, though the general codec reads it.
#[test]
fn several_records_are_refused_for_push() {
    let mut body = octets(HEADER);
    body[16..20].copy_from_slice(&50u32.to_be_bytes());
    body.extend(octets(
        "8pfeW0KbunFT06SuDKoJH9Ql87S1QUrdirN6GcG7sFz1voXztFAW7tQRgVU-6zTXR4N__vdeTtIqNp3_w5WYe78IqEii6jVPfN0a",
    ));
    assert_eq!(body.len(), 161);
    assert_eq!(decode(&example_keys(), body), Err(DecodeError::SeveralRecords));
}

/// D-8291-16: a sender's key is validated before any shared secret is computed.
#[test]
fn a_sender_key_off_the_curve_is_rejected() {
    let good = [octets(HEADER), octets(RECORD)].concat();
    let mut off_curve = good.clone();
    off_curve[HEADER_BYTES - 1] ^= 1;
    let mut origin = good.clone();
    origin[PREFIX_BYTES + 1..HEADER_BYTES].fill(0);
    let mut beyond_field = good.clone();
    beyond_field[PREFIX_BYTES + 1..PREFIX_BYTES + 33].fill(0xff);
    for body in [off_curve, origin, beyond_field] {
        assert_eq!(decode(&example_keys(), body), Err(DecodeError::SenderKey));
    }
    let mut compressed = good[..SALT_BYTES + 4].to_vec();
    compressed.push(33);
    compressed.push(2);
    compressed.extend_from_slice(&good[PREFIX_BYTES + 1..PREFIX_BYTES + 33]);
    compressed.extend(octets(RECORD));
    assert_eq!(decode(&example_keys(), compressed), Err(DecodeError::SenderKey));
}

/// A-UA-40: altered, cut, or for another secret: no plaintext.
#[test]
fn messages_that_fail_authentication_give_nothing() {
    let good = [octets(HEADER), octets(RECORD)].concat();
    let mut flipped = good.clone();
    *flipped.last_mut().expect("not empty") ^= 1;
    let cut = good[..good.len() - 1].to_vec();
    for body in [flipped, cut] {
        assert_eq!(decode(&example_keys(), body), Err(DecodeError::Authentication));
    }
    let private: [u8; 32] = octets(UA_PRIVATE).try_into().expect("32 octets");
    let other = Keys::from_stored(&private, &[0; 16]).expect("a key");
    assert_eq!(decode(&other, good), Err(DecodeError::Authentication));
}

/// D-8188-02: cut anywhere in its header, a body is an error and nothing is read beyond it.
#[test]
fn a_cut_header_is_an_error() {
    let good = [octets(HEADER), octets(RECORD)].concat();
    for end in 0..=HEADER_BYTES {
        assert_eq!(decode(&example_keys(), good[..end].to_vec()), Err(DecodeError::Length), "cut at {end}");
    }
}

/// D-8188-03: a record size below 18 is rejected before any cryptography.
#[test]
fn small_record_sizes_are_rejected() {
    for size in [0u32, 17] {
        let mut body = [octets(HEADER), octets(RECORD)].concat();
        body[16..20].copy_from_slice(&size.to_be_bytes());
        assert_eq!(decode(&example_keys(), body), Err(DecodeError::RecordSize));
    }
}

/// D-8291-07, D-8291-08, D-8291-09, D-8291-10: one record, whole header, at most 4096 octets.
#[test]
fn encoded_messages_have_one_record_and_fit() {
    let mut random = SeededRandom::new(1);
    let keys = Keys::generate(&mut random);
    for bytes in [0, 1, 41, 1_000, PLAINTEXT_BYTES_MAX] {
        let plaintext = vec![7; bytes];
        let body = encode(keys.public(), keys.auth(), &plaintext, 0, &mut random).expect("encodes");
        let record_size = u32::from_be_bytes(body[16..20].try_into().expect("4 octets")) as usize;
        assert!(record_size > bytes + 1 + TAG_BYTES);
        assert_eq!((body[20], body[21]), (65, 4));
        assert_eq!(body.len(), HEADER_BYTES + bytes + 1 + TAG_BYTES);
        assert!(body.len() <= PUSH_BODY_BYTES_MAX);
        assert_eq!(decode(&keys, body), Ok(plaintext));
    }
    let too_large = vec![7; PLAINTEXT_BYTES_MAX + 1];
    assert_eq!(encode(keys.public(), keys.auth(), &too_large, 0, &mut random), Err(EncodeError::TooLarge));
    assert_eq!(decode(&keys, vec![0; PUSH_BODY_BYTES_MAX + 1]), Err(DecodeError::Length));
}

/// D-8291-18: padding makes lengths equal and is stripped.
#[test]
fn padding_is_stripped() {
    let mut random = SeededRandom::new(2);
    let keys = Keys::generate(&mut random);
    let short = encode(keys.public(), keys.auth(), b"a", 9, &mut random).expect("encodes");
    let long = encode(keys.public(), keys.auth(), b"0123456789", 0, &mut random).expect("encodes");
    assert_eq!(short.len(), long.len());
    assert_eq!(decode(&keys, short).as_deref(), Ok(&b"a"[..]));
}

/// D-8291-18, A-ALL-14: all plaintexts of one class get the same length, and none gets too long.
#[test]
fn d_8291_18_classes_make_lengths_equal() {
    for bytes in 0..=512 {
        assert_eq!(bytes + padding(bytes, 512), 512);
    }
    assert_eq!((padding(513, 512), padding(3_600, 512)), (511, PLAINTEXT_BYTES_MAX - 3_600));
    assert_eq!((padding(PLAINTEXT_BYTES_MAX, 512), padding(PLAINTEXT_BYTES_MAX + 1, 512)), (0, 0));
    assert_eq!(
        (padding(7, 0), padding(7, 1), padding(0, 0), padding(7, usize::MAX)),
        (0, 0, 0, PLAINTEXT_BYTES_MAX - 7)
    );
}

/// D-8188-10, D-8291-03: each message has its own salt and sender key.
#[test]
fn salts_and_sender_keys_never_repeat() {
    let mut random = SeededRandom::new(3);
    let keys = Keys::generate(&mut random);
    let mut headers = std::collections::HashSet::new();
    for _ in 0..200 {
        let body = encode(keys.public(), keys.auth(), b"x", 0, &mut random).expect("encodes");
        assert!(
            headers.insert(body[..SALT_BYTES].to_vec()) && headers.insert(body[PREFIX_BYTES..HEADER_BYTES].to_vec())
        );
    }
}

/// D-8291-16: the sender refuses keys that are no points.
#[test]
fn the_sender_refuses_invalid_receiver_keys() {
    let mut random = SeededRandom::new(4);
    let keys = Keys::generate(&mut random);
    let mut off_curve = *keys.public();
    off_curve[64] ^= 1;
    for receiver in [&off_curve[..], &keys.public()[..64], &[]] {
        assert_eq!(encode(receiver, keys.auth(), b"x", 0, &mut random), Err(EncodeError::ReceiverKey));
    }
    assert_eq!(encode(keys.public(), &[0; 15], b"x", 0, &mut random), Err(EncodeError::AuthSecret));
}

/// D-8291-01, D-8291-04: keys differ from subscription to subscription and survive storing.
#[test]
fn keys_are_distinct_and_survive_storing() {
    let mut random = SeededRandom::new(5);
    let (one, other) = (Keys::generate(&mut random), Keys::generate(&mut random));
    assert!(one.public() != other.public() && one.auth() != other.auth());
    let restored = Keys::from_stored(&one.private(), one.auth()).expect("a key");
    assert_eq!(restored.public(), one.public());
    assert_eq!(Keys::from_stored(&[0; 32], one.auth()).err(), Some(InvalidKey));
    assert_eq!(format!("{one:?}"), "Keys(..)");
}

fn example_keys() -> Keys {
    let private: [u8; 32] = octets(UA_PRIVATE).try_into().expect("32 octets");
    let auth: [u8; 16] = octets(AUTH).try_into().expect("16 octets");
    Keys::from_stored(&private, &auth).expect("the example's key")
}

fn decode_example(record: &str) -> Result<Vec<u8>, DecodeError> {
    decode(&example_keys(), [octets(HEADER), octets(record)].concat())
}

fn opened<'a>(ikm: &[u8], body: &'a mut [u8]) -> Result<&'a [u8], DecodeError> {
    let bytes = open(ikm, body)?;
    Ok(&body[..bytes])
}

fn derived(salt: &[u8], ikm: &[u8]) -> (String, String) {
    let (mut key, mut nonce) = ([0; 16], [0; 12]);
    expand(salt, ikm, &[b"Content-Encoding: aes128gcm\0"], &mut key);
    expand(salt, ikm, &[b"Content-Encoding: nonce\0"], &mut nonce);
    (base64url(&key), base64url(&nonce))
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}

fn octets(text: &str) -> Vec<u8> {
    from_base64url(text).expect("base64url")
}
