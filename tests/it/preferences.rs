//! RFC 7240 at the push service: what is binding, what may be ignored, and what is said of it.

use crate::service::{Answer, Rig};

/// D-7240-04: no answer claims that a preference was applied, which it may say and need not; so none claims it wrongly.
#[tokio::test(flavor = "local")]
async fn d_7240_04_no_preference_is_said_to_be_applied_that_was_not() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    for prefer in ["wait=0", "wait=60", "respond-async", "return=minimal", "x=1", "respond-async, wait=0, x"] {
        let prefer = [("prefer", prefer)];
        let subscribe = client.request("POST", "/subscribe", &prefer, b"").await;
        let send = client.request("POST", &made.push, &[prefer[0], ("ttl", "60")], b"x").await;
        let read = client.request("GET", send.field("location"), &prefer, b"").await;
        let end = client.request("DELETE", send.field("location"), &prefer, b"").await;
        let unknown = client.request("GET", "/nothing", &prefer, b"").await;
        assert_eq!((subscribe.status.as_u16(), read.status.as_u16(), end.status.as_u16()), (201, 200, 204));
        assert!(send.status.is_success());
        let says = |answer: &Answer| answer.fields.contains_key("preference-applied");
        assert!(![subscribe, send, read, end, unknown].iter().any(says), "{prefer:?}");
    }
}

/// D-7240-05: a preference may be ignored in general, and one that nobody knows is. `wait=0` is binding at a monitoring
/// request: it ends by itself, with it and not without it.
#[tokio::test(flavor = "local")]
async fn d_7240_05_wait_0_is_binding_and_what_is_unknown_is_ignored() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let made = client.subscribe(None).await;
    let message = client.message(&made.push, "600", b"stored").await;
    for prefer in ["wait=0", "x=1, wait=0", "respond-async, wait=\"0\""] {
        let (status, pushes) = client.monitor(&made.subscription, Some(prefer)).finish().await;
        assert_eq!((status.as_u16(), pushes.len()), (200, 1), "{prefer}");
    }
    assert_eq!(client.acknowledge(&message).await, 204);
    assert_eq!(client.monitor(&made.subscription, Some("wait=0")).end().await, 204);
    for prefer in [None, Some("x=1"), Some("respond-async"), Some("wait=\"nonsense\"")] {
        let mut monitor = client.monitor(&made.subscription, prefer);
        // It is open: what is sent later comes on it.
        let later = client.message(&made.push, "600", b"later").await;
        assert_eq!(monitor.next().await.text(), "later", "{prefer:?}");
        assert_eq!(client.acknowledge(&later).await, 204);
    }
}
