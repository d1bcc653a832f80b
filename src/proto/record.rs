//! The facts that outlive power, as keys and values of the store.
//!
//! # Keys
//!
//! A key is a kind (1 octet) and what tells facts of that kind apart. Numbers are big endian; a *device* is the id as text,
//! 1 to 32 octets; a *tag* the first 8 octets of SHA-256 of a URI.
//!
//! ```text
//! kind                                          rest of the key                                   value versions
//!    1 subscription                             channel(2) device                                 1 2 3
//!    2 set to present when subscribing          nothing; of another service than the first one
//!                                               its authority, as in `push.example.net:8443`      1
//!    3 time, as earlier versions wrote it       nothing                                           1
//!    4 device that was added while running      device                                            1 2 3
//!    5 subscription that was replaced           tag(8) of its `read`, channel(2) device           1 2 3
//!    6 orphans                                  nothing                                           1
//!    7 set that is being removed                tag(8) of the set                                 1
//!    8 message that its device has and the
//!      service does not know of                 tag(8) of the message                             1
//!    9 what an application server was told      channel(2) device                                 1
//!   10 channel not subscribed by itself         channel(2) device                                 1
//!   11 last known time                          nothing                                           1
//!   12 alternatives of a configured service     its authority                                     1
//! ```
//!
//! # Values
//!
//! A value is its version (1 octet) and fields in the encoding of postcard, without names or padding:
//!
//! ```text
//! number   7 bits in each octet, the lowest first; the highest bit is set in all octets but the last; u8 is one octet
//! text     its length in octets (number), the octets in UTF-8         list    its length (number), its elements
//! flag     0 or 1                                                     [n]     n octets
//! choice   the number of the word, from 0                             ?       0 for none, or 1 and the field
//! ```
//!
//! ```text
//! kind version  fields
//!  1,5  1  dialect choice(rfc8030) · read text · send text · set ?text · private key [32] · auth [16] · leaving flag
//!       2  as in 1 · asked text: the authority that was asked, which another service granted for
//!       3  as in 1 · asked ?text · server text: the VAPID key of the one server that may send, as base64url
//!  2,7  1  URI text
//!    3  1  seconds since 1970 number
//!    4  1  id text · link text · channels list of number · mtu number
//!       2  as in 1 · options: service ?text · isolated choice(none set connection) · server ?text ·
//!                    pending_acks choice(auto flash) · flood_per_minute ?number · undeliverable choice(keep acknowledge)
//!       3  as in 2 · hold_for_sleep u8 · urgent channels list of number
//!    6  1  count u8
//!    8  1  URI text · device text · channel number · id on the link [8]
//!    9  1  device text · channel number · hash [16]: the first octets of SHA-256 of target, a zero octet and document, or
//!          16 zeros where it is not known what was heard
//!   10  1  device text · channel number
//!   11  1  seconds since 1970 number · boot ?[16]
//!   12  1  seconds since 1970 number when they were said · list of: place text, as in Alt-Svc · seconds fresh number
//! ```
//!
//! The last value of a key is the fact; a removed key is none. A value that contradicts its key, its form or
//! [`RECORD_BYTES_MAX`] is ignored. Octets behind the last field are ignored as well, so more fields need another version.
//!
//! # Other versions of the program
//!
//! The version of the program is no part of the state; that of the byte format stands in the header of a region
//! (`store::log`), that of a value in its first octet.
//!
//! 1. A record is written in the lowest version that can hold it: what uses nothing new an earlier program can read.
//! 2. A kind is never used for something else, nor is a version of a value.
//! 3. What a program cannot read it leaves as it is, through compaction, export and import. Where it needs the key itself,
//!    its own value takes that place: a channel is subscribed anew, and application servers are told.
//! 4. A program that cannot read everything removes nothing because of what it does not find. The subscriptions of a device
//!    whose record it cannot read stay, and messages for them wait at the push service.
//! 5. A fact that takes the place of another one gets a kind of its own, and the old one stays until it is forgotten, as
//!    kind 3 does beside kind 11.
//!
//! So a program that is one version older keeps all it knows and serves it; what it lacks is there when the newer one is
//! back, but for what rule 3 took the place of.
//!
//! # What outlives power, and until when
//!
//! ```text
//! subscriptions, keys     until their device or a person ends them, and the service has heard of it
//! sets                    until the service does not know them any more
//! intents                 orphans: how many subscribe requests may have made something that nobody knows
//! rotations               retired: the old subscription, until it is removed at the service
//! deletions               departures and leaving subscriptions: until the service has answered
//! pending acks            until the service has answered; written once it is long in answering, or first of all
//!                         (`pending_acks`)
//! announcements           a hash of what an application server accepted last: until the subscription is gone
//! stopped channels        until somebody asks for them again
//! devices                 that were added by command: until they are removed
//! time                    the last one known to have passed: a lower bound for the next start
//! alternatives            that persist: until they are no longer fresh, or the service says others
//! ```
//!
//! # What does not
//!
//! ```text
//! messages                the service keeps them until they are acknowledged, so that flash need not
//! links                   both sides open them anew with another boot id; there is no pairing and there are no link keys
//!                         yet: who may open a link is decided by who can reach it
//! what devices said       that they sleep, what they can take: they say it again on each new link
//! pauses, failure marks   what failed may have been mended meanwhile, and trying once is cheap
//! counters                they count from the start
//! the path                TLS tickets, addresses, how long it lasts idle: see `lasting` and `keep_alive`
//! ```

use ring::digest;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::device::{LinkOptions, Options};
use super::lasting::Said;
use super::subscription::Stored;
use crate::limits::{ALTERNATIVE_COUNT_MAX, RECORD_BYTES_MAX};
use crate::time::{BootId, UnixTime};
use crate::webpush::alt_svc::Alternative;
use crate::webpush::ece::Keys;
use crate::webpush::exchange::{Dialect, Granted};
use crate::webpush::resource::{PushMessageUri, PushUri, SetUri, SubscriptionUri};
use crate::wire::{ChannelId, DeviceId, MessageId};

const VERSION: u8 = 1;
const VERSION_VIA: u8 = 2;
const VERSION_OPTIONS: u8 = 2;
const VERSION_LINK: u8 = 3;
const VERSION_RESTRICTED: u8 = 3;
const SUBSCRIPTION: u8 = 1;
const SET: u8 = 2;
const TIME: u8 = 3;
const DEVICE: u8 = 4;
const RETIRED: u8 = 5;
const ORPHANS: u8 = 6;
const DEPARTURE: u8 = 7;
const PENDING_ACK: u8 = 8;
const ANNOUNCED: u8 = 9;
const STOPPED: u8 = 10;
const LAST_TIME: u8 = 11;
const ALTERNATIVES: u8 = 12;

const TAG_BYTES: usize = 8;
/// Octets of the hash of what was announced.
pub const ANNOUNCED_BYTES: usize = 16;

/// A fact.
#[derive(Debug)]
pub enum Record {
    /// A subscription with its keys.
    Subscription(Stored),
    /// A subscription that was replaced, and is read until it is removed at the service.
    Retired(Stored),
    /// The set to present when subscribing.
    Set {
        /// Its service, unless that is the first one.
        service: Option<String>,
        /// The set.
        set: SetUri,
    },
    /// A set that is being removed at the service with all its subscriptions.
    Departure(SetUri),
    /// A message that its device has, of which the service is yet to hear.
    PendingAck(PendingAck),
    /// What an application server was told of a channel last and has accepted: a hash of it.
    Announced(DeviceId, ChannelId, [u8; ANNOUNCED_BYTES]),
    /// A channel whose subscription was ended because too many messages came; it is not subscribed by itself.
    Stopped(DeviceId, ChannelId),
    /// Subscribe requests that may have made a subscription of which nothing is known here: those of unknown outcome, and
    /// those that are about to be sent.
    Orphans(u8),
    /// The last wall time known to be good, as earlier versions wrote it.
    Time(UnixTime),
    /// The last wall time known to have passed, and the boot in which that became known.
    LastTime(UnixTime, Option<BootId>),
    /// What a configured service, named by its authority, has said of alternatives that persist.
    Alternatives(String, Said),
    /// A device that was added while running.
    Device(DeviceRecord),
}

/// What a record was written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Subscriptions, their sets, and what is left of them at a service.
    Subscription,
    /// Messages that devices have.
    Acknowledgement,
    /// What application servers were told.
    Announcement,
    /// The time.
    Time,
    /// How push services can be reached.
    Transport,
    /// Devices that were added while running, and what is not known.
    Other,
}

impl Cause {
    /// That of records of a kind: the first octet of their keys.
    pub const fn of(kind: u8) -> Self {
        match kind {
            SUBSCRIPTION | SET | RETIRED | ORPHANS | DEPARTURE | STOPPED => Self::Subscription,
            PENDING_ACK => Self::Acknowledgement,
            ANNOUNCED => Self::Announcement,
            TIME | LAST_TIME => Self::Time,
            ALTERNATIVES => Self::Transport,
            _ => Self::Other,
        }
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subscription => "subscription",
            Self::Acknowledgement => "acknowledgement",
            Self::Announcement => "announcement",
            Self::Time => "time",
            Self::Transport => "transport",
            Self::Other => "other",
        }
    }
}

/// A message that its device has, of which the service is yet to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingAck {
    /// Its resource.
    pub message: PushMessageUri,
    /// The device it went to.
    pub device: DeviceId,
    /// The device's label of its subscription.
    pub channel: ChannelId,
    /// Its identity on the link.
    pub id: MessageId,
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
    /// What it wants of its subscriptions.
    #[serde(skip)]
    pub options: Options,
}

/// What tells a record from others of its kind: the first octets of the hash of a URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag([u8; TAG_BYTES]);

/// What a record is filed under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// One subscription.
    Subscription(DeviceId, ChannelId),
    /// One subscription that was replaced.
    Retired(DeviceId, ChannelId, Tag),
    /// The set of a service; none names the first one.
    Set(Option<String>),
    /// A set that is being removed.
    Departure(Tag),
    /// A message whose acknowledgement is owed.
    PendingAck(Tag),
    /// What an application server was told.
    Announced(DeviceId, ChannelId),
    /// A channel that is not subscribed by itself.
    Stopped(DeviceId, ChannelId),
    /// The number of orphans.
    Orphans,
    /// The time, of earlier versions.
    Time,
    /// The last known time.
    LastTime,
    /// The alternatives of the service with this authority.
    Alternatives(String),
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

impl Tag {
    /// The tag of a URI.
    pub fn of(uri: &str) -> Self {
        let hash = digest::digest(&digest::SHA256, uri.as_bytes());
        Self(*hash.as_ref().first_chunk().expect("a SHA-256 has 32 octets"))
    }
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
            Self::Retired(device, channel, tag) => {
                [&[RETIRED][..], &tag.0, &channel.0.to_be_bytes(), device.as_str().as_bytes()].concat()
            }
            Self::Set(service) => [&[SET], service.as_deref().unwrap_or_default().as_bytes()].concat(),
            Self::Departure(tag) => [&[DEPARTURE][..], &tag.0].concat(),
            Self::PendingAck(tag) => [&[PENDING_ACK][..], &tag.0].concat(),
            Self::Announced(device, channel) => {
                [&[ANNOUNCED][..], &channel.0.to_be_bytes(), device.as_str().as_bytes()].concat()
            }
            Self::Stopped(device, channel) => {
                [&[STOPPED][..], &channel.0.to_be_bytes(), device.as_str().as_bytes()].concat()
            }
            Self::Orphans => vec![ORPHANS],
            Self::Time => vec![TIME],
            Self::LastTime => vec![LAST_TIME],
            Self::Alternatives(service) => [&[ALTERNATIVES], service.as_bytes()].concat(),
            Self::Device(device) => [&[DEVICE], device.as_str().as_bytes()].concat(),
        }
    }
}

impl Record {
    /// Whether what is filed under a key moves with the identity to another board. The way to a service does not: it was
    /// found on another network, and the service tells it again.
    pub fn is_of_identity(key: &[u8]) -> bool {
        key.first() != Some(&ALTERNATIVES)
    }

    /// What it is filed under.
    pub fn key(&self) -> Key {
        match self {
            Self::Subscription(stored) => Key::Subscription(stored.device.clone(), stored.channel),
            Self::Retired(stored) => {
                Key::Retired(stored.device.clone(), stored.channel, Tag::of(stored.granted.read.as_str()))
            }
            Self::Set { service, .. } => Key::Set(service.clone()),
            Self::Departure(set) => Key::Departure(Tag::of(set.as_str())),
            Self::PendingAck(owed) => Key::PendingAck(Tag::of(owed.message.as_str())),
            Self::Announced(device, channel, _) => Key::Announced(device.clone(), *channel),
            Self::Stopped(device, channel) => Key::Stopped(device.clone(), *channel),
            Self::Orphans(_) => Key::Orphans,
            Self::Time(_) => Key::Time,
            Self::LastTime(..) => Key::LastTime,
            Self::Alternatives(service, _) => Key::Alternatives(service.clone()),
            Self::Device(record) => Key::Device(record.id.clone()),
        }
    }

    /// The value in the store's form.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Subscription(stored) | Self::Retired(stored) => encode_subscription(stored),
            Self::Set { set, .. } | Self::Departure(set) => postcard_value(VERSION, &set.as_str()),
            Self::PendingAck(PendingAck { message, device, channel, id }) => {
                postcard_value(VERSION, &(message.as_str(), device, channel, id.0))
            }
            Self::Announced(device, channel, hash) => postcard_value(VERSION, &(device, channel, hash)),
            Self::Stopped(device, channel) => postcard_value(VERSION, &(device, channel)),
            Self::Orphans(count) => postcard_value(VERSION, count),
            Self::Time(time) => postcard_value(VERSION, time),
            Self::LastTime(time, boot) => postcard_value(VERSION, &(time, boot)),
            Self::Alternatives(_, said) => {
                let places = said.places.iter().map(|(place, fresh_for)| (place.to_string(), fresh_for));
                postcard_value(VERSION, &(said.at, places.collect::<Vec<_>>()))
            }
            Self::Device(record) if record.options == Options::default() => postcard_value(VERSION, record),
            Self::Device(record) if record.options.link == LinkOptions::default() => {
                postcard_value(VERSION_OPTIONS, &(record, &record.options))
            }
            Self::Device(record) => postcard_value(VERSION_LINK, &(record, &record.options, &record.options.link)),
        }
    }

    /// Reads a record back.
    ///
    /// # Errors
    /// [`Unreadable`]; the record is then left alone.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, Unreadable> {
        let (&kind, rest) = key.split_first().ok_or(Unreadable::Malformed)?;
        let version_max = match kind {
            SUBSCRIPTION | RETIRED => VERSION_RESTRICTED,
            DEVICE => VERSION_LINK,
            SET | TIME | ORPHANS | DEPARTURE | PENDING_ACK | ANNOUNCED | STOPPED | LAST_TIME | ALTERNATIVES => VERSION,
            _ => return Err(Unreadable::Unknown),
        };
        let (&version, value) = value.split_first().ok_or(Unreadable::Malformed)?;
        if !(VERSION..=version_max).contains(&version) {
            return Err(Unreadable::Unknown);
        }
        if value.len() >= RECORD_BYTES_MAX {
            return Err(Unreadable::Malformed);
        }
        let record = match kind {
            SUBSCRIPTION => decode_subscription(version, rest, value).map(Self::Subscription)?,
            RETIRED => {
                let rest = rest.get(TAG_BYTES..).ok_or(Unreadable::Malformed)?;
                decode_subscription(version, rest, value).map(Self::Retired)?
            }
            SET => {
                let service = std::str::from_utf8(rest).map_err(|_| Unreadable::Malformed)?;
                let service = Some(service.to_owned()).filter(|service| !service.is_empty());
                Self::Set { service, set: decode_set(value)? }
            }
            DEPARTURE => Self::Departure(decode_set(value)?),
            PENDING_ACK => {
                let (message, device, channel, id): (&str, _, _, _) = from_postcard(value)?;
                let message = PushMessageUri::parse(message).map_err(|_| Unreadable::Malformed)?;
                Self::PendingAck(PendingAck { message, device, channel, id: MessageId(id) })
            }
            ANNOUNCED => from_postcard(value).map(|(device, channel, hash)| Self::Announced(device, channel, hash))?,
            STOPPED => from_postcard(value).map(|(device, channel)| Self::Stopped(device, channel))?,
            ORPHANS => from_postcard(value).map(Self::Orphans)?,
            TIME => from_postcard(value).map(Self::Time)?,
            LAST_TIME => from_postcard(value).map(|(time, boot)| Self::LastTime(time, boot))?,
            ALTERNATIVES => {
                let service = std::str::from_utf8(rest).map_err(|_| Unreadable::Malformed)?;
                Self::Alternatives(service.to_owned(), decode_said(value)?)
            }
            _ if version == VERSION => from_postcard(value).map(Self::Device)?,
            _ if version == VERSION_OPTIONS => {
                let (record, options): (DeviceRecord, Options) = from_postcard(value)?;
                Self::Device(DeviceRecord { options, ..record })
            }
            _ => {
                let (record, options, link): (DeviceRecord, Options, LinkOptions) = from_postcard(value)?;
                Self::Device(DeviceRecord { options: Options { link, ..options }, ..record })
            }
        };
        // Under another key it could be neither replaced nor removed.
        if record.key().encode() == key { Ok(record) } else { Err(Unreadable::Malformed) }
    }
}

fn encode_subscription(stored: &Stored) -> Zeroizing<Vec<u8>> {
    let mut value = SubscriptionValue {
        dialect: stored.granted.dialect,
        read: stored.granted.read.as_str().to_owned(),
        send: stored.granted.send.as_str().to_owned(),
        set: stored.granted.set.as_ref().map(|set| set.as_str().to_owned()),
        private: *stored.keys.private(),
        auth: *stored.keys.auth(),
        leaving: stored.leaving,
    };
    let octets = match (&stored.via, &stored.restricted_to) {
        (None, None) => postcard_value(VERSION, &value),
        (Some(via), None) => postcard_value(VERSION_VIA, &(&value, via)),
        (via, Some(key)) => postcard_value(VERSION_RESTRICTED, &(&value, via, key)),
    };
    value.private.zeroize();
    value.auth.zeroize();
    octets
}

fn decode_said(value: &[u8]) -> Result<Said, Unreadable> {
    let (at, places): (UnixTime, Vec<(&str, u64)>) = from_postcard(value)?;
    if places.len() > ALTERNATIVE_COUNT_MAX {
        return Err(Unreadable::Malformed);
    }
    let place = |(place, fresh_for)| Alternative::parse(place).map(|place| (place, fresh_for));
    let places: Option<Vec<_>> = places.into_iter().map(place).collect();
    Ok(Said { at, places: places.ok_or(Unreadable::Malformed)? })
}

fn decode_set(value: &[u8]) -> Result<SetUri, Unreadable> {
    SetUri::parse(from_postcard(value)?).map_err(|_| Unreadable::Malformed)
}

fn decode_subscription(version: u8, key: &[u8], value: &[u8]) -> Result<Stored, Unreadable> {
    let (channel, device) = key.split_first_chunk::<2>().ok_or(Unreadable::Malformed)?;
    let device = std::str::from_utf8(device).ok().and_then(|text| text.parse().ok()).ok_or(Unreadable::Malformed)?;
    let (mut value, via, restricted_to): (SubscriptionValue, Option<String>, _) = match version {
        VERSION_RESTRICTED => from_postcard(value).map(|(value, via, key)| (value, via, Some(key)))?,
        VERSION_VIA => from_postcard(value).map(|(value, via)| (value, Some(via), None))?,
        _ => (from_postcard(value)?, None, None),
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
    Ok(Stored { device, channel, keys, granted, via, restricted_to, leaving: value.leaving })
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
    use crate::limits::{CHANNELS_PER_DEVICE_MAX, LINK_PATH_BYTES_MAX, SERVICE_NAME_BYTES_MAX};
    use crate::proto::device::{Isolation, PendingAcks, Undeliverable};
    use crate::random::SeededRandom;
    use crate::webpush::vapid::ApplicationServerKey;

    #[test]
    fn records_are_read_back_as_written() {
        for record in records() {
            let (key, value) = (record.key().encode(), record.encode());
            let read = Record::decode(&key, &value).expect("readable");
            assert_eq!((read.key(), &*read.encode()), (record.key(), &*value));
        }
    }

    /// Never edited: what this version has written, later ones read.
    #[test]
    fn the_last_known_time_is_written_as_ever() {
        for (boot, expected) in [
            (None, [1, 0x80, 0xa4, 0xa7, 0xda, 6, 0].to_vec()),
            (BootId::parse(&"5a".repeat(16)), [&[1, 0x80, 0xa4, 0xa7, 0xda, 6, 1][..], &[0x5a; 16]].concat()),
        ] {
            let record = Record::LastTime(UnixTime(1_800_000_000), boot);
            assert_eq!((record.key().encode(), record.encode().to_vec()), (vec![11], expected));
        }
    }

    /// Never edited, as above.
    #[test]
    fn alternatives_are_written_as_ever() {
        let record = Record::Alternatives("push.example:8443".to_owned(), said());
        assert_eq!(record.key().encode(), b"\x0cpush.example:8443");
        let expected =
            [&[1, 0x80, 0xa4, 0xa7, 0xda, 6, 2][..], b"\x0ea.example:1001\x80\xa3\x05", b"\x09[::1]:443\xa0\x38"];
        assert_eq!(record.encode().to_vec(), expected.concat());
    }

    /// As many alternatives as there may be, each with the longest host and the longest time.
    #[test]
    fn the_longest_alternatives_fit_and_one_more_is_left_alone() {
        let host = format!("{}.example", "x".repeat(245));
        let place = |number| (Alternative { host: host.clone(), port: u16::MAX - number }, u64::MAX);
        for (count, is_read) in [(ALTERNATIVE_COUNT_MAX, true), (ALTERNATIVE_COUNT_MAX + 1, false)] {
            let places = (0..count as u16).map(place).collect();
            let record = Record::Alternatives("push.example".to_owned(), Said { at: UnixTime(u64::MAX), places });
            let octets = record.encode();
            assert!(octets.len() <= RECORD_BYTES_MAX);
            assert_eq!(Record::decode(&record.key().encode(), &octets).is_ok(), is_read);
        }
    }

    /// What is no place must not reach a request.
    #[test]
    fn alternatives_that_no_service_can_have_said_are_left_alone() {
        for place in ["", ":1001", "a.example", "a.example:0", "a b:1", "a\r\n:1", "[::1:443"] {
            let value = postcard_value(VERSION, &(UnixTime(1), vec![(place, 86_400_u64)]));
            assert_eq!(Record::decode(b"\x0cpush.example", &value).err(), Some(Unreadable::Malformed), "{place}");
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
        stored.restricted_to = Some(server_key());
        assert!(Record::Subscription(stored).encode().len() <= RECORD_BYTES_MAX);
    }

    #[test]
    fn the_longest_device_fits() {
        let link = format!("serial:/{}?baud=4000000", "x".repeat(LINK_PATH_BYTES_MAX - 1));
        let channels = (0..CHANNELS_PER_DEVICE_MAX).map(|number| ChannelId(u16::MAX - number as u16)).collect();
        let id = "x".repeat(crate::wire::DEVICE_ID_BYTES_MAX).parse().expect("an id");
        let options = Options {
            push_service: Some("x".repeat(SERVICE_NAME_BYTES_MAX)),
            application_server_key: Some(server_key()),
            ..Options::default()
        };
        let record = Record::Device(DeviceRecord { id, link, channels, mtu: 1024, options });
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
            later[0] = VERSION_RESTRICTED + 1;
            assert_eq!(Record::decode(&key, &later).err(), Some(Unreadable::Unknown));
        }
        assert_eq!(Record::decode(&[200, 1], &[VERSION]).err(), Some(Unreadable::Unknown));
        assert_eq!(Record::decode(&[], &[]).err(), Some(Unreadable::Malformed));
    }

    #[test]
    fn a_record_that_could_not_be_written_is_left_alone() {
        let (id, link, channels) = ("a".parse().expect("an id"), String::new(), Vec::new());
        let mut device = DeviceRecord { id, link, channels, mtu: 256, options: Options::default() };
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
                // The device of a subscription and the service of a set or of alternatives are told by the key alone.
                Record::Subscription(_) | Record::Retired(_) | Record::Set { .. } | Record::Alternatives(..) => {
                    assert_eq!(decoded.expect("readable").key().encode(), other_key);
                }
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
        let stored = Stored {
            device: device.clone(),
            channel: ChannelId(258),
            keys,
            granted,
            via: None,
            restricted_to: None,
            leaving: true,
        };
        let moved = Stored { channel: ChannelId(259), via: Some("first.example".into()), ..stored.clone() };
        let restricted = Stored { restricted_to: Some(server_key()), leaving: false, ..moved.clone() };
        let both = Stored { via: None, ..restricted.clone() };
        let plain = DeviceRecord {
            id: device,
            link: "unix:/run/meter.sock".into(),
            channels: vec![ChannelId(1)],
            mtu: 256,
            options: Options::default(),
        };
        let options = Options {
            push_service: Some("second".into()),
            isolated: Isolation::Connection,
            application_server_key: Some(server_key()),
            pending_acks: PendingAcks::Flash,
            flood_per_minute: Some(600),
            undeliverable: Undeliverable::Acknowledge,
            link: LinkOptions::default(),
        };
        let link = LinkOptions { hold_for_sleep: 0, urgent_channels: vec![ChannelId(3)] };
        let message = PushMessageUri::parse("https://push.example/m/1").expect("valid");
        let owed = PendingAck { message, device: plain.id.clone(), channel: ChannelId(3), id: MessageId([7; 8]) };
        let set = SetUri::parse("https://push.example/t/1").expect("valid");
        vec![
            Record::Subscription(stored.clone()),
            Record::Subscription(moved),
            Record::Subscription(restricted),
            Record::Subscription(both),
            Record::Retired(stored),
            Record::Set { service: None, set: set.clone() },
            Record::Set { service: Some("push.example:8443".into()), set: set.clone() },
            Record::Departure(set),
            Record::PendingAck(owed),
            Record::Announced(plain.id.clone(), ChannelId(2), [9; ANNOUNCED_BYTES]),
            Record::Stopped(plain.id.clone(), ChannelId(2)),
            Record::Orphans(3),
            Record::Time(UnixTime(1_800_000_000)),
            Record::LastTime(UnixTime(1_800_000_000), None),
            Record::LastTime(UnixTime(1_800_000_000), BootId::parse(&"5a".repeat(16))),
            Record::Alternatives("push.example:8443".into(), said()),
            Record::Device(plain.clone()),
            Record::Device(DeviceRecord { options: options.clone(), ..plain.clone() }),
            Record::Device(DeviceRecord { options: Options { link, ..options }, ..plain }),
        ]
    }

    fn said() -> Said {
        let place = |host: &str, port| Alternative { host: host.to_owned(), port };
        Said {
            at: UnixTime(1_800_000_000),
            places: vec![(place("a.example", 1001), 86_400), (place("::1", 443), 7_200)],
        }
    }

    fn server_key() -> ApplicationServerKey {
        let key = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";
        key.parse().expect("a key")
    }
}
