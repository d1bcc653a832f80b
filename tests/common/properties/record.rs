//! Records of the store as a later, an earlier or a broken program may have left them.

use fieldgate::limits::{RECORD_BYTES_MAX, URI_BYTES_MAX};
use fieldgate::proto::record::{Record, Unreadable};

use super::input::Input;

/// A record that is taken up is filed under the key it was read from, and written back as itself.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let key = input.short();
    let value = input.rest();
    let record = match Record::decode(key, value) {
        Ok(record) => record,
        Err(error) => {
            let is_known = matches!(key.first(), Some(1..=12)) && matches!(value.first(), Some(1..=3));
            assert!(is_known || error == Unreadable::Unknown || key.is_empty() || value.is_empty());
            return;
        }
    };
    assert_eq!(record.key().encode(), key);
    let octets = record.encode();
    assert!(octets.len() <= RECORD_BYTES_MAX);
    let again = Record::decode(key, &octets).expect("what was written can be read");
    assert_eq!(again.encode(), octets);
    check_same(&record, &again);
}

fn check_same(record: &Record, again: &Record) {
    match (record, again) {
        (Record::Subscription(one), Record::Subscription(other)) | (Record::Retired(one), Record::Retired(other)) => {
            assert_eq!((&one.via, &one.restricted_to), (&other.via, &other.restricted_to));
            assert_eq!((&one.device, one.channel, one.leaving), (&other.device, other.channel, other.leaving));
            assert_eq!(one.granted, other.granted);
            assert_eq!(one.keys.private(), other.keys.private());
            assert_eq!((one.keys.public(), one.keys.auth()), (other.keys.public(), other.keys.auth()));
            assert!(one.granted.read.as_str().len() <= URI_BYTES_MAX);
        }
        (Record::Set { service, set }, Record::Set { service: other_service, set: other }) => {
            assert_eq!((service, set), (other_service, other));
        }
        (Record::Departure(one), Record::Departure(other)) => assert_eq!(one, other),
        (Record::Announced(device, channel, hash), Record::Announced(other, other_channel, other_hash)) => {
            assert_eq!((device, channel, hash), (other, other_channel, other_hash));
        }
        (Record::Stopped(device, channel), Record::Stopped(other, other_channel)) => {
            assert_eq!((device, channel), (other, other_channel));
        }
        (Record::PendingAck(one), Record::PendingAck(other)) => assert_eq!(one, other),
        (Record::Orphans(one), Record::Orphans(other)) => assert_eq!(one, other),
        (Record::Time(one), Record::Time(other)) => assert_eq!(one, other),
        (Record::LastTime(one, boot), Record::LastTime(other, other_boot)) => {
            assert_eq!((one, boot), (other, other_boot));
        }
        (Record::Alternatives(service, one), Record::Alternatives(other_service, other)) => {
            assert_eq!((service, one), (other_service, other));
        }
        (Record::Device(one), Record::Device(other)) => assert_eq!(one, other),
        pair => panic!("{pair:?}"),
    }
}
