use bytes::Bytes;
use http::HeaderValue;

use super::*;
use crate::random::SeededRandom;
use crate::service::retention::{Content, Outcome, Since};
use crate::service::token::Token;
use crate::time::UnixTime;
use crate::webpush::headers::{Ttl, Urgency};
use crate::webpush::vapid::ApplicationServerKey;

fn message(sequence: u64, body: &'static [u8]) -> Record {
    Record::Message(StoredMessage {
        subscription: SubscriptionId(2),
        sequence,
        token: Token::random(&mut SeededRandom::new(sequence)),
        since: Since::Wall(UnixTime(1_700_000_000)),
        urgency: Urgency::High,
        ttl: Ttl::from_secs(60),
        topic: None,
        receipts: None,
        content: Content {
            body: Bytes::from_static(body),
            content_type: Some(HeaderValue::from_static("")),
            content_encoding: None,
        },
    })
}

fn subscription() -> [Record; 2] {
    let token = |seed| Token::random(&mut SeededRandom::new(seed));
    let set = SetId(1);
    [
        Record::Set { id: set, token: token(100) },
        Record::Subscription {
            id: SubscriptionId(2),
            set,
            token: token(101),
            push: token(102),
            was_monitored: true,
            restricted: None,
        },
    ]
}

async fn write(store: &Store, records: impl Into<Vec<Record>>) {
    store.permit().await.unwrap().write(records.into()).await.unwrap();
}

async fn reopen(path: &Path, store: Store, closed: Closed) -> (Store, Closed, Vec<Record>) {
    drop(store);
    closed.await.unwrap();
    let mut records = Vec::new();
    let (store, closed) = Store::open(path, |record| records.push(record)).unwrap();
    (store, closed, records)
}

/// A-GAP-10: what was written comes back, in the order in which it can be restored; what ended does not.
#[tokio::test]
async fn a_gap_10_records_survive_until_they_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let (store, closed) = Store::open(&path, |_| panic!("it is empty")).unwrap();
    write(&store, [message(9, b""), message(7, &[0, 255]), message(8, b"x")]).await;
    write(&store, subscription()).await;
    write(&store, [Record::MessageEnded { subscription: SubscriptionId(2), sequence: 8 }]).await;
    let (store, closed, records) = reopen(&path, store, closed).await;
    let [set, member] = subscription();
    assert_eq!(records, [set.clone(), member, message(7, &[0, 255]), message(9, b"")]);

    write(&store, [Record::SubscriptionEnded(SubscriptionId(2))]).await;
    let (store, closed, records) = reopen(&path, store, closed).await;
    assert_eq!(records, [set]);
    write(&store, [Record::SetEnded(SetId(1))]).await;
    let (_store, _closed, records) = reopen(&path, store, closed).await;
    assert_eq!(records, []);
}

/// A-GAP-09, A-GAP-10, A-PS-40: topics, receipt subscriptions and receipts come back; a replacement is one step.
#[tokio::test]
async fn a_gap_09_receipts_survive_until_they_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let (store, closed) = Store::open(&path, |_| panic!("it is empty")).unwrap();
    let token = |seed| Token::random(&mut SeededRandom::new(seed));
    let receipts = |id| Record::Receipts { id: ReceiptsId(id), token: token(id) };
    let receipt = |id, number, outcome| {
        let id = ReceiptId::from_key((id, number));
        Record::Receipt { id, message: token(number), outcome }
    };
    let with_receipt = |sequence| {
        let Record::Message(stored) = message(sequence, b"m") else { panic!("it is one") };
        let topic = Some("upd".parse().unwrap());
        StoredMessage { topic, receipts: Some(ReceiptsId(3)), ..stored }
    };
    let told =
        [receipt(3, 10, Outcome::Acknowledged), receipt(3, 12, Outcome::GivenUp), receipt(4, 11, Outcome::GivenUp)];
    write(&store, [receipts(3), receipts(4), Record::Message(with_receipt(5))]).await;
    write(&store, told.clone()).await;
    write(&store, [Record::Replacement { message: with_receipt(6), replaced: 5 }]).await;
    let (store, closed, records) = reopen(&path, store, closed).await;
    let [first, second, third] = told;
    assert_eq!(records, [receipts(3), receipts(4), first, second.clone(), third, Record::Message(with_receipt(6))]);
    write(&store, [Record::ReceiptEnded(ReceiptId::from_key((3, 10))), Record::ReceiptsEnded(ReceiptsId(4))]).await;
    let (_store, _closed, records) = reopen(&path, store, closed).await;
    assert_eq!(records, [receipts(3), second, Record::Message(with_receipt(6))]);
}

/// What the version before wrote is read, and belongs to this one from then on.
#[tokio::test]
async fn version_1_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let [set, member] = subscription();
    let (Record::Set { token, .. }, Record::Subscription { token: own, push, .. }) = (&set, &member) else {
        panic!("they are")
    };
    transaction.open_table(META).unwrap().insert("version", 1).unwrap();
    transaction.open_table(SETS).unwrap().insert(1, &token.as_bytes()[..]).unwrap();
    let value = [&1_u64.to_le_bytes()[..], own.as_bytes(), push.as_bytes()].concat();
    transaction.open_table(SUBSCRIPTIONS).unwrap().insert(2, &value[..]).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let mut records = Vec::new();
    let (store, closed) = Store::open(&path, |record| records.push(record)).unwrap();
    assert_eq!(records, [set, member]);
    drop(store);
    closed.await.unwrap();
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_read().unwrap();
    assert_eq!(transaction.open_table(META).unwrap().get("version").unwrap().unwrap().value(), VERSION);
}

#[tokio::test]
async fn many_writes_at_once_are_all_committed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let (store, closed) = Store::open(&path, |_| {}).unwrap();
    let mut outcomes = Vec::new();
    for sequence in 0..SERVICE_STORE_QUEUE_COUNT as u64 {
        outcomes.push(store.permit().await.unwrap().write(vec![message(sequence, b"m")]));
    }
    for outcome in outcomes {
        outcome.await.unwrap();
    }
    let (_store, _closed, records) = reopen(&path, store, closed).await;
    assert_eq!(records.len(), SERVICE_STORE_QUEUE_COUNT);
}

#[tokio::test]
async fn a_store_in_use_of_another_version_or_damaged_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let (store, closed) = Store::open(&path, |_| {}).unwrap();
    assert!(matches!(Store::open(&path, |_| {}), Err(OpenError::InUse)));
    drop(store);
    closed.await.unwrap();

    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert("version", 3).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(Store::open(&path, |_| {}), Err(OpenError::Version(3))));

    std::fs::write(&path, b"not a database at all").unwrap();
    assert!(matches!(Store::open(&path, |_| {}), Err(OpenError::Damaged(_))));
}

/// What begins while the disk refuses was refused; what ends is over in memory, and must not come back with a restart.
#[tokio::test]
async fn what_ended_while_the_disk_refused_is_committed_once_it_takes_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.redb");
    let (store, closed) = Store::open(&path, |_| {}).unwrap();
    let [set, member] = subscription();
    write(&store, [set.clone(), member.clone(), message(7, b""), message(9, b"")]).await;
    drop(store);
    closed.await.unwrap();

    let (refuses, (_, queue)) = (Arc::new(AtomicBool::new(true)), mpsc::channel(1));
    let mut writer = Writer { path: folder.path().to_owned(), queue, refuses: Arc::clone(&refuses), owed: Vec::new() };
    let (done, outcome) = oneshot::channel();
    let ended = Record::MessageEnded { subscription: SubscriptionId(2), sequence: 7 };
    writer.answer(Write { records: vec![message(11, b""), ended.clone()], done }, Err(NotStored));
    assert_eq!(outcome.await, Ok(Err(NotStored)));
    assert!(writer.try_recover().is_err() && refuses.load(Ordering::Relaxed), "that is a folder");
    assert_eq!(writer.owed, [ended]);

    writer.path = path.clone();
    drop(writer.try_recover().unwrap());
    assert!(writer.owed.is_empty() && !refuses.load(Ordering::Relaxed));
    let mut records = Vec::new();
    let (_store, _closed) = Store::open(&path, |record| records.push(record)).unwrap();
    assert_eq!(records, [set, member, message(9, b"")]);
}

#[test]
fn cut_values_are_not_read() {
    let Record::Message(stored) = message(1, b"") else { panic!("it is one") };
    let octets = record::message(&stored);
    for end in 0..octets.len() {
        assert!(record::read_message(SubscriptionId(2), 1, &octets[..end]).is_none(), "{end}");
    }
    assert_eq!(record::read_message(SubscriptionId(2), 1, &octets), Some(message(1, b"")));
    assert!(record::read_set(SetId(1), &[0; 15]).is_none());
    assert!(record::read_subscription(SubscriptionId(1), &[0; 42]).is_none());
    assert!(record::read_subscription(SubscriptionId(1), &[2; 41]).is_none());
}

/// What an earlier program wrote is read, and what is not restricted is written as it was.
#[test]
fn the_octets_of_subscriptions_are_these() {
    const KEY: &str = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";
    let (set, tokens) = (SetId(0x0102), (Token::from_bytes([3; 16]), Token::from_bytes([4; 16])));
    let of_version_1 = [&[2, 1, 0, 0, 0, 0, 0, 0][..], &[3; 16], &[4; 16]].concat();
    let open = [&of_version_1[..], &[0]].concat();
    let key: ApplicationServerKey = KEY.parse().unwrap();
    let restricted = [&open[..], &key.octets()].concat();
    let id = SubscriptionId(7);
    let record = |was_monitored, restricted| {
        Some(Record::Subscription { id, set, token: tokens.0, push: tokens.1, was_monitored, restricted })
    };
    for (key, octets) in [(None, &open), (Some(key), &restricted)] {
        assert_eq!(&record::subscription(set, tokens, false, key.as_ref()), octets);
        assert_eq!(record::read_subscription(id, octets), record(false, key));
    }
    assert_eq!(record::read_subscription(id, &of_version_1), record(true, None));
    // A key that is cut, or none, opens no subscription to everybody.
    for end in (0..restricted.len()).filter(|end| ![of_version_1.len(), open.len()].contains(end)) {
        assert!(record::read_subscription(SubscriptionId(7), &restricted[..end]).is_none(), "{end}");
    }
    let off_curve = [&open[..], &[4; 65]].concat();
    assert!(record::read_subscription(SubscriptionId(7), &off_curve).is_none());
}

/// Only a slow disk is worth waiting for, never for one sender, and never long.
#[test]
fn slow_commits_of_many_are_followed_by_a_bounded_pause() {
    let ms = Duration::from_millis;
    let slow = ms(SERVICE_STORE_SLOW_MS);
    assert_eq!(gathering(slow, 1), Duration::ZERO, "alone");
    assert_eq!(gathering(slow - Duration::from_nanos(1), 64), Duration::ZERO, "fast");
    assert_eq!(gathering(slow, 2), slow / SERVICE_STORE_GATHER_PART);
    let longest = ms(SERVICE_STORE_GATHER_MS_MAX);
    assert_eq!(gathering(longest * SERVICE_STORE_GATHER_PART, 2), longest);
    assert_eq!(gathering(ms(60_000), 1_024), longest);
}
