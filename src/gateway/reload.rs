//! Taking up another configuration while running.

use tracing::{info, warn};

use super::{Origin, Shell};
use crate::config::change::{Changed, Changes};
use crate::config::{Config, Device};
use crate::proto::Input;

/// What became of the last configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reloaded {
    /// Why it was not taken up: the one before is in effect.
    pub problem: Option<String>,
    /// Its settings that count after a restart only.
    pub needs_restart: Vec<&'static str>,
}

impl Reloaded {
    /// What a person should know of it, in a line.
    pub fn note(&self) -> Option<String> {
        let restart = || format!("needs a restart: {}", self.needs_restart.join(", "));
        match &self.problem {
            Some(problem) => Some(format!("not reloaded: {problem}")),
            None => (!self.needs_restart.is_empty()).then(restart),
        }
    }
}

impl Shell {
    /// Takes up a configuration, or stays with the one in effect.
    pub(super) fn reload(&mut self, config: Result<Config, String>) {
        let taken_up = config.and_then(|config| {
            let added: Vec<Device> = self.added().cloned().collect();
            let changes = Changes::between(&self.config, &config, &added).map_err(|conflict| conflict.to_string())?;
            Ok((config, changes))
        });
        match taken_up {
            Ok((config, changes)) => {
                info!(
                    added = changes.added.len(),
                    changed = changes.changed.len(),
                    removed = changes.removed.len(),
                    "configuration reloaded"
                );
                self.reloaded = Reloaded { problem: None, needs_restart: changes.needs_restart.clone() };
                self.config.devices = config.devices;
                self.config.urgency = config.urgency;
                self.config.flash_bytes_per_day = config.flash_bytes_per_day;
                self.look();
                self.apply(changes);
            }
            Err(problem) => self.reloaded.problem = Some(problem),
        }
        if let Some(note) = self.reloaded.note() {
            warn!("configuration {note}");
        }
    }

    fn added(&self) -> impl Iterator<Item = &Device> {
        self.devices.values().filter(|known| known.origin != Origin::Configured).map(|known| &known.device)
    }

    /// First everything that closes a link, then everything that opens one: devices may have changed places.
    fn apply(&mut self, changes: Changes) {
        for id in &changes.removed {
            self.forget(id);
        }
        for Changed { device, .. } in changes.changed.iter().filter(|changed| changed.relink) {
            self.downstream.detach(&device.id);
            if let Some(session) = self.devices.get_mut(&device.id).and_then(|known| known.session.take()) {
                self.feed(Input::DeviceDown { device: device.id.clone(), session });
            }
        }
        for Changed { device, relink, dropped } in changes.changed {
            for channel in dropped {
                self.feed(Input::Unsubscribe { device: device.id.clone(), channel });
            }
            self.update(device, relink);
        }
        for device in changes.added {
            self.take_up(device, Origin::Configured);
        }
        self.take_over();
    }

    /// A device that was added by command and is in the configuration as well belongs to the configuration.
    fn take_over(&mut self) {
        for device in &self.config.devices {
            if let Some(known) = self.devices.get_mut(&device.id) {
                known.origin = Origin::Configured;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_told_what_was_not_taken_up() {
        assert_eq!(Reloaded::default().note(), None);
        let restart = Reloaded { problem: None, needs_restart: vec!["state", "control"] };
        assert_eq!(restart.note().as_deref(), Some("needs a restart: state, control"));
        let refused = Reloaded { problem: Some("no such file".to_owned()), ..restart };
        assert_eq!(refused.note().as_deref(), Some("not reloaded: no such file"));
    }
}
