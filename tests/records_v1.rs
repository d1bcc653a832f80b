//! Golden bytes of the facts in the gateway's state: every kind in every version of its value that `tests/store_v1.rs` does
//! not have. Made by a program that was written from the page of `proto::record` and shares no code with this one.
//!
//! Never edited: what is written differently is another version, and goes behind the ones that are here.
#![cfg(feature = "gateway")]

use std::rc::Rc;

use fieldgate::proto::device::{Isolation, LinkOptions, Options, PendingAcks, Undeliverable};
use fieldgate::proto::record::{DeviceRecord, PendingAck, Record, Unreadable};
use fieldgate::proto::subscription::Stored;
use fieldgate::time::{BootId, UnixTime};
use fieldgate::webpush::ece::Keys;
use fieldgate::webpush::exchange::{Dialect, Granted};
use fieldgate::webpush::resource::{PushMessageUri, PushUri, SetUri, SubscriptionUri};
use fieldgate::wire::{ChannelId, DeviceId, MessageId};

#[rustfmt::skip]
const GOLDEN: [(&str, &str); 14] = [
    (
        "0101026d657465722d37",
        "02001668747470733a2f2f707573682e6578616d706c652f731668747470733a2f2f707573682e6578616d706c652f700116\
         68747470733a2f2f707573682e6578616d706c652f7411111111111111111111111111111111111111111111111111111111\
         1111111122222222222222222222222222222222000d66697273742e6578616d706c65",
    ),
    (
        "0101026d657465722d37",
        "03001668747470733a2f2f707573682e6578616d706c652f731668747470733a2f2f707573682e6578616d706c652f700011\
         1111111111111111111111111111111111111111111111111111111111111122222222222222222222222222222222010057\
         42413148787a79693152554d316235776a78736e376e477841737a77327536316d31363469334d72414978484636594b3568\
         3453445969632d645275555f524350436641356171396f6a53776b355932456d436c425073",
    ),
    (
        "0101026d657465722d37",
        "03001668747470733a2f2f707573682e6578616d706c652f731668747470733a2f2f707573682e6578616d706c652f700116\
         68747470733a2f2f707573682e6578616d706c652f7411111111111111111111111111111111111111111111111111111111\
         111111112222222222222222222222222222222200010d66697273742e6578616d706c655742413148787a79693152554d31\
         6235776a78736e376e477841737a77327536316d31363469334d72414978484636594b35683453445969632d645275555f52\
         4350436641356171396f6a53776b355932456d436c425073",
    ),
    (
        "02707573682e6578616d706c653a38343433",
        "011668747470733a2f2f707573682e6578616d706c652f74",
    ),
    (
        "046d657465722d37",
        "02076d657465722d371d73657269616c3a2f6465762f747479555342303f626175643d393630300201ac0280020106736563\
         6f6e6402015742413148787a79693152554d316235776a78736e376e477841737a77327536316d31363469334d7241497848\
         4636594b35683453445969632d645275555f524350436641356171396f6a53776b355932456d436c4250730101d80401",
    ),
    (
        "046d657465722d37",
        "03076d657465722d371d73657269616c3a2f6465762f747479555342303f626175643d393630300201ac0280020106736563\
         6f6e6402015742413148787a79693152554d316235776a78736e376e477841737a77327536316d31363469334d7241497848\
         4636594b35683453445969632d645275555f524350436641356171396f6a53776b355932456d436c4250730101d804010001\
         03",
    ),
    (
        "05d2e1d22e2d2bdac801026d657465722d37",
        "01001668747470733a2f2f707573682e6578616d706c652f731668747470733a2f2f707573682e6578616d706c652f700116\
         68747470733a2f2f707573682e6578616d706c652f7411111111111111111111111111111111111111111111111111111111\
         111111112222222222222222222222222222222200",
    ),
    (
        "06",
        "01c8",
    ),
    (
        "07c5028dc3302e51bd",
        "011668747470733a2f2f707573682e6578616d706c652f74",
    ),
    (
        "0842825ebfac923c79",
        "011668747470733a2f2f707573682e6578616d706c652f6d076d657465722d3782020707070707070707",
    ),
    (
        "0901026d657465722d37",
        "01076d657465722d37820209090909090909090909090909090909",
    ),
    (
        "0a01026d657465722d37",
        "01076d657465722d378202",
    ),
    (
        "0b",
        "0180a4a7da06015a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
    ),
    (
        "0b",
        "0180a4a7da0600",
    ),
];

#[test]
fn each_value_is_written_and_read_as_ever() {
    for (record, (key, value)) in records().into_iter().zip(GOLDEN) {
        assert_eq!((hex(&record.key().encode()).as_str(), hex(&record.encode()).as_str()), (key, value), "{record:?}");
        let read = Record::decode(&octets(key), &octets(value)).expect("readable");
        assert_eq!(hex(&read.encode()), value, "{record:?}");
    }
}

/// What a later program writes under a kind of ours is told from what is broken.
#[test]
fn a_later_version_of_a_value_is_unknown() {
    for (key, value) in GOLDEN {
        let later = [&[4], &octets(value)[1..]].concat();
        assert_eq!(Record::decode(&octets(key), &later).err(), Some(Unreadable::Unknown));
    }
}

fn records() -> [Record; 14] {
    let device: DeviceId = "meter-7".parse().expect("an id");
    let (channel, set) = (ChannelId(258), SetUri::parse("https://push.example/t").expect("valid"));
    let granted = Granted {
        dialect: Dialect::Rfc8030,
        read: SubscriptionUri::parse("https://push.example/s").expect("valid"),
        send: PushUri::parse("https://push.example/p").expect("valid"),
        set: Some(set.clone()),
        keeps_for: None,
    };
    let keys = Rc::new(Keys::from_stored(&[0x11; 32], &[0x22; 16]).expect("a key"));
    let (via, restricted_to, leaving) = (None, None, false);
    let plain = Stored { device: device.clone(), channel, keys, granted, via, restricted_to, leaving };
    let server = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";
    let server = Some(server.parse().expect("a key"));
    let moved = Stored { via: Some("first.example".into()), ..plain.clone() };
    let without_set = Granted { set: None, ..plain.granted.clone() };
    let restricted = Stored { restricted_to: server.clone(), leaving: true, granted: without_set, ..plain.clone() };
    let both = Stored { restricted_to: server.clone(), ..moved.clone() };
    let options = Options {
        push_service: Some("second".into()),
        isolated: Isolation::Connection,
        application_server_key: server,
        pending_acks: PendingAcks::Flash,
        flood_per_minute: Some(600),
        undeliverable: Undeliverable::Acknowledge,
        link: LinkOptions::default(),
    };
    let (id, link, channels) =
        (device.clone(), "serial:/dev/ttyUSB0?baud=9600".into(), vec![ChannelId(1), ChannelId(300)]);
    let with_options = DeviceRecord { id, link, channels, mtu: 256, options };
    let mut with_link = with_options.clone();
    with_link.options.link = LinkOptions { hold_for_sleep: 0, urgent_channels: vec![ChannelId(3)] };
    let message = PushMessageUri::parse("https://push.example/m").expect("valid");
    let owed = PendingAck { message, device: device.clone(), channel, id: MessageId([7; 8]) };
    let (time, boot) = (UnixTime(1_800_000_000), BootId::parse(&"5a".repeat(16)));
    [
        Record::Subscription(moved),
        Record::Subscription(restricted),
        Record::Subscription(both),
        Record::Set { service: Some("push.example:8443".into()), set: set.clone() },
        Record::Device(with_options),
        Record::Device(with_link),
        Record::Retired(plain),
        Record::Orphans(200),
        Record::Departure(set),
        Record::PendingAck(owed),
        Record::Announced(device.clone(), channel, [9; 16]),
        Record::Stopped(device, channel),
        Record::LastTime(time, boot),
        Record::LastTime(time, None),
    ]
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn octets(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
}
