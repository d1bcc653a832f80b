//! Values of the store's tables: octets out of records and back. The layout is in the parent module.

use bytes::Bytes;
use http::HeaderValue;

use crate::webpush::headers::{Topic, Ttl, Urgency};
use crate::webpush::vapid::ApplicationServerKey;

use super::super::retention::{
    Content, Outcome, ReceiptId, ReceiptsId, Record, SetId, Since, StoredMessage, SubscriptionId,
};
use super::super::token::{TOKEN_BYTES, Token};

/// Stands for the length of a field that is not there.
const ABSENT: u16 = u16::MAX;
/// Bits of a message's time to live in seconds; the urgency stands above them.
const TTL_BITS: u32 = 32;
const URGENCY_MASK: u64 = 0xf;
const HAS_RECEIPTS: u64 = 1 << 40;
const HAS_TOPIC: u64 = 1 << 41;
const WORD_MASK: u64 = HAS_RECEIPTS | HAS_TOPIC | URGENCY_MASK << TTL_BITS | ((1 << TTL_BITS) - 1);

const _: () = assert!(crate::limits::TTL_S_MAX < 1 << TTL_BITS);

pub(super) fn subscription(
    set: SetId,
    (token, push): (Token, Token),
    was_monitored: bool,
    restricted: Option<&ApplicationServerKey>,
) -> Vec<u8> {
    let key = restricted.map(ApplicationServerKey::octets);
    let key = key.as_ref().map_or(&[][..], |key| key);
    [&set.0.to_le_bytes()[..], token.as_bytes(), push.as_bytes(), &[u8::from(was_monitored)], key].concat()
}

pub(super) fn receipt(message: Token, outcome: Outcome) -> Vec<u8> {
    [&message.as_bytes()[..], &status(outcome).to_le_bytes()].concat()
}

pub(super) fn message(message: &StoredMessage) -> Vec<u8> {
    let mut octets = Vec::with_capacity(64 + message.content.bytes());
    octets.extend_from_slice(message.token.as_bytes());
    octets.extend_from_slice(&message.since.to_word().to_le_bytes());
    let mut word = message.ttl.as_secs() | urgency_number(message.urgency) << TTL_BITS;
    word |= message.receipts.map_or(0, |_| HAS_RECEIPTS) | message.topic.as_ref().map_or(0, |_| HAS_TOPIC);
    octets.extend_from_slice(&word.to_le_bytes());
    if let Some(receipts) = message.receipts {
        octets.extend_from_slice(&receipts.0.to_le_bytes());
    }
    if let Some(topic) = &message.topic {
        put(&mut octets, Some(topic.as_str().as_bytes()));
    }
    put(&mut octets, message.content.content_type.as_ref().map(HeaderValue::as_bytes));
    put(&mut octets, message.content.content_encoding.as_ref().map(HeaderValue::as_bytes));
    octets.extend_from_slice(&message.content.body);
    octets
}

pub(super) fn read_set(id: SetId, octets: &[u8]) -> Option<Record> {
    Some(Record::Set { id, token: Token::from_bytes(octets.try_into().ok()?) })
}

pub(super) fn read_subscription(id: SubscriptionId, mut octets: &[u8]) -> Option<Record> {
    let set = SetId(take_u64(&mut octets)?);
    let (token, push) = (take_token(&mut octets)?, take_token(&mut octets)?);
    let (was_monitored, key) = match octets {
        [] => (true, octets),
        [flag @ (0 | 1), key @ ..] => (*flag == 1, key),
        _ => return None,
    };
    let restricted = match key {
        [] => None,
        key => Some(ApplicationServerKey::from_octets(key).ok()?),
    };
    Some(Record::Subscription { id, set, token, push, was_monitored, restricted })
}

pub(super) fn read_receipts(id: ReceiptsId, octets: &[u8]) -> Option<Record> {
    Some(Record::Receipts { id, token: Token::from_bytes(octets.try_into().ok()?) })
}

pub(super) fn read_receipt(id: ReceiptId, mut octets: &[u8]) -> Option<Record> {
    let message = take_token(&mut octets)?;
    let stored = u16::from_le_bytes(octets.try_into().ok()?);
    let outcome = [Outcome::Acknowledged, Outcome::GivenUp].into_iter().find(|it| status(*it) == stored)?;
    Some(Record::Receipt { id, message, outcome })
}

pub(super) fn read_message(subscription: SubscriptionId, sequence: u64, mut octets: &[u8]) -> Option<Record> {
    let token = take_token(&mut octets)?;
    let since = Since::from_word(take_u64(&mut octets)?);
    let word = Some(take_u64(&mut octets)?).filter(|word| word & !WORD_MASK == 0)?;
    let ttl = Ttl::from_secs(word & ((1 << TTL_BITS) - 1));
    let urgency = read_urgency(word >> TTL_BITS & URGENCY_MASK)?;
    let receipts = if word & HAS_RECEIPTS == 0 { None } else { Some(ReceiptsId(take_u64(&mut octets)?)) };
    let topic = if word & HAS_TOPIC == 0 { None } else { Some(take_topic(&mut octets)?) };
    let content_type = take_field(&mut octets)?;
    let content_encoding = take_field(&mut octets)?;
    let content = Content { body: Bytes::copy_from_slice(octets), content_type, content_encoding };
    Some(Record::Message(StoredMessage {
        subscription,
        sequence,
        token,
        since,
        ttl,
        urgency,
        topic,
        receipts,
        content,
    }))
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

const fn status(outcome: Outcome) -> u16 {
    match outcome {
        Outcome::Acknowledged => 204,
        Outcome::GivenUp => 410,
    }
}

fn put(octets: &mut Vec<u8>, value: Option<&[u8]>) {
    // The header list of a request is bounded far below the largest length.
    let bytes = value.map_or(ABSENT, |value| u16::try_from(value.len()).unwrap_or(ABSENT));
    octets.extend_from_slice(&bytes.to_le_bytes());
    octets.extend_from_slice(value.filter(|_| bytes != ABSENT).unwrap_or_default());
}

fn take_topic(octets: &mut &[u8]) -> Option<Topic> {
    let bytes = u16::from_le_bytes(take(octets, 2)?.try_into().ok()?);
    std::str::from_utf8(take(octets, usize::from(bytes))?).ok()?.parse().ok()
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
