//! Golden bytes of the gateway's log, version 1. Never edited: a change of the format is a new version, a new file
//! beside this one, and a reader that still opens what is here.
#![cfg(feature = "gateway")]

use fieldgate::store::flash::Region;
use fieldgate::store::log::{Capacity, Change, Log};

#[path = "common/flash.rs"]
mod flash;

use flash::{MemoryFlash, SharedFlash};

const CAPACITY: Capacity =
    Capacity { region_bytes_min: 8 * 4096, region_bytes_max: 16 * 4096, live_bytes_max: 3 * 4070 };

/// The octets at the start of each used block of region A, in hexadecimal; all others are zero.
const REGION_A: [&str; 5] = [
    "6669656c646c6f670100000001000000cb2ab46f",
    "46474231f51ec2e8010000000100000000000000000001000e0001020005000000016176616c7565",
    "464742318f049014010000000200000000000000000001000e000202000161010200000000000162",
    "46474231d6804a6701000000030000000000000000000200e60f010600e60f0000fe6c61726765",
    "46474231977bde05010000000300000000000000010002000d00292a2b2c2d2e2f303132333435",
];
const REGION_B: &str = "6669656c646c6f6701000000000000007380f1b2";
/// The large value reaches into a second block: its octets count up.
const LARGE_BYTES: usize = 4070;

#[test]
fn version_1_is_written_as_ever() {
    let medium = SharedFlash::new(MemoryFlash::new());
    let (mut log, _) = Log::open(medium.clone(), CAPACITY).expect("a new log");
    for batch in history() {
        log.append(batch).expect("it fits");
        log.sync().expect("it works");
    }
    let mut flash = medium.snapshot();
    for (region, golden) in [(Region::A, &region_a()), (Region::B, &region_b())] {
        for (index, (written, golden)) in flash.region(region).chunks(4096).zip(golden.chunks(4096)).enumerate() {
            assert_eq!(hex(written), hex(golden), "block {index} of region {region:?}");
        }
    }
}

#[test]
fn version_1_is_read_as_ever() {
    let mut flash = MemoryFlash::new();
    *flash.region(Region::A) = region_a();
    *flash.region(Region::B) = region_b();
    let (log, damage) = Log::open(flash.restarted(), CAPACITY).expect("it opens");
    assert_eq!(damage, None);
    let facts: Vec<_> = log.facts().collect();
    assert_eq!(facts, [(&b"\x01b"[..], &b""[..]), (&b"\xfelarge"[..], &large()[..])]);
}

fn history() -> [Vec<Change>; 3] {
    [
        vec![Change::put(b"\x01a", b"value")],
        vec![Change::remove(b"\x01a"), Change::put(b"\x01b", b"")],
        vec![Change::put(b"\xfelarge", &large())],
    ]
}

fn large() -> Vec<u8> {
    (0..LARGE_BYTES).map(|n| (n % 251) as u8).collect()
}

/// The block of the large value is golden up to the value, which is then filled in.
fn region_a() -> Vec<u8> {
    let mut region = region(&REGION_A);
    let value = large();
    let start = 3 * 4096 + 26 + 7 + 6;
    let split = 4 * 4096 - start;
    region[start..start + split].copy_from_slice(&value[..split]);
    region
}

fn region_b() -> Vec<u8> {
    region(&[REGION_B])
}

fn region(blocks: &[&str]) -> Vec<u8> {
    let mut region = vec![0; CAPACITY.region_bytes_min];
    for (index, block) in blocks.iter().enumerate() {
        let octets = octets(block);
        region[index * 4096..index * 4096 + octets.len()].copy_from_slice(&octets);
    }
    region
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|digit| Some(digit.to_digit(16)? as u8)).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn hex(octets: &[u8]) -> String {
    let used = octets.iter().rposition(|&octet| octet != 0).map_or(0, |last| last + 1);
    octets[..used].iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The records in the log: what each fact of the gateway looks like, key and value.
mod records {
    use std::rc::Rc;

    use fieldgate::proto::record::{DeviceRecord, Record};
    use fieldgate::proto::subscription::Stored;
    use fieldgate::time::UnixTime;
    use fieldgate::webpush::ece::Keys;
    use fieldgate::webpush::exchange::{Dialect, Granted};
    use fieldgate::webpush::resource::{PushUri, SetUri, SubscriptionUri};
    use fieldgate::wire::ChannelId;

    const GOLDEN: [(&str, &str); 4] = [
        (
            "0101026d657465722d37",
            "01001668747470733a2f2f707573682e6578616d706c652f731668747470733a2f2f707573682e6578616d706c652f70\
             011668747470733a2f2f707573682e6578616d706c652f741111111111111111111111111111111111111111111111\
             1111111111111111112222222222222222222222222222222200",
        ),
        ("02", "011668747470733a2f2f707573682e6578616d706c652f74"),
        ("03", "0180a4a7da06"),
        (
            "046d657465722d37",
            "01076d657465722d371d73657269616c3a2f6465762f747479555342303f626175643d393630300201ac028002",
        ),
    ];

    #[test]
    fn version_1_is_written_and_read_as_ever() {
        for (record, (key, value)) in records().into_iter().zip(GOLDEN) {
            assert_eq!((hex(&record.key().encode()).as_str(), hex(&record.encode()).as_str()), (key, value));
            let read = Record::decode(&octets(key), &octets(value)).expect("readable");
            assert_eq!(hex(&read.encode()), value);
        }
    }

    fn records() -> [Record; 4] {
        let device: fieldgate::wire::DeviceId = "meter-7".parse().expect("an id");
        let granted = Granted {
            dialect: Dialect::Rfc8030,
            read: SubscriptionUri::parse("https://push.example/s").expect("valid"),
            send: PushUri::parse("https://push.example/p").expect("valid"),
            set: SetUri::parse("https://push.example/t").ok(),
            keeps_for: None,
        };
        let keys = Rc::new(Keys::from_stored(&[0x11; 32], &[0x22; 16]).expect("a key"));
        let channels = vec![ChannelId(1), ChannelId(300)];
        let link = "serial:/dev/ttyUSB0?baud=9600".to_owned();
        [
            Record::Subscription(Stored {
                device: device.clone(),
                channel: ChannelId(258),
                keys,
                granted,
                via: None,
                restricted_to: None,
                leaving: false,
            }),
            Record::Set { service: None, set: SetUri::parse("https://push.example/t").expect("valid") },
            Record::Time(UnixTime(1_800_000_000)),
            Record::Device(DeviceRecord { id: device, link, channels, mtu: 256, options: Default::default() }),
        ]
    }

    fn hex(octets: &[u8]) -> String {
        octets.iter().map(|octet| format!("{octet:02x}")).collect()
    }

    fn octets(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
    }
}
