//! A sender that takes its message back: it knows the message's resource, and may delete it as its receiver does.

use std::sync::Arc;

use fieldgate::webpush::resource::PushMessageUri;
use fieldgate::wire::ToGateway;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::service::{PATIENCE, client_config};

/// A-GAP-15: a message that its sender deletes is never pushed, and the answer is that to an acknowledgement in status,
/// fields and content; a second time there is nothing left, for either.
#[tokio::test(flavor = "local")]
async fn a_gap_15_a_sender_withdraws_what_it_sent() {
    let rig = crate::service::Rig::start().await;
    let (mut sender, mut receiver) = (rig.client().await, rig.client().await);
    let subscribed = receiver.subscribe(None).await;
    let withdrawn = sender.message(&subscribed.push, "600", b"withdrawn").await;
    let kept = sender.message(&subscribed.push, "600", b"kept").await;
    let by_sender = sender.request("DELETE", &withdrawn, &[], b"").await;
    let (_, pushes) = receiver.monitor(&subscribed.subscription, Some("wait=0")).finish().await;
    assert_eq!(pushes.iter().map(|pushed| pushed.text()).collect::<Vec<_>>(), ["kept"]);
    let by_receiver = receiver.request("DELETE", &kept, &[], b"").await;
    let apart_from_time = |answer: &crate::service::Answer| {
        let mut fields = answer.fields.clone();
        fields.remove("date");
        (answer.status, fields, answer.body.clone())
    };
    assert_eq!(by_sender.status, 204);
    assert_eq!(apart_from_time(&by_sender), apart_from_time(&by_receiver));
    for message in [withdrawn, kept] {
        assert_eq!(sender.acknowledge(&message).await, 404);
        assert_eq!(receiver.acknowledge(&message).await, 404);
    }
}

/// A-GAP-15: one that is at the device already cannot be taken back. The gateway is done with it when the device is, and
/// the next one comes.
#[tokio::test(flavor = "local")]
async fn a_gap_15_what_is_delivered_is_withdrawn_in_vain() {
    let mut rig = crate::rig::Rig::start().await;
    let mut device = rig.attach(7).await;
    let subscription = device.tend(rig.subscription(1)).await;
    let message = device.tend(rig.send(&subscription, "too late")).await;
    let id = device.hear_push("too late").await;
    assert!(delete(&rig, &message).await.starts_with("HTTP/1.1 204 "));
    device.say(&ToGateway::Ack { message: id }).await;
    device.tend(rig.await_status(|status| status["in_flight"] == 0)).await;
    assert!(delete(&rig, &message).await.starts_with("HTTP/1.1 404 "));
    let next = device.tend(rig.send(&subscription, "next")).await;
    let id = device.hear_push("next").await;
    device.say(&ToGateway::Ack { message: id }).await;
    device.tend(rig.await_gone(&next)).await;
    let status = device.tend(rig.await_status(|_| true)).await;
    assert_eq!(status["counters"]["undeliverable"], 0, "{status}");
    assert_eq!(status["counters"]["connections"], 1);
}

/// As an application server does it that knows no more than HTTP/1.1.
async fn delete(rig: &crate::rig::Rig, message: &PushMessageUri) -> String {
    let connector = TlsConnector::from(Arc::new(client_config(&rig.ca_file(), &["http/1.1"])));
    let tcp = TcpStream::connect(message.authority()).await.expect("it listens");
    let name = ServerName::from(tcp.peer_addr().expect("an address").ip());
    let mut stream = connector.connect(name, tcp).await.expect("the certificate is good");
    let (path, authority) = (message.uri().path().to_owned(), message.authority());
    let request = format!("DELETE {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("in time").expect("an answer");
    answer
}
