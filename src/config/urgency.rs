//! Which messages are wanted in which circumstances.
//!
//! Source: RFC 8030 §5.3 (each level names the circumstances in which a user agent wants it).

use crate::webpush::headers::Urgency;

/// The least urgency of messages that are wanted, by power and network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrgencyPolicy {
    /// On mains, on an unmetered network.
    pub mains: Urgency,
    /// On battery.
    pub battery: Urgency,
    /// On a battery that is low.
    pub low_battery: Urgency,
    /// On a network whose octets cost.
    pub metered: Urgency,
    /// The percentage at which a battery is low.
    pub low_battery_percent: u8,
    /// What the names of interfaces begin with whose octets cost.
    pub metered_interfaces: Vec<String>,
}

/// Where the board's power comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Power {
    /// From outside, or nothing is known of a battery.
    Mains,
    /// From a battery.
    Battery,
    /// From one that is low.
    LowBattery,
}

impl Power {
    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mains => "mains",
            Self::Battery => "battery",
            Self::LowBattery => "low battery",
        }
    }
}

impl Default for UrgencyPolicy {
    fn default() -> Self {
        Self {
            mains: Urgency::VeryLow,
            battery: Urgency::Low,
            low_battery: Urgency::High,
            metered: Urgency::Low,
            low_battery_percent: 20,
            metered_interfaces: ["wwan", "ppp"].map(str::to_owned).to_vec(),
        }
    }
}

impl UrgencyPolicy {
    /// The least urgency that is wanted: on a metered network no less than there, whatever the power.
    pub fn level(&self, power: Power, is_metered: bool) -> Urgency {
        let level = match power {
            Power::Mains => self.mains,
            Power::Battery => self.battery,
            Power::LowBattery => self.low_battery,
        };
        if is_metered { level.max(self.metered) } else { level }
    }

    /// Whether the octets of an interface cost.
    pub fn is_metered(&self, interface: &str) -> bool {
        self.metered_interfaces.iter().any(|start| interface.starts_with(start.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A-UA-14: a low battery wants what is urgent alone; mains and a free network want everything.
    #[test]
    fn the_scarcer_of_power_and_network_counts() {
        let policy = UrgencyPolicy::default();
        let level = |power, is_metered| policy.level(power, is_metered);
        assert_eq!(level(Power::Mains, false), Urgency::VeryLow);
        assert_eq!(level(Power::Mains, true), Urgency::Low);
        assert_eq!((level(Power::Battery, false), level(Power::Battery, true)), (Urgency::Low, Urgency::Low));
        assert_eq!((level(Power::LowBattery, false), level(Power::LowBattery, true)), (Urgency::High, Urgency::High));
        assert!(policy.is_metered("wwan0") && policy.is_metered("ppp1") && !policy.is_metered("eth0"));
    }
}
