//! Configuration texts.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use fieldgate::config::urgency::UrgencyPolicy;
use fieldgate::config::{self, Announce, Config, ConfigError, Device, PushService};
use fieldgate::limits::{
    CHANNELS_PER_DEVICE_MAX, DEVICE_COUNT_MAX, HOLD_FOR_SLEEP_MAX, LINK_MTU_BYTES_MAX, LINK_MTU_BYTES_MIN,
    SERVICE_NAME_BYTES_MAX, SUBSCRIPTION_COUNT_MAX, UNIX_PATH_BYTES_MAX, UPSTREAM_PLACED_COUNT_MAX,
};
use fieldgate::proto::device::{Isolation, LinkOptions, Options, PendingAcks, Undeliverable};
use fieldgate::webpush::vapid::ApplicationServerKey;

/// A text is a configuration within all bounds, which written out again is read as itself; or what is wrong with it is
/// told line by line.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(text) {
        Ok(config) => {
            check_bounds(&config);
            assert_eq!(Config::parse(&written(&config)), Ok(config));
        }
        Err(errors) => check_errors(text, &errors),
    }
}

fn check_errors(text: &str, errors: &[ConfigError]) {
    assert!(!errors.is_empty());
    assert!(errors.is_sorted_by_key(|error| error.line));
    let line_count = 1 + text.matches('\n').count();
    for error in errors {
        assert!((1..=line_count).contains(&error.line), "{error:?}");
        assert!((1..=line_count).contains(&config::line_of(text, &error.key)), "{error:?}");
        let told = error.to_string();
        assert!(told.starts_with(&format!("{}: ", error.line)));
        assert!(!told.chars().any(char::is_control), "an error is one line of a log: {told:?}");
    }
}

fn check_bounds(config: &Config) {
    assert!(config.state.is_absolute() && config.control.is_absolute());
    assert!(config.control.as_os_str().len() <= UNIX_PATH_BYTES_MAX);
    for PushService { name, url, ca_file, crl_file, credential_file } in config.push_services() {
        assert!(name.as_ref().is_none_or(|name| (1..=SERVICE_NAME_BYTES_MAX).contains(&name.len())));
        assert!([ca_file, crl_file, credential_file].into_iter().flatten().all(|path| path.is_absolute()));
        assert_eq!(url.scheme_str(), Some("https"));
        assert!(url.host().is_some_and(|host| !host.is_empty()) && !url.to_string().contains(['@', '#']));
    }
    let apart = config.devices.iter().filter(|device| device.options.isolated == Isolation::Connection);
    assert!(config.push_services().count() + apart.count() <= UPSTREAM_PLACED_COUNT_MAX);
    let names: Vec<_> = config.push_services().filter_map(|service| service.name.as_ref()).collect();
    assert!(config.more_push_services.is_empty() || names.len() == config.push_services().count());
    let asked = config.devices.iter().filter_map(|device| device.options.push_service.as_ref());
    assert!(asked.clone().all(|name| names.contains(&name)));

    assert!(config.devices.len() <= DEVICE_COUNT_MAX);
    let channel_count: usize = config.devices.iter().map(|device| device.channels.len()).sum();
    assert!(channel_count <= SUBSCRIPTION_COUNT_MAX);
    let ids: BTreeSet<_> = config.devices.iter().map(|device| &device.id).collect();
    let places: BTreeSet<_> = config.devices.iter().map(|device| config::link_place(&device.link)).collect();
    assert_eq!((ids.len(), places.len()), (config.devices.len(), config.devices.len()));
    for device in &config.devices {
        let channels: BTreeSet<_> = device.channels.iter().filter(|channel| channel.is_valid()).collect();
        assert_eq!(channels.len(), device.channels.len());
        assert!((1..=CHANNELS_PER_DEVICE_MAX).contains(&channels.len()));
        assert!((LINK_MTU_BYTES_MIN..=LINK_MTU_BYTES_MAX).contains(&device.mtu.into()));
        let LinkOptions { hold_for_sleep, urgent_channels } = &device.options.link;
        assert!(*hold_for_sleep <= HOLD_FOR_SLEEP_MAX);
        let urgent: BTreeSet<_> = urgent_channels.iter().filter(|channel| channel.is_valid()).collect();
        assert!(urgent.len() == urgent_channels.len() && urgent.len() <= CHANNELS_PER_DEVICE_MAX);
        let (link, channels, options) = (device.link.to_string(), device.channels.clone(), device.options.clone());
        let named = config::device(device.id.as_str(), &link, channels, device.mtu, options);
        assert_eq!(named.as_ref(), Ok(device), "the same on the command line");
    }
}

/// Takes everything apart, so that a new setting cannot be forgotten here.
fn written(config: &Config) -> String {
    let Config { state, control, flash_bytes_per_day, push_service: _, more_push_services, announce, urgency, devices } =
        config;
    let mut text = format!(
        "state = {}\ncontrol = {}\nflash_bytes_per_day = {flash_bytes_per_day}\n",
        quoted(state),
        quoted(control)
    );
    for PushService { name, url, ca_file, crl_file, credential_file } in config.push_services() {
        text += if more_push_services.is_empty() { "[push_service]\n" } else { "[[push_service]]\n" };
        writeln!(text, "url = {}", quoted(url.to_string())).expect("text grows");
        let name = name.as_ref().map(PathBuf::from);
        for (key, value) in
            [("name", &name), ("ca_file", ca_file), ("crl_file", crl_file), ("credential_file", credential_file)]
        {
            if let Some(value) = value {
                writeln!(text, "{key} = {}", quoted(value)).expect("text grows");
            }
        }
    }
    let paths = match announce {
        None => vec![],
        Some(Announce::Folder(folder)) => {
            write!(text, "[announce]\nfolder = {}\n", quoted(folder)).expect("text grows");
            vec![]
        }
        Some(Announce::Post { url, ca_file, credential_file }) => {
            write!(text, "[announce]\nurl = {}\n", quoted(url.to_string())).expect("text grows");
            vec![("ca_file", ca_file), ("credential_file", credential_file)]
        }
    };
    for (key, path) in paths {
        if let Some(path) = path {
            writeln!(text, "{key} = {}", quoted(path)).expect("text grows");
        }
    }
    let UrgencyPolicy { mains, battery, low_battery, metered, low_battery_percent, metered_interfaces } = urgency;
    let interfaces: Vec<String> = metered_interfaces.iter().map(quoted).collect();
    write!(
        text,
        "[urgency]\nmains = \"{mains}\"\nbattery = \"{battery}\"\nlow_battery = \"{low_battery}\"\nmetered = \"{metered}\"\n\
         low_battery_percent = {low_battery_percent}\nmetered_interfaces = [{}]\n",
        interfaces.join(", ")
    )
    .expect("text grows");
    for Device { id, link, channels, mtu, options } in devices {
        let channels: Vec<u16> = channels.iter().map(|channel| channel.0).collect();
        let (id, link) = (quoted(id.as_str()), quoted(link.to_string()));
        write!(text, "[[device]]\nid = {id}\nlink = {link}\nchannels = {channels:?}\nmtu = {mtu}\n").expect("it grows");
        let Options {
            push_service,
            isolated,
            application_server_key,
            pending_acks,
            flood_per_minute,
            undeliverable,
            link: LinkOptions { hold_for_sleep, urgent_channels },
        } = options;
        let urgent: Vec<u16> = urgent_channels.iter().map(|channel| channel.0).collect();
        write!(text, "hold_for_sleep = {hold_for_sleep}\nurgent_channels = {urgent:?}\n").expect("text grows");
        if let Some(limit) = flood_per_minute {
            writeln!(text, "flood_per_minute = {limit}").expect("text grows");
        }
        let undeliverable = (*undeliverable == Undeliverable::Acknowledge).then_some("acknowledge");
        let isolated = match isolated {
            Isolation::None => None,
            Isolation::Set => Some("set"),
            Isolation::Connection => Some("connection"),
        };
        let pending_acks = (*pending_acks == PendingAcks::Flash).then_some("flash");
        let key = application_server_key.as_ref().map(ApplicationServerKey::as_str);
        for (name, value) in [
            ("push_service", push_service.as_deref()),
            ("isolated", isolated),
            ("application_server_key", key),
            ("pending_acks", pending_acks),
            ("undeliverable", undeliverable),
        ] {
            if let Some(value) = value {
                writeln!(text, "{name} = {}", quoted(value)).expect("text grows");
            }
        }
    }
    text
}

/// A text in quotes, as TOML has it.
fn quoted(path: impl AsRef<Path>) -> String {
    let text = path.as_ref().to_str().expect("it came from text");
    let escaped = text.chars().map(|character| match character {
        '"' | '\\' => format!("\\{character}"),
        control if control.is_control() => format!("\\u{:04x}", u32::from(control)),
        other => other.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}
