//! What a running gateway has to do when its configuration is another one.
//!
//! A reload gives what a restart would give, without the restart: devices that did not change do not notice. What a
//! running gateway cannot change is named.

use std::fmt;

use super::{Config, Device, PushService, link_place};
use crate::limits::DEVICE_COUNT_MAX;
use crate::wire::{ChannelId, DeviceId};

/// The way from one configuration to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Devices that are served no longer: their subscriptions end.
    pub removed: Vec<DeviceId>,
    /// Devices that are served from now on.
    pub added: Vec<Device>,
    /// Devices that stay and of which something is different.
    pub changed: Vec<Changed>,
    /// Settings that are different and count after a restart only.
    pub needs_restart: Vec<&'static str>,
}

/// What is different of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// As it is to be.
    pub device: Device,
    /// Whether its link is to be closed and opened anew.
    pub relink: bool,
    /// Channels it has no longer: their subscriptions end.
    pub dropped: Vec<ChannelId>,
}

/// Why a configuration cannot be taken up although nothing is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// A device that was added by command is on the link of a device of the configuration.
    LinkTaken {
        /// The device of the configuration.
        device: DeviceId,
        /// The one that was added.
        by: DeviceId,
    },
    /// With the devices that were added by command there would be too many.
    TooMany,
}

impl Changes {
    /// Finds the way from the configuration that is in effect to another; `added` are the devices that were added by
    /// command. One of them that the new configuration has as well belongs to the configuration from then on.
    ///
    /// # Errors
    /// [`Conflict`] with what was added by command; a person has to decide.
    pub fn between(running: &Config, new: &Config, added: &[Device]) -> Result<Self, Conflict> {
        let stay: Vec<&Device> = added.iter().filter(|device| find(&new.devices, &device.id).is_none()).collect();
        check_conflicts(new, &stay)?;
        let mut changes = Self { needs_restart: needs_restart(running, new), ..Self::default() };
        let gone = running.devices.iter().filter(|device| find(&new.devices, &device.id).is_none());
        changes.removed = gone.map(|device| device.id.clone()).collect();
        for device in &new.devices {
            match find(&running.devices, &device.id).or_else(|| find(added, &device.id)) {
                None => changes.added.push(device.clone()),
                Some(old) => changes.changed.extend(changed(old, device)),
            }
        }
        Ok(changes)
    }
}

fn find<'d>(devices: &'d [Device], id: &DeviceId) -> Option<&'d Device> {
    devices.iter().find(|device| device.id == *id)
}

fn changed(old: &Device, new: &Device) -> Option<Changed> {
    let relink = (&old.link, old.mtu) != (&new.link, new.mtu);
    let dropped = old.channels.iter().filter(|channel| !new.channels.contains(channel)).copied().collect();
    (old != new).then(|| Changed { device: new.clone(), relink, dropped })
}

fn needs_restart(running: &Config, new: &Config) -> Vec<&'static str> {
    // Taken apart, so that a setting that is added later cannot be forgotten here.
    let Config {
        state,
        control,
        push_service,
        more_push_services,
        announce,
        flash_bytes_per_day: _,
        urgency: _,
        devices: _,
    } = new;
    let PushService { name, url, ca_file, crl_file, credential_file } = push_service;
    let settings = [
        ("state", *state != running.state),
        ("control", *control != running.control),
        ("push_service.name", *name != running.push_service.name),
        ("push_service.url", *url != running.push_service.url),
        ("push_service.ca_file", *ca_file != running.push_service.ca_file),
        ("push_service.crl_file", *crl_file != running.push_service.crl_file),
        ("push_service.credential_file", *credential_file != running.push_service.credential_file),
        ("announce", *announce != running.announce),
        ("push_service[1]", *more_push_services != running.more_push_services),
    ];
    settings.iter().filter(|(_, differs)| *differs).map(|&(key, _)| key).collect()
}

fn check_conflicts(new: &Config, added: &[&Device]) -> Result<(), Conflict> {
    for device in &new.devices {
        let place = link_place(&device.link);
        if let Some(other) = added.iter().find(|other| link_place(&other.link) == place) {
            return Err(Conflict::LinkTaken { device: device.id.clone(), by: other.id.clone() });
        }
    }
    if new.devices.len() + added.len() > DEVICE_COUNT_MAX { Err(Conflict::TooMany) } else { Ok(()) }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LinkTaken { device, by } => write!(
                f,
                "{by}, which was added by command, is on the link of {device}; run: fieldgate device remove {by}"
            ),
            Self::TooMany => write!(
                f,
                "with the devices that were added by command there are more than {DEVICE_COUNT_MAX}; remove some first"
            ),
        }
    }
}

impl std::error::Error for Conflict {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Announce;
    use crate::config::MTU_DEFAULT;
    use crate::config::urgency::UrgencyPolicy;
    use crate::limits::FLASH_BYTES_PER_DAY;
    use crate::proto::device::Options;

    #[test]
    fn the_same_configuration_changes_nothing() {
        let config = config(&[device("a", "tcp:127.0.0.1:1", &[1])]);
        assert_eq!(Changes::between(&config, &config, &[]), Ok(Changes::default()));
    }

    #[test]
    fn devices_come_go_and_change_and_the_rest_is_left_alone() {
        let same = device("same", "tcp:127.0.0.1:1", &[1]);
        let gone = device("gone", "tcp:127.0.0.1:2", &[1]);
        let moved = device("moved", "serial:/dev/a?baud=9600", &[1]);
        let old = config(&[same.clone(), gone.clone(), moved.clone(), device("channels", "tcp:127.0.0.1:3", &[1, 2])]);
        let faster = device("moved", "serial:/dev/a?baud=115200", &[1]);
        let channels = device("channels", "tcp:127.0.0.1:3", &[2, 3]);
        // The link of a device that goes is free for one that comes.
        let fresh = device("fresh", "tcp:127.0.0.1:2", &[1]);
        let new = config(&[fresh.clone(), channels.clone(), faster.clone(), same]);
        let expected = Changes {
            removed: vec![gone.id],
            added: vec![fresh],
            changed: vec![
                Changed { device: channels, relink: false, dropped: vec![ChannelId(1)] },
                Changed { device: faster, relink: true, dropped: vec![] },
            ],
            needs_restart: vec![],
        };
        assert_eq!(Changes::between(&old, &new, &[]), Ok(expected));
        let mut wider = moved.clone();
        wider.mtu += 1;
        let changes = Changes::between(&config(&[moved]), &config(&[wider.clone()]), &[]).expect("no conflict");
        assert_eq!(changes.changed, [Changed { device: wider, relink: true, dropped: vec![] }]);
    }

    #[test]
    fn what_only_a_restart_changes_is_named() {
        let old = config(&[]);
        let new = Config {
            state: "/other".into(),
            control: "/other/control.sock".into(),
            push_service: PushService {
                name: Some("other".into()),
                url: "https://other.example/".parse().expect("a URL"),
                ca_file: Some("/ca".into()),
                crl_file: Some("/crl".into()),
                credential_file: Some("/token".into()),
            },
            more_push_services: vec![push_service()],
            announce: Some(Announce::Folder("/f".into())),
            flash_bytes_per_day: FLASH_BYTES_PER_DAY,
            urgency: UrgencyPolicy::default(),
            devices: vec![],
        };
        let changes = Changes::between(&old, &new, &[]).expect("no conflict");
        let expected = [
            "state",
            "control",
            "push_service.name",
            "push_service.url",
            "push_service.ca_file",
            "push_service.crl_file",
            "push_service.credential_file",
            "announce",
            "push_service[1]",
        ];
        assert_eq!(changes.needs_restart, expected);
        assert_eq!(Changes { needs_restart: vec![], ..changes }, Changes::default());
    }

    #[test]
    fn what_was_added_by_command_stays_or_is_taken_over() {
        let added = device("added", "tcp:127.0.0.1:1", &[1]);
        let old = config(&[]);
        let other = device("other", "tcp:127.0.0.1:2", &[1]);
        let changes = Changes::between(&old, &config(&[other.clone()]), &[added.clone()]).expect("no conflict");
        assert_eq!(changes, Changes { added: vec![other], ..Changes::default() });
        let changes = Changes::between(&old, &config(&[added.clone()]), &[added.clone()]);
        assert_eq!(changes, Ok(Changes::default()));
        let moved = device("added", "tcp:127.0.0.1:2", &[1]);
        let changes = Changes::between(&old, &config(&[moved.clone()]), &[added]).expect("no conflict");
        assert_eq!(changes.changed, [Changed { device: moved, relink: true, dropped: vec![] }]);
    }

    #[test]
    fn conflicts_with_what_was_added_by_command_are_for_a_person() {
        let old = config(&[]);
        let added = device("added", "serial:/dev/a?baud=9600", &[1]);
        let configured = device("b", "serial:/dev/a?baud=115200", &[1]);
        let conflict = Changes::between(&old, &config(&[configured.clone()]), &[added.clone()]).expect_err("taken");
        assert_eq!(conflict, Conflict::LinkTaken { device: configured.id, by: added.id.clone() });
        assert!(conflict.to_string().contains("fieldgate device remove added"));
        let many = |count: usize| -> Vec<Device> {
            (0..count)
                .map(|index| device(&format!("d{index}"), &format!("tcp:127.0.0.1:{}", 1 + index), &[1]))
                .collect()
        };
        let full = config(&many(DEVICE_COUNT_MAX - 1));
        assert!(Changes::between(&old, &full, &[added.clone()]).is_ok());
        let overfull = config(&many(DEVICE_COUNT_MAX));
        assert_eq!(Changes::between(&old, &overfull, &[added]), Err(Conflict::TooMany));
    }

    fn device(id: &str, link: &str, channels: &[u16]) -> Device {
        let channels = channels.iter().copied().map(ChannelId).collect();
        crate::config::device(id, link, channels, MTU_DEFAULT, Options::default()).expect("a device")
    }

    fn config(devices: &[Device]) -> Config {
        Config {
            state: "/state".into(),
            control: "/state/control.sock".into(),
            push_service: push_service(),
            more_push_services: vec![],
            announce: None,
            flash_bytes_per_day: FLASH_BYTES_PER_DAY,
            urgency: UrgencyPolicy::default(),
            devices: devices.to_vec(),
        }
    }

    fn push_service() -> PushService {
        let url = "https://push.example.net/subscribe".parse().expect("a URL");
        PushService { name: None, url, ca_file: None, crl_file: None, credential_file: None }
    }
}
