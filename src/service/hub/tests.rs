//! What the machine is told of the disk, with the disk in the hands of the test.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::task::{spawn_local, yield_now};

use super::*;
use crate::limits::SERVICE_STORE_RETRY_MS;
use crate::random::SeededRandom;
use crate::service::retention::{Content, Policy, Posted, ReceiptWish, StoredMessage};
use crate::service::store::ByHand;
use crate::webpush::headers::Ttl;

fn hub() -> (Rc<Hub>, ByHand) {
    let (store, disk) = ByHand::new();
    let random = Box::new(SeededRandom::new(3));
    let retention = Retention::new(Policy::default());
    let (clock, identifier) = (Rc::new(Clock::default()), Identifier::new(vec![]));
    (Rc::new(Hub::new(retention, random, clock, store, Gate::default(), identifier, None)), disk)
}

async fn request(hub: &Rc<Hub>, disk: &mut ByHand, asked: Request, outcome: Result<(), NotStored>) -> Option<Reply> {
    let (reply, _) = tokio::join!(hub.request(asked), disk.answer(outcome));
    reply.ok()
}

async fn subscribe(hub: &Rc<Hub>, disk: &mut ByHand) -> Token {
    match request(hub, disk, Request::Subscribe { set: None, restricted: None }, Ok(())).await {
        Some(Reply::Subscribed { push, .. }) => push,
        other => panic!("{other:?}"),
    }
}

fn send(push: Token, topic: Option<&str>, receipts: ReceiptWish) -> Request {
    let topic = topic.map(|topic| topic.parse().expect("a topic"));
    let (ttl, urgency, content) = (Ttl::from_secs(600), Urgency::Normal, Content::default());
    Request::Send(Posted { push, ttl, urgency, topic, receipts, content })
}

/// A client that breaks off while its message is written changes nothing of what the machine learns.
#[tokio::test(flavor = "local")]
async fn whoever_breaks_off_leaves_nothing_undecided() {
    let (hub, mut disk) = hub();
    let push = subscribe(&hub, &mut disk).await;
    request(&hub, &mut disk, send(push, Some("t"), ReceiptWish::None), Ok(())).await.expect("accepted");
    for outcome in [Ok(()), Err(NotStored), Ok(())] {
        {
            let mut breaks_off = pin!(hub.request(send(push, Some("t"), ReceiptWish::None)));
            let is_over = poll_fn(|cx| Poll::Ready(breaks_off.as_mut().poll(cx).is_ready())).await;
            assert!(!is_over, "it waits for the disk");
        }
        assert_eq!(hub.retention.borrow().undecided_count(), 1);
        disk.answer(outcome).await;
        yield_now().await;
        assert_eq!(hub.retention.borrow().undecided_count(), 0, "{outcome:?}");
        disk.takes_writes();
    }
}

/// What was made for a message that could not be stored goes with it.
#[tokio::test(flavor = "local")]
async fn a_receipt_subscription_goes_with_the_message_it_was_made_for() {
    let (hub, mut disk) = hub();
    let push = subscribe(&hub, &mut disk).await;
    let asked = send(push, None, ReceiptWish::New);
    let (reply, records) = tokio::join!(hub.request(asked), disk.answer(Err(NotStored)));
    assert_eq!(reply, Err(NotStored));
    let made = records.iter().filter_map(|record| match record {
        Record::Receipts { token, .. } | Record::Message(StoredMessage { token, .. }) => Some(*token),
        _ => None,
    });
    assert_eq!(made.map(|token| hub.kind(token)).collect::<Vec<_>>(), [None, None]);
}

/// Receipts of what ended while the disk refused are pushed once it takes writes, also if nobody asks for one.
#[tokio::test(flavor = "local", start_paused = true)]
async fn receipts_wait_for_the_disk_and_not_for_the_next_request() {
    let (hub, mut disk) = hub();
    let push = subscribe(&hub, &mut disk).await;
    let asked = send(push, None, ReceiptWish::New);
    let Some(Reply::Accepted { message, receipts: Some(receipts), .. }) = request(&hub, &mut disk, asked, Ok(())).await
    else {
        panic!("accepted")
    };
    let (connection, _wake) = hub.connect();
    hub.monitor(receipts, MonitorId { connection, stream: 1 }, None, Urgency::VeryLow);
    spawn_local({
        let hub = Rc::clone(&hub);
        async move { hub.run_timers().await }
    });
    assert_eq!(request(&hub, &mut disk, Request::Remove { resource: message }, Err(NotStored)).await, None);
    assert_eq!(hub.poll_output(connection, Room::Any), None, "it is not stored");
    let start = tokio::time::Instant::now();
    disk.answer(Err(NotStored)).await;
    disk.answer(Ok(())).await;
    yield_now().await;
    let passed = start.elapsed().as_millis();
    assert!(passed <= 2 * u128::from(SERVICE_STORE_RETRY_MS + 1), "{passed} ms");
    assert!(matches!(hub.poll_output(connection, Room::Any), Some(Output::Receipt(it)) if it.message == message));
}
