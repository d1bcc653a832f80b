//! Values of the store's tables: octets out of records and back. The layout is in the parent module.

use bytes::Bytes;
use http::HeaderValue;

use crate::webpush::headers::{Ttl, Urgency};
use crate::webpush::vapid::ApplicationServerKey;

use super::super::retention::{Content, Record, SetId, Since, StoredMessage, SubscriptionId};
use super::super::token::{TOKEN_BYTES, Token};

/// Stands for the length of a field that is not there.
const ABSENT: u16 = u16::MAX;
/// Bits of a message's time to live in seconds; the urgency stands above them.
const TTL_BITS: u32 = 32;

const _: () = assert!(crate::limits::TTL_S_MAX < 1 << TTL_BITS);

pub(super) fn subscription(
    set: SetId,
    (token, push): (Token, Token),
    restricted: Option<&ApplicationServerKey>,
) -> Vec<u8> {
    let key = restricted.map(ApplicationServerKey::octets);
    let key = key.as_ref().map_or(&[][..], |key| key);
    [&set.0.to_le_bytes()[..], token.as_bytes(), push.as_bytes(), key].concat()
}

pub(super) fn message(message: &StoredMessage) -> Vec<u8> {
    let mut octets = Vec::with_capacity(64 + message.content.bytes());
    octets.extend_from_slice(message.token.as_bytes());
    octets.extend_from_slice(&message.since.to_word().to_le_bytes());
    let ttl = message.ttl.as_secs() | urgency_number(message.urgency) << TTL_BITS;
    octets.extend_from_slice(&ttl.to_le_bytes());
    put_field(&mut octets, message.content.content_type.as_ref());
    put_field(&mut octets, message.content.content_encoding.as_ref());
    octets.extend_from_slice(&message.content.body);
    octets
}

pub(super) fn read_set(id: SetId, octets: &[u8]) -> Option<Record> {
    Some(Record::Set { id, token: Token::from_bytes(octets.try_into().ok()?) })
}

pub(super) fn read_subscription(id: SubscriptionId, mut octets: &[u8]) -> Option<Record> {
    let set = SetId(take_u64(&mut octets)?);
    let (token, push) = (take_token(&mut octets)?, take_token(&mut octets)?);
    let restricted = match octets {
        [] => None,
        key => Some(ApplicationServerKey::from_octets(key).ok()?),
    };
    Some(Record::Subscription { id, set, token, push, restricted })
}

pub(super) fn read_message(subscription: SubscriptionId, sequence: u64, mut octets: &[u8]) -> Option<Record> {
    let token = take_token(&mut octets)?;
    let since = Since::from_word(take_u64(&mut octets)?);
    let ttl_and_urgency = take_u64(&mut octets)?;
    let ttl = Ttl::from_secs(ttl_and_urgency & ((1 << TTL_BITS) - 1));
    let urgency = read_urgency(ttl_and_urgency >> TTL_BITS)?;
    let content_type = take_field(&mut octets)?;
    let content_encoding = take_field(&mut octets)?;
    let content = Content { body: Bytes::copy_from_slice(octets), content_type, content_encoding };
    Some(Record::Message(StoredMessage { subscription, sequence, token, since, ttl, urgency, content }))
}

/// Zero is what a message has that says nothing.
fn urgency_number(urgency: Urgency) -> u64 {
    match urgency {
        Urgency::Normal => 0,
        Urgency::VeryLow => 1,
        Urgency::Low => 2,
        Urgency::High => 3,
    }
}

fn read_urgency(number: u64) -> Option<Urgency> {
    Urgency::ALL.into_iter().find(|urgency| urgency_number(*urgency) == number)
}

fn put_field(octets: &mut Vec<u8>, value: Option<&HeaderValue>) {
    // The header list of a request is bounded far below the largest length.
    let bytes = value.map_or(ABSENT, |value| u16::try_from(value.len()).unwrap_or(ABSENT));
    octets.extend_from_slice(&bytes.to_le_bytes());
    if let Some(value) = value.filter(|_| bytes != ABSENT) {
        octets.extend_from_slice(value.as_bytes());
    }
}

fn take_field(octets: &mut &[u8]) -> Option<Option<HeaderValue>> {
    let bytes = u16::from_le_bytes(take(octets, 2)?.try_into().ok()?);
    if bytes == ABSENT {
        return Some(None);
    }
    HeaderValue::from_bytes(take(octets, usize::from(bytes))?).ok().map(Some)
}

fn take_token(octets: &mut &[u8]) -> Option<Token> {
    take(octets, TOKEN_BYTES)?.try_into().ok().map(Token::from_bytes)
}

fn take_u64(octets: &mut &[u8]) -> Option<u64> {
    take(octets, 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn take<'a>(octets: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = octets.split_at_checked(count)?;
    *octets = rest;
    Some(taken)
}
