//! The facts that outlive power, as keys and values of the store.
//!
//! ```text
//! key    kind(1) | rest           kind 1 subscription: channel(2, big endian) | device id
//!                                 kind 2 set, kind 3 time: nothing
//!                                 kind 4 device: device id
//! value  version(1) = 1 | postcard of the record below
//!        version(1) = 2   a subscription that another service granted than was asked: as in 1, then that one's authority
//! ```
//!
//! The last value of a key is the fact; a removed key is none. Kinds that this version does not know stay in the store
//! untouched.

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::subscription::Stored;
use crate::limits::RECORD_BYTES_MAX;
use crate::time::UnixTime;
use crate::webpush::ece::Keys;
use crate::webpush::exchange::{Dialect, Granted};
use crate::webpush::resource::{PushUri, SetUri, SubscriptionUri};
use crate::wire::{ChannelId, DeviceId};

const VERSION: u8 = 1;
const VERSION_VIA: u8 = 2;
const SUBSCRIPTION: u8 = 1;
const SET: u8 = 2;
const TIME: u8 = 3;
const DEVICE: u8 = 4;

/// A fact.
#[derive(Debug)]
pub enum Record {
    /// A subscription with its keys.
    Subscription(Stored),
    /// The set to present when subscribing.
    Set(SetUri),
    /// The last wall time known to be good.
    Time(UnixTime),
    /// A device that was added while running.
    Device(DeviceRecord),
}

/// A device that was added while running, in the words of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// Its id.
    pub id: DeviceId,
    /// Its link, as in the configuration.
    pub link: String,
    /// Its channels.
    pub channels: Vec<ChannelId>,
    /// Octets of the largest frame on its link.
    pub mtu: u16,
}

/// What a record is filed under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// One subscription.
    Subscription(DeviceId, ChannelId),
    /// The set.
    Set,
    /// The time.
    Time,
    /// One device.
    Device(DeviceId),
}

/// A record that this version cannot take up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// A kind or version that a later program wrote; it stays in the store.
    Unknown,
    /// The octets contradict their own form, or the key they are filed under.
    Malformed,
}

#[derive(Serialize, Deserialize)]
struct SubscriptionValue {
    dialect: Dialect,
    read: String,
    send: String,
    set: Option<String>,
    private: [u8; 32],
    auth: [u8; 16],
    leaving: bool,
}

impl Key {
    /// The key in the store's form.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Subscription(device, channel) => {
                let mut key = vec![SUBSCRIPTION];
                key.extend_from_slice(&channel.0.to_be_bytes());
                key.extend_from_slice(device.as_str().as_bytes());
                key
            }
            Self::Set => vec![SET],
            Self::Time => vec![TIME],
            Self::Device(device) => [&[DEVICE], device.as_str().as_bytes()].concat(),
        }
    }
}

impl Record {
    /// What it is filed under.
    pub fn key(&self) -> Key {
        match self {
            Self::Subscription(stored) => Key::Subscription(stored.device.clone(), stored.channel),
            Self::Set(_) => Key::Set,
            Self::Time(_) => Key::Time,
            Self::Device(record) => Key::Device(record.id.clone()),
        }
    }

    /// The value in the store's form.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Subscription(stored) => {
                let mut value = SubscriptionValue {
                    dialect: stored.granted.dialect,
                    read: stored.granted.read.as_str().to_owned(),
                    send: stored.granted.send.as_str().to_owned(),
                    set: stored.granted.set.as_ref().map(|set| set.as_str().to_owned()),
                    private: *stored.keys.private(),
                    auth: *stored.keys.auth(),
                    leaving: stored.leaving,
                };
                let octets = match &stored.via {
                    None => postcard_value(VERSION, &value),
                    Some(via) => postcard_value(VERSION_VIA, &(&value, via)),
                };
                value.private.zeroize();
                value.auth.zeroize();
                octets
            }
            Self::Set(set) => postcard_value(VERSION, &set.as_str()),
            Self::Time(time) => postcard_value(VERSION, time),
            Self::Device(record) => postcard_value(VERSION, record),
        }
    }

    /// Reads a record back.
    ///
    /// # Errors
    /// [`Unreadable`]; the record is then left alone.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, Unreadable> {
        let (&kind, rest) = key.split_first().ok_or(Unreadable::Malformed)?;
        if !matches!(kind, SUBSCRIPTION | SET | TIME | DEVICE) {
            return Err(Unreadable::Unknown);
        }
        let (&version, value) = value.split_first().ok_or(Unreadable::Malformed)?;
        if version != VERSION && (kind, version) != (SUBSCRIPTION, VERSION_VIA) {
            return Err(Unreadable::Unknown);
        }
        if value.len() >= RECORD_BYTES_MAX {
            return Err(Unreadable::Malformed);
        }
        let record = match kind {
            SUBSCRIPTION => decode_subscription(version, rest, value).map(Self::Subscription)?,
            SET => {
                let set: &str = from_postcard(value)?;
                SetUri::parse(set).map(Self::Set).map_err(|_| Unreadable::Malformed)?
            }
            TIME => from_postcard(value).map(Self::Time)?,
            _ => from_postcard(value).map(Self::Device)?,
        };
        // Under another key it could be neither replaced nor removed.
        if record.key().encode() == key { Ok(record) } else { Err(Unreadable::Malformed) }
    }
}

fn decode_subscription(version: u8, key: &[u8], value: &[u8]) -> Result<Stored, Unreadable> {
    let (channel, device) = key.split_first_chunk::<2>().ok_or(Unreadable::Malformed)?;
    let device = std::str::from_utf8(device).ok().and_then(|text| text.parse().ok()).ok_or(Unreadable::Malformed)?;
    let (mut value, via): (SubscriptionValue, Option<String>) = match version {
        VERSION_VIA => from_postcard(value).map(|(value, via)| (value, Some(via)))?,
        _ => (from_postcard(value)?, None),
    };
    let keys = Keys::from_stored(&value.private, &value.auth);
    value.private.zeroize();
    value.auth.zeroize();
    let granted = Granted {
        dialect: value.dialect,
        read: SubscriptionUri::parse(&value.read).map_err(|_| Unreadable::Malformed)?,
        send: PushUri::parse(&value.send).map_err(|_| Unreadable::Malformed)?,
        set: value.set.as_deref().map(SetUri::parse).transpose().map_err(|_| Unreadable::Malformed)?,
        keeps_for: None,
    };
    let keys = keys.map_err(|_| Unreadable::Malformed)?.into();
    let channel = ChannelId(u16::from_be_bytes(*channel));
    Ok(Stored { device, channel, keys, granted, via, leaving: value.leaving })
}

fn postcard_value(version: u8, value: &impl Serialize) -> Zeroizing<Vec<u8>> {
    let mut octets = Zeroizing::new(vec![0; RECORD_BYTES_MAX]);
    octets[0] = version;
    let bytes = postcard::to_slice(value, &mut octets[1..]).expect("the bounds of what is stored fit a record").len();
    octets.truncate(1 + bytes);
    octets
}

fn from_postcard<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, Unreadable> {
    postcard::from_bytes(value).map_err(|_| Unreadable::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{CHANNELS_PER_DEVICE_MAX, LINK_PATH_BYTES_MAX};
    use crate::random::SeededRandom;

    #[test]
    fn records_are_read_back_as_written() {
        for record in records() {
            let (key, value) = (record.key().encode(), record.encode());
            let read = Record::decode(&key, &value).expect("readable");
            assert_eq!((read.key(), &*read.encode()), (record.key(), &*value));
        }
    }

    #[test]
    fn the_longest_subscription_fits() {
        let Some(Record::Subscription(mut stored)) = records().into_iter().next() else { panic!("a subscription") };
        let longest = format!("https://push.example/{}", "x".repeat(crate::limits::URI_BYTES_MAX - 21));
        stored.granted.read = SubscriptionUri::parse(&longest).expect("valid");
        stored.granted.send = PushUri::parse(&longest).expect("valid");
        stored.granted.set = SetUri::parse(&longest).ok();
        stored.via = Some("x".repeat(crate::limits::URI_BYTES_MAX));
        assert!(Record::Subscription(stored).encode().len() <= RECORD_BYTES_MAX);
    }

    #[test]
    fn the_longest_device_fits() {
        let link = format!("serial:/{}?baud=4000000", "x".repeat(LINK_PATH_BYTES_MAX - 1));
        let channels = (0..CHANNELS_PER_DEVICE_MAX).map(|number| ChannelId(u16::MAX - number as u16)).collect();
        let id = "x".repeat(crate::wire::DEVICE_ID_BYTES_MAX).parse().expect("an id");
        let record = Record::Device(DeviceRecord { id, link, channels, mtu: 1024 });
        assert!(record.encode().len() <= RECORD_BYTES_MAX);
    }

    #[test]
    fn cut_or_foreign_records_are_left_alone() {
        for record in records() {
            let (key, value) = (record.key().encode(), record.encode());
            for end in 0..value.len() {
                assert!(Record::decode(&key, &value[..end]).is_err(), "{record:?} cut at {end}");
            }
            let mut later = value.to_vec();
            later[0] = VERSION_VIA + 1;
            assert_eq!(Record::decode(&key, &later).err(), Some(Unreadable::Unknown));
        }
        assert_eq!(Record::decode(&[200, 1], &[VERSION]).err(), Some(Unreadable::Unknown));
        assert_eq!(Record::decode(&[], &[]).err(), Some(Unreadable::Malformed));
    }

    #[test]
    fn a_record_that_could_not_be_written_is_left_alone() {
        let mut device =
            DeviceRecord { id: "a".parse().expect("an id"), link: String::new(), channels: Vec::new(), mtu: 256 };
        let bytes = Record::Device(device.clone()).encode().len();
        for (excess, is_read) in [(0, true), (1, false)] {
            // Its length takes one more octet when it is longer than 127.
            device.link = "x".repeat(RECORD_BYTES_MAX - bytes - 1 + excess);
            let mut value = [VERSION; RECORD_BYTES_MAX + 1];
            let bytes = 1 + postcard::to_slice(&device, &mut value[1..]).expect("there is room").len();
            assert_eq!(bytes, RECORD_BYTES_MAX + excess);
            assert_eq!(Record::decode(b"\x04a", &value[..bytes]).is_ok(), is_read);
        }
    }

    #[test]
    fn a_record_under_a_key_of_another_is_left_alone() {
        for record in records() {
            let other_key = [&*record.key().encode(), b"x"].concat();
            let decoded = Record::decode(&other_key, &record.encode());
            match record {
                // The device of a subscription is told by the key alone.
                Record::Subscription(_) => assert_eq!(decoded.expect("readable").key().encode(), other_key),
                _ => assert_eq!(decoded.err(), Some(Unreadable::Malformed), "{record:?}"),
            }
        }
    }

    fn records() -> Vec<Record> {
        let device: DeviceId = "meter-7".parse().expect("an id");
        let granted = Granted {
            dialect: Dialect::Rfc8030,
            read: SubscriptionUri::parse("https://push.example/s/1").expect("valid"),
            send: PushUri::parse("https://push.example/p/1").expect("valid"),
            set: SetUri::parse("https://push.example/t/1").ok(),
            keeps_for: None,
        };
        let keys: std::rc::Rc<Keys> = Keys::generate(&mut SeededRandom::new(1)).into();
        let link = "unix:/run/meter.sock".into();
        vec![
            Record::Subscription(Stored {
                device: device.clone(),
                channel: ChannelId(258),
                keys: std::rc::Rc::clone(&keys),
                granted: granted.clone(),
                via: None,
                leaving: true,
            }),
            Record::Subscription(Stored {
                device: device.clone(),
                channel: ChannelId(259),
                keys,
                granted,
                via: Some("first.example".into()),
                leaving: false,
            }),
            Record::Set(SetUri::parse("https://push.example/t/1").expect("valid")),
            Record::Time(UnixTime(1_800_000_000)),
            Record::Device(DeviceRecord { id: device, link, channels: vec![ChannelId(1)], mtu: 256 }),
        ]
    }
}
