//! Acknowledgements that the service has not heard of, over restarts and power cuts (RFC 8030 §6.2).

use super::*;
use crate::proto::device::PendingAcks;

/// A rig whose device `a` has one message in its hands.
fn holding(pending_acks: PendingAcks) -> (Rig, MessageId) {
    let mut rig = Rig::serving(&["a"]);
    rig.add_device_with("a", &[1], options(pending_acks));
    rig.push("a", "m1");
    let delivered = rig.delivered()[0];
    (rig, delivered)
}

fn options(pending_acks: PendingAcks) -> Options {
    Options { pending_acks, ..Options::default() }
}

fn written(rig: &Rig) -> usize {
    rig.flash.keys().filter(|key| key[0] == 8).count()
}

fn done(rig: &mut Rig) {
    let connection = rig.on;
    rig.feed(Input::Acknowledged { connection, message: message("m1"), outcome: Deletion::Done });
    rig.persist(true);
}

/// What a process that starts now finds, connected and with its device.
fn again(rig: &Rig, pending_acks: PendingAcks) -> Rig {
    let mut again = Rig::new();
    for (key, value) in rig.flash.iter().rev() {
        again.feed(Input::Restored(Record::decode(key, value).expect("readable")));
    }
    again.flash = rig.flash.clone();
    again.add_device_with("a", &[1], options(pending_acks));
    again.feed(Input::Started);
    again.connect();
    again.feed(Input::DeviceUp {
        device: id("a"),
        session: 1,
        message_bytes_max: 4096,
        in_flight_max: DELIVERY_PER_DEVICE_MAX,
    });
    again
}

/// A-UA-27: with `flash` the record comes before the DELETE, also when flash refuses for a while; after a power cut in
/// between the DELETE is sent, and the message is not relayed again.
#[test]
fn a_ua_27_flash_knows_before_the_service_does() {
    let (mut rig, delivered) = holding(PendingAcks::Flash);
    rig.feed(Input::DeviceAck { device: id("a"), message: delivered });
    assert_eq!(rig.acknowledgements(), 0, "not before it is written");
    rig.persist(false);
    rig.wait(PERSIST_RETRY_MS);
    assert_eq!(rig.acknowledgements(), 0);
    rig.persist(true);
    assert_eq!((rig.take_acknowledged(), written(&rig)), (vec![message("m1")], 1));

    let mut cut = again(&rig, PendingAcks::Flash);
    assert_eq!(cut.take_acknowledged(), [message("m1")]);
    let send = cut.send_uri("a");
    assert!(cut.promise(message("m1"), Some(send)).is_none(), "no second copy");
    done(&mut cut);
    assert_eq!((cut.acknowledgements(), written(&cut)), (0, 0));

    done(&mut rig);
    assert_eq!(written(&rig), 0);
}

/// A-UA-27: with `auto` a service that answers costs no write at all; an answer that does not come for two seconds does,
/// and for longer where answers take long.
#[test]
fn a_ua_27_a_healthy_uplink_costs_no_write() {
    let (mut rig, delivered) = holding(PendingAcks::Auto);
    rig.feed(Input::DeviceAck { device: id("a"), message: delivered });
    assert_eq!(rig.take_acknowledged(), [message("m1")]);
    rig.wait(ACK_UNANSWERED_MS_MIN - 1);
    done(&mut rig);
    assert!(rig.stored.iter().all(|record| !matches!(record, Record::PendingAck(_))));

    // The answer took two seconds, so eight are patience enough.
    rig.push("a", "m2");
    let delivered = rig.delivered()[0];
    rig.feed(Input::DeviceAck { device: id("a"), message: delivered });
    rig.wait(4 * (ACK_UNANSWERED_MS_MIN - 1) - 1);
    rig.persist(true);
    assert_eq!(written(&rig), 0);
    rig.wait(1);
    rig.persist(true);
    assert_eq!(written(&rig), 1);
    let mut cut = again(&rig, PendingAcks::Auto);
    assert_eq!(cut.take_acknowledged(), [message("m2")]);
}

/// A-UA-27: what is not answered when the process ends is written then, as is a late device ack of a message that was given
/// up.
#[test]
fn a_ua_27_the_end_of_the_process_writes_what_is_owed() {
    let (mut rig, delivered) = holding(PendingAcks::Auto);
    rig.wait(HOLD_MS);
    rig.feed(Input::DeviceAck { device: id("a"), message: delivered });
    rig.feed(Input::Stopping);
    assert!(rig.gateway.is_persisting());
    rig.persist(true);
    assert!(!rig.gateway.is_persisting());
    let mut cut = again(&rig, PendingAcks::Auto);
    assert_eq!(cut.take_acknowledged(), [message("m1")]);
}

/// A-UA-27: `auto` and a power cut before anything is written: the message comes again under the same id, which its device
/// acks again.
#[test]
fn a_ua_27_after_a_cut_the_same_message_has_the_same_id() {
    let (mut rig, delivered) = holding(PendingAcks::Auto);
    rig.feed(Input::DeviceAck { device: id("a"), message: delivered });
    let mut cut = again(&rig, PendingAcks::Auto);
    assert_eq!(cut.acknowledgements(), 0);
    cut.push("a", "m1");
    assert_eq!(cut.delivered(), [delivered]);
    cut.feed(Input::DeviceAck { device: id("a"), message: delivered });
    assert_eq!(cut.take_acknowledged(), [message("m1")]);
}

/// Nothing stays on flash of a subscription that is gone, nor of what was answered while it was being written.
#[test]
fn no_record_outlives_its_reason() {
    let (mut rig, delivered) = holding(PendingAcks::Auto);
    rig.feed(Input::DeviceAck { device: id("a"), message: delivered });
    rig.wait(ACK_UNANSWERED_MS_MIN);
    let connection = rig.on;
    rig.feed(Input::Acknowledged { connection, message: message("m1"), outcome: Deletion::Done });
    rig.persist(true);
    rig.persist(true);
    assert_eq!(written(&rig), 0);

    let (mut rig, delivered) = holding(PendingAcks::Flash);
    rig.feed(Input::DeviceAck { device: id("a"), message: delivered });
    rig.persist(true);
    let before = rig.flash.clone();
    rig.feed(Input::MonitorEnded { connection, monitor: rig.monitor, next: Next::Ended });
    rig.persist(true);
    assert_eq!(written(&rig), 0);

    // The device is not configured any more: its subscription goes, and what it owed with it.
    let mut rig = Rig::new();
    for (key, value) in &before {
        rig.feed(Input::Restored(Record::decode(key, value).expect("readable")));
    }
    rig.flash = before;
    rig.feed(Input::Started);
    rig.persist(true);
    assert_eq!((rig.acknowledgements(), written(&rig)), (0, 0));
}

/// All acknowledgements that may be owed at once are written, and taken up again.
#[test]
fn as_many_are_written_as_may_be_owed() {
    let (mut rig, delivered) = holding(PendingAcks::Flash);
    rig.feed(Input::DeviceAck { device: id("a"), message: delivered });
    for number in 0..200 {
        rig.persist(true);
        let send = rig.send_uri("a");
        let name = format!("n{number}");
        let Some((slot, _)) = rig.promise(message(&name), Some(send)) else { break };
        rig.arrive(slot, None);
        let delivered = rig.delivered()[0];
        rig.feed(Input::DeviceAck { device: id("a"), message: delivered });
    }
    rig.persist(true);
    assert_eq!(written(&rig), DELIVERY_SLOT_COUNT + ACKED_COUNT_MAX);
    let mut cut = again(&rig, PendingAcks::Flash);
    assert_eq!(cut.take_acknowledged().len(), DELIVERY_SLOT_COUNT + ACKED_COUNT_MAX);
}
