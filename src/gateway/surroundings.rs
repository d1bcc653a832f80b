//! What the kernel says of power and network, read from its files.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config::urgency::{Power, UrgencyPolicy};

/// Octets of a file of the kernel that are read at most.
const FILE_BYTES_MAX: usize = 64 * 1024;
/// Power supplies that are looked at.
const SUPPLY_COUNT_MAX: usize = 16;
/// A route that is in use.
const ROUTE_UP: u32 = 1;

/// Where the kernel says it.
#[derive(Clone, Debug)]
pub struct Surroundings {
    supplies: PathBuf,
    routes: PathBuf,
    routes_6: PathBuf,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            supplies: "/sys/class/power_supply".into(),
            routes: "/proc/net/route".into(),
            routes_6: "/proc/net/ipv6_route".into(),
        }
    }
}

impl Surroundings {
    /// Where the power comes from now. A board that says nothing of it is on mains.
    pub fn power(&self, low_percent: u8) -> Power {
        let Ok(entries) = fs::read_dir(&self.supplies) else { return Power::Mains };
        let supplies = entries.flatten().take(SUPPLY_COUNT_MAX).filter_map(|entry| supply(&entry.path(), low_percent));
        let (outside, batteries): (Vec<Power>, Vec<Power>) = supplies.partition(|supply| *supply == Power::Mains);
        if outside.is_empty() { batteries.into_iter().min().unwrap_or(Power::Mains) } else { Power::Mains }
    }

    /// Whether the network in use is one whose octets cost.
    pub fn is_metered(&self, policy: &UrgencyPolicy) -> bool {
        let interface = default_interface(&read(&self.routes), &read(&self.routes_6));
        interface.is_some_and(|interface| policy.is_metered(&interface))
    }
}

/// What one supply means; nothing when it gives none to the board.
///
/// Source: Documentation/ABI/testing/sysfs-class-power of the Linux kernel.
fn supply(folder: &Path, low_percent: u8) -> Option<Power> {
    let word = |name: &str| read(&folder.join(name)).trim().to_owned();
    // The battery of a mouse or of a sensor is not ours.
    if word("scope") == "Device" {
        return None;
    }
    match word("type").as_str() {
        "Battery" if word("present") == "0" => None,
        "Battery" if matches!(word("status").as_str(), "Charging" | "Full") => Some(Power::Mains),
        "Battery" => {
            let is_low = match word("capacity").parse::<u8>() {
                Ok(percent) => percent <= low_percent,
                Err(_) => matches!(word("capacity_level").as_str(), "Critical" | "Low"),
            };
            Some(if is_low { Power::LowBattery } else { Power::Battery })
        }
        // A supply that does not say whether it is plugged in has nothing to say.
        _ => (word("online") == "1").then_some(Power::Mains),
    }
}

/// The interface of the default route that is preferred.
///
/// Layout of both: proc_net(5); a column for each field, numbers in hexadecimal but for the metric of IPv4.
fn default_interface(routes: &str, routes_6: &str) -> Option<String> {
    let four = routes.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [interface, "00000000", _, flags, _, _, metric, "00000000", ..] = fields[..] else { return None };
        let is_up = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & ROUTE_UP != 0);
        is_up.then_some((metric.parse().ok()?, interface))
    });
    let six = routes_6.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [destination, "00", _, _, _, metric, _, _, flags, interface] = fields[..] else { return None };
        let is_default = destination.bytes().all(|digit| digit == b'0') && interface != "lo";
        let is_up = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & ROUTE_UP != 0);
        (is_default && is_up).then_some((u32::from_str_radix(metric, 16).ok()?, interface))
    });
    let best = four.min().or_else(|| six.min());
    best.map(|(_, interface): (u32, &str)| interface.to_owned())
}

/// A file of the kernel; empty when it is not there.
fn read(path: &Path) -> String {
    let mut octets = fs::read(path).unwrap_or_default();
    octets.truncate(FILE_BYTES_MAX);
    String::from_utf8_lossy(&octets).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A-UA-14: the power of a board is what its supplies say, the scarcest of them never counting while another feeds it.
    #[test]
    fn power_is_read_from_the_supplies() {
        let battery = |status, capacity| vec![("type", "Battery"), ("status", status), ("capacity", capacity)];
        let mains = |online| vec![("type", "Mains"), ("online", online)];
        let usb = |online| vec![("type", "USB"), ("online", online)];
        for (supplies, expected) in [
            (vec![], Power::Mains),
            (vec![mains("1")], Power::Mains),
            (vec![mains("0"), battery("Discharging", "21")], Power::Battery),
            (vec![mains("0"), battery("Discharging", "20")], Power::LowBattery),
            (vec![usb("1"), battery("Not charging", "5")], Power::Mains),
            (vec![battery("Charging", "5")], Power::Mains),
            (vec![battery("Discharging", "5"), battery("Discharging", "80")], Power::Battery),
            (vec![battery("Discharging", "much")], Power::Battery),
            (vec![vec![("type", "Battery"), ("capacity_level", "Critical")]], Power::LowBattery),
            (vec![vec![("type", "Battery"), ("scope", "Device"), ("capacity", "1")]], Power::Mains),
            (vec![vec![("type", "Battery"), ("present", "0"), ("capacity", "0")]], Power::Mains),
            (vec![vec![("type", "\u{0}")]], Power::Mains),
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            for (number, supply) in supplies.iter().enumerate() {
                let place = folder.path().join(number.to_string());
                fs::create_dir(&place).expect("made");
                supply
                    .iter()
                    .for_each(|(name, value)| fs::write(place.join(name), format!("{value}\n")).expect("written"));
            }
            let surroundings = Surroundings { supplies: folder.path().into(), ..Surroundings::default() };
            assert_eq!(surroundings.power(20), expected, "{supplies:?}");
        }
        let nowhere = Surroundings { supplies: "/nonexistent".into(), ..Surroundings::default() };
        assert_eq!(nowhere.power(20), Power::Mains);
    }

    #[test]
    fn the_preferred_default_route_names_the_interface() {
        const HEAD: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let four = |interface: &str, flags: u32, metric: u32| {
            format!("{interface}\t00000000\t0101A8C0\t{flags:04X}\t0\t0\t{metric}\t00000000\t0\t0\t0\n")
        };
        let zeros = "0".repeat(32);
        let six = |interface: &str, metric: u32| {
            format!("{zeros} 00 {zeros} 00 {zeros} {metric:08x} 00000001 00000000 00000003 {interface}\n")
        };
        let local = "eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let find = |four: &[String], six: &[String]| {
            default_interface(&format!("{HEAD}{local}{}", four.concat()), &six.concat())
        };
        assert_eq!(find(&[], &[]), None);
        assert_eq!(find(&[four("wwan0", 3, 700), four("eth0", 3, 100)], &[]).as_deref(), Some("eth0"));
        assert_eq!(find(&[four("wwan0", 3, 700), four("eth0", 2, 100)], &[]).as_deref(), Some("wwan0"), "it is down");
        assert_eq!(find(&[], &[six("lo", 1), six("ppp0", 1024)]).as_deref(), Some("ppp0"));
        assert_eq!(find(&[four("eth0", 3, 9)], &[six("ppp0", 1)]).as_deref(), Some("eth0"));
        assert_eq!(default_interface("garbage\n\0\u{ff}", "00 00"), None);
    }
}
