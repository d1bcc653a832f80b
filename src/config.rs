//! The configuration: TOML text in, settings out whose values are already within bounds.
//!
//! All of it is checked before anything starts, and all that is wrong is said at once. It is text to values only: whether
//! a file exists or a port is there, `fieldgate check` finds out.
//!
//! ```toml
//! state = "/var/lib/fieldgate"
//! control = "/run/fieldgate/control.sock"     # default: control.sock in the state folder
//! flash_bytes_per_day = 1048576               # default: 1 MiB
//!
//! [push_service]
//! name = "home"                               # default: none, as long as there is one service
//! url = "https://push.example.net/subscribe"
//! ca_file = "/etc/fieldgate/ca.pem"           # default: the roots of the system
//! crl_file = "/etc/fieldgate/crl.pem"         # default: none
//! credential_file = "/etc/fieldgate/token"    # default: none
//!
//! [announce]                                  # default: nobody is told
//! url = "https://app.example.net/devices"     # or folder = "/var/lib/fieldgate-app"
//! ca_file = "/etc/fieldgate/app-ca.pem"       # default: the roots of the system
//! credential_file = "/etc/fieldgate/app-token" # default: none
//!
//! [urgency]                                   # the least that is wanted; these are the defaults
//! mains = "very-low"
//! battery = "low"
//! low_battery = "high"
//! metered = "low"
//! low_battery_percent = 20
//! metered_interfaces = ["wwan", "ppp"]
//!
//! [[device]]
//! id = "meter-7"
//! link = "serial:/dev/ttyUSB0?baud=115200"
//! channels = [1]                              # default: [1]
//! mtu = 256                                   # default: 256 octets
//! push_service = "home"                       # default: the first one
//! isolated = "set"                            # or "connection"; default: not
//! # default: whoever has the push URI may send
//! application_server_key = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs"
//! pending_acks = "auto"                       # or "flash"
//! flood_per_minute = 600                      # default: no limit
//! undeliverable = "keep"                      # or "acknowledge"
//! hold_for_sleep = 2                          # messages kept while it sleeps; default: 2
//! urgent_channels = [1]                       # whose messages overtake others; default: none
//! ```
//!
//! Several push services are written as `[[push_service]]`, each with a `name`.

pub mod change;
mod error;
mod reader;
#[cfg(feature = "service")]
pub mod service;
pub mod urgency;

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use http::Uri;
use toml::de::{DeTable, DeValue};

pub use error::{ConfigError, InvalidUrl, Problem};
use reader::{Reader, Section};

use self::urgency::UrgencyPolicy;
use crate::limits::{
    CHANNELS_PER_DEVICE_MAX, CONFIG_BYTES_MAX, DEVICE_COUNT_MAX, FLASH_BYTES_PER_DAY, FLASH_BYTES_PER_DAY_MIN,
    FLOOD_PER_MINUTE_MAX, HOLD_FOR_SLEEP_DEFAULT, HOLD_FOR_SLEEP_MAX, INTERFACE_NAME_BYTES_MAX, LINK_MTU_BYTES_MAX,
    LINK_MTU_BYTES_MIN, LINK_PATH_BYTES_MAX, METERED_INTERFACE_COUNT_MAX, SERVICE_NAME_BYTES_MAX,
    SUBSCRIPTION_COUNT_MAX, UNIX_PATH_BYTES_MAX, UPSTREAM_PLACED_COUNT_MAX, URI_BYTES_MAX,
};
use crate::proto::device::{Isolation, LinkOptions, Options, PendingAcks, Undeliverable};
use crate::transport::endpoint::LinkEndpoint;
use crate::wire::{ChannelId, DeviceId};

/// Octets of a frame on a link that names no other size.
pub const MTU_DEFAULT: u16 = 256;
/// The channel of a device that names none.
pub const CHANNEL_DEFAULT: ChannelId = ChannelId(1);
/// The control socket inside the state folder, when no other is named.
pub const CONTROL_FILE: &str = "control.sock";

const ROOT_KEYS: &[&str] =
    &["state", "control", "flash_bytes_per_day", "push_service", "announce", "urgency", "device"];
const ANNOUNCE_KEYS: &[&str] = &["url", "ca_file", "credential_file", "folder"];
const URGENCY_KEYS: &[&str] =
    &["mains", "battery", "low_battery", "metered", "low_battery_percent", "metered_interfaces"];
const PUSH_SERVICE_KEYS: &[&str] = &["name", "url", "ca_file", "crl_file", "credential_file"];
const DEVICE_KEYS: &[&str] = &[
    "id",
    "link",
    "channels",
    "mtu",
    "push_service",
    "isolated",
    "application_server_key",
    "pending_acks",
    "flood_per_minute",
    "undeliverable",
    "hold_for_sleep",
    "urgent_channels",
];

/// What a gateway is told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The folder that holds what outlives power; absolute.
    pub state: PathBuf,
    /// The socket on which commands reach a running gateway; absolute.
    pub control: PathBuf,
    /// Octets that may be written to flash in a day before a person is told.
    pub flash_bytes_per_day: u32,
    /// Where subscriptions are made.
    pub push_service: PushService,
    /// Further ones, for devices that name them: each has a name, and with the first one and the devices that want a
    /// connection of their own they are [`UPSTREAM_PLACED_COUNT_MAX`] at most.
    pub more_push_services: Vec<PushService>,
    /// Where application servers hear of subscriptions, if anywhere.
    pub announce: Option<Announce>,
    /// Which messages are wanted in which circumstances.
    pub urgency: UrgencyPolicy,
    /// The devices, in the order of the text: unique ids, unique links, [`DEVICE_COUNT_MAX`] at most.
    pub devices: Vec<Device>,
}

/// Where subscriptions are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushService {
    /// What devices call it; the first one may have none.
    pub name: Option<String>,
    /// The subscribe resource: `https`, with a host, without credentials or fragment.
    ///
    /// Source: RFC 8030 §2 (how it is found is out of scope), §3 (only HTTP over TLS).
    pub url: Uri,
    /// Roots to verify it with, instead of those of the system; absolute.
    pub ca_file: Option<PathBuf>,
    /// Lists of certificates that are not to be trusted any more; absolute.
    ///
    /// Source: RFC 9325 §7.5.
    pub crl_file: Option<PathBuf>,
    /// The file with a bearer token that lets the gateway subscribe; absolute.
    pub credential_file: Option<PathBuf>,
}

/// Where application servers hear of subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announce {
    /// By a POST.
    Post {
        /// Where: `https`, with a host, without credentials or fragment.
        ///
        /// Source: RFC 8030 §4 (confidential, to who it is for).
        url: Uri,
        /// Roots to verify it with, instead of those of the system; absolute.
        ca_file: Option<PathBuf>,
        /// The file with a bearer token that it wants to see; absolute.
        credential_file: Option<PathBuf>,
    },
    /// In a file for each device in this folder; absolute.
    Folder(PathBuf),
}

/// A device and the link to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub id: DeviceId,
    /// Where it is plugged in.
    pub link: LinkEndpoint,
    /// Its channels, each a subscription: at least one, none twice, [`CHANNELS_PER_DEVICE_MAX`] at most.
    pub channels: Vec<ChannelId>,
    /// The largest frame its link carries, framing included.
    ///
    /// Units: octets, [`LINK_MTU_BYTES_MIN`] to [`LINK_MTU_BYTES_MAX`].
    pub mtu: u16,
    /// What it wants of its subscriptions.
    pub options: Options,
}

impl Config {
    /// All push services, the first one first.
    pub fn push_services(&self) -> impl Iterator<Item = &PushService> {
        std::iter::once(&self.push_service).chain(&self.more_push_services)
    }

    /// How errors name a setting of a push service.
    pub fn push_service_key(&self, index: usize, key: &str) -> String {
        if self.more_push_services.is_empty() {
            format!("push_service.{key}")
        } else {
            format!("push_service[{index}].{key}")
        }
    }

    /// Reads a configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the text. A text that is no TOML has only those errors.
    pub fn parse(text: &str) -> Result<Self, Vec<ConfigError>> {
        parse_with(text, read_root)
    }
}

/// Reads a text; what is read counts if there is no error.
fn parse_with<T>(text: &str, read: impl FnOnce(&mut Reader, &Section) -> Option<T>) -> Result<T, Vec<ConfigError>> {
    let mut reader = Reader::new(text);
    if text.len() > CONFIG_BYTES_MAX {
        reader.refuse(0, String::new(), Problem::TooLong { bytes_max: CONFIG_BYTES_MAX });
        return Err(reader.errors);
    }
    let (document, syntax_errors) = DeTable::parse_recoverable(text);
    for error in &syntax_errors {
        let at = error.span().map_or(0, |span| span.start);
        reader.refuse(at, String::new(), Problem::Syntax(error.message().to_owned()));
    }
    let root = Section { name: String::new(), table: document.get_ref(), at: 0 };
    let config = if syntax_errors.is_empty() { read(&mut reader, &root) } else { None };
    let mut errors = reader.errors;
    errors.sort_by_key(|error| error.line);
    config.filter(|_| errors.is_empty()).ok_or(errors)
}

/// The line of a setting in a text, as errors name it (`device[0].link`); 1 when it is not there.
pub fn line_of(text: &str, key: &str) -> usize {
    let (document, _) = DeTable::parse_recoverable(text);
    let mut at = 0;
    let mut table = Some(document.get_ref());
    for step in key.split('.') {
        let (name, index) = step.strip_suffix(']').and_then(|step| step.split_once('[')).unwrap_or((step, ""));
        let value = table.and_then(|table| table.get(name));
        let value = match index.parse::<usize>() {
            Ok(index) => value.and_then(|value| value.get_ref().get(index)),
            Err(_) => value,
        };
        at = value.map_or(at, |value| value.span().start);
        table = value.and_then(|value| value.get_ref().as_table());
    }
    Reader::new(text).line(at)
}

fn read_root(reader: &mut Reader, root: &Section) -> Option<Config> {
    reader.check_keys(root, ROOT_KEYS);
    let state = reader.required(root, "state", "state = \"/var/lib/fieldgate\"", absolute_path);
    let control = match reader.optional(root, "control", socket_path) {
        Some(control) => Some(control),
        None => state.as_ref().and_then(|state| default_control(reader, root, state)),
    };
    let flash_bytes_per_day = root
        .value("flash_bytes_per_day")
        .and_then(|value| reader.number(value, "flash_bytes_per_day".to_owned(), FLASH_BYTES_PER_DAY_MIN, u32::MAX))
        .unwrap_or(FLASH_BYTES_PER_DAY);
    let services = read_push_services(reader, root);
    let devices = read_devices(reader, root, control.as_deref(), &services);
    let announce = read_announce(reader, root);
    let urgency = read_urgency(reader, root);
    let mut services = services.into_iter();
    let (state, control, push_service) = (state?, control?, services.next()?);
    let more_push_services = services.collect();
    Some(Config { state, control, flash_bytes_per_day, push_service, more_push_services, announce, urgency, devices })
}

fn default_control(reader: &mut Reader, root: &Section, state: &Path) -> Option<PathBuf> {
    let control = state.join(CONTROL_FILE);
    if control.as_os_str().as_bytes().len() > UNIX_PATH_BYTES_MAX {
        reader.refuse_in(root, "state", Problem::ControlPathTooLong { bytes_max: UNIX_PATH_BYTES_MAX });
        return None;
    }
    Some(control)
}

fn read_announce(reader: &mut Reader, root: &Section) -> Option<Announce> {
    let section = reader.section(root, "announce")?;
    reader.check_keys(&section, ANNOUNCE_KEYS);
    let url = reader.optional(&section, "url", |text| push_service_url(text).map_err(Problem::Url));
    let folder = reader.optional(&section, "folder", absolute_path);
    let ca_file = reader.optional(&section, "ca_file", absolute_path);
    let credential_file = reader.optional(&section, "credential_file", absolute_path);
    let has = |key| section.value(key).is_some();
    match (has("url"), has("folder")) {
        (false, false) => {
            let example = "url = \"https://app.example.net/devices\", or folder = \"/var/lib/fieldgate-app\"";
            reader.refuse_in(&section, "url", Problem::Missing { example });
        }
        (true, true) => reader.refuse_in(&section, "folder", Problem::Either { other: "url" }),
        (false, true) => {
            for key in ["ca_file", "credential_file"].into_iter().filter(|key| has(key)) {
                reader.refuse_in(&section, key, Problem::Either { other: "folder" });
            }
        }
        (true, false) => {}
    }
    match (url, folder) {
        (Some(url), _) => Some(Announce::Post { url, ca_file, credential_file }),
        (None, folder) => folder.map(Announce::Folder),
    }
}

fn read_urgency(reader: &mut Reader, root: &Section) -> UrgencyPolicy {
    let default = UrgencyPolicy::default();
    let Some(section) = reader.section(root, "urgency") else { return default };
    reader.check_keys(&section, URGENCY_KEYS);
    let mut level =
        |key, default| reader.optional(&section, key, |text| text.parse().map_err(Problem::Urgency)).unwrap_or(default);
    let (mains, battery) = (level("mains", default.mains), level("battery", default.battery));
    let (low_battery, metered) = (level("low_battery", default.low_battery), level("metered", default.metered));
    let percent = section
        .value("low_battery_percent")
        .and_then(|value| reader.number(value, format!("{}.low_battery_percent", section.name), 0, 100));
    let low_battery_percent =
        percent.and_then(|percent| percent.try_into().ok()).unwrap_or(default.low_battery_percent);
    let metered_interfaces = match section.value("metered_interfaces") {
        Some(_) => read_interfaces(reader, &section),
        None => default.metered_interfaces,
    };
    UrgencyPolicy { mains, battery, low_battery, metered, low_battery_percent, metered_interfaces }
}

/// Names of interfaces, or what they begin with; none at all means that no network costs.
fn read_interfaces(reader: &mut Reader, section: &Section) -> Vec<String> {
    const EXPECTED: &str = "a list of names, as in [\"wwan\", \"ppp\"]";
    let value = section.value("metered_interfaces").map(|value| value.get_ref());
    let Some(DeValue::Array(elements)) = value else {
        reader.refuse_type(section, "metered_interfaces", EXPECTED);
        return Vec::new();
    };
    if elements.len() > METERED_INTERFACE_COUNT_MAX {
        let problem = Problem::TooMany { what: "metered interfaces", count_max: METERED_INTERFACE_COUNT_MAX };
        reader.refuse_in(section, "metered_interfaces", problem);
    }
    let mut names = Vec::new();
    for (index, element) in elements.iter().take(METERED_INTERFACE_COUNT_MAX).enumerate() {
        match element.get_ref().as_str().filter(|name| (1..=INTERFACE_NAME_BYTES_MAX).contains(&name.len())) {
            Some(name) => names.push(name.to_owned()),
            None => {
                let problem = Problem::InterfaceName { bytes_max: INTERFACE_NAME_BYTES_MAX };
                reader.refuse(element.span().start, format!("{}.metered_interfaces[{index}]", section.name), problem);
            }
        }
    }
    names
}

/// One table, or a list of tables whose members have names.
fn read_push_services(reader: &mut Reader, root: &Section) -> Vec<PushService> {
    const EXAMPLE: &str = "[push_service] url = \"https://push.example.net/subscribe\"";
    let sections = match root.value("push_service").map(|value| value.get_ref()) {
        Some(DeValue::Array(_)) => {
            reader.sections(root, "push_service", "[push_service], or [[push_service]] for each of several")
        }
        Some(_) => reader.section(root, "push_service").into_iter().collect(),
        None => Vec::new(),
    };
    if root.value("push_service").is_none_or(|value| value.get_ref().as_array().is_some_and(|all| all.is_empty())) {
        reader.refuse_in(root, "push_service.url", Problem::Missing { example: EXAMPLE });
    }
    if let Some(excess) = sections.get(UPSTREAM_PLACED_COUNT_MAX) {
        let problem = Problem::TooMany { what: "push services", count_max: UPSTREAM_PLACED_COUNT_MAX };
        reader.refuse(excess.at, excess.name.clone(), problem);
    }
    let (mut names, mut origins) = (BTreeMap::new(), BTreeMap::new());
    let mut services = Vec::new();
    for section in sections.iter().take(UPSTREAM_PLACED_COUNT_MAX) {
        if sections.len() > 1 && section.value("name").is_none() {
            reader.refuse_in(section, "name", Problem::Missing { example: "name = \"second\"" });
        }
        let Some(service) = read_push_service(reader, section) else { continue };
        if let Some(name) = &service.name {
            check_unique(reader, section, "name", &mut names, name.clone());
        }
        // One origin, one connection: two names for it would be two.
        let authority = service.url.authority().map(|authority| authority.as_str().to_ascii_lowercase());
        check_unique(reader, section, "url", &mut origins, authority);
        services.push(service);
    }
    services
}

fn read_push_service(reader: &mut Reader, section: &Section) -> Option<PushService> {
    reader.check_keys(section, PUSH_SERVICE_KEYS);
    let name = reader.optional(section, "name", service_name);
    let url = reader.required(section, "url", "url = \"https://push.example.net/subscribe\"", |text| {
        push_service_url(text).map_err(Problem::Url)
    });
    let ca_file = reader.optional(section, "ca_file", absolute_path);
    let crl_file = reader.optional(section, "crl_file", absolute_path);
    let credential_file = reader.optional(section, "credential_file", absolute_path);
    Some(PushService { name, url: url?, ca_file, crl_file, credential_file })
}

fn service_name(text: &str) -> Result<String, Problem> {
    let is_name = !text.is_empty() && text.len() <= SERVICE_NAME_BYTES_MAX;
    let is_word = text.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"._-".contains(&octet));
    if is_name && is_word {
        Ok(text.to_owned())
    } else {
        Err(Problem::ServiceName { bytes_max: SERVICE_NAME_BYTES_MAX })
    }
}

fn read_devices(reader: &mut Reader, root: &Section, control: Option<&Path>, services: &[PushService]) -> Vec<Device> {
    let sections = reader.sections(root, "device", "[[device]] once for each device");
    if let Some(excess) = sections.get(DEVICE_COUNT_MAX) {
        let problem = Problem::TooMany { what: "devices", count_max: DEVICE_COUNT_MAX };
        reader.refuse(excess.at, excess.name.clone(), problem);
    }
    let mut uses = Uses { services, connection_count: services.len(), ..Uses::default() };
    if let Some(control) = control {
        let line = root.value("control").map_or(1, |value| reader.line(value.span().start));
        uses.links.insert(format!("unix:{}", control.display()), line);
    }
    sections.iter().take(DEVICE_COUNT_MAX).filter_map(|section| read_device(reader, section, &mut uses)).collect()
}

/// What earlier devices took, with the line in which they did.
#[derive(Default)]
struct Uses<'s> {
    services: &'s [PushService],
    connection_count: usize,
    ids: BTreeMap<DeviceId, usize>,
    links: BTreeMap<String, usize>,
    channel_count: usize,
}

fn read_device(reader: &mut Reader, section: &Section, uses: &mut Uses) -> Option<Device> {
    reader.check_keys(section, DEVICE_KEYS);
    let id =
        reader.required(section, "id", "id = \"meter-7\"", |text| text.parse::<DeviceId>().map_err(Problem::DeviceId));
    let link = reader.required(section, "link", "link = \"serial:/dev/ttyUSB0?baud=115200\"", link_endpoint);
    let channels = read_channels(reader, section);
    let mtu = section.value("mtu").map_or(Some(u32::from(MTU_DEFAULT)), |value| {
        reader.number(value, format!("{}.mtu", section.name), LINK_MTU_BYTES_MIN as u32, LINK_MTU_BYTES_MAX as u32)
    });
    if let Some(id) = &id {
        check_unique(reader, section, "id", &mut uses.ids, id.clone());
    }
    if let Some(link) = &link {
        check_unique(reader, section, "link", &mut uses.links, link_place(link));
    }
    uses.channel_count += channels.len();
    if uses.channel_count > SUBSCRIPTION_COUNT_MAX {
        let problem = Problem::TooMany { what: "channels of all devices", count_max: SUBSCRIPTION_COUNT_MAX };
        reader.refuse_in(section, "channels", problem);
    }
    let options = read_options(reader, section, uses);
    Some(Device { id: id?, link: link?, channels, mtu: u16::try_from(mtu?).ok()?, options })
}

/// A device names a service that is there, and there are connections for those that want their own.
fn read_options(reader: &mut Reader, section: &Section, uses: &mut Uses) -> Options {
    let names: Vec<&str> = uses.services.iter().filter_map(|service| service.name.as_deref()).collect();
    let push_service = reader.optional(section, "push_service", |text| {
        // Without a usable service that is what there is to say.
        let is_known = uses.services.is_empty() || names.contains(&text);
        if is_known { service_name(text) } else { Err(Problem::NoSuchService) }
    });
    let isolated = reader.optional(section, "isolated", isolation).unwrap_or_default();
    uses.connection_count += usize::from(isolated == Isolation::Connection);
    if isolated == Isolation::Connection && uses.connection_count > UPSTREAM_PLACED_COUNT_MAX {
        let what = "push services and devices with a connection of their own";
        reader.refuse_in(section, "isolated", Problem::TooMany { what, count_max: UPSTREAM_PLACED_COUNT_MAX });
    }
    let key = |text: &str| text.parse().map_err(Problem::ServerKey);
    let application_server_key = reader.optional(section, "application_server_key", key);
    let pending_acks = reader.optional(section, "pending_acks", pending_acks).unwrap_or_default();
    let flood_per_minute = section
        .value("flood_per_minute")
        .and_then(|value| reader.number(value, format!("{}.flood_per_minute", section.name), 1, FLOOD_PER_MINUTE_MAX));
    let undeliverable = reader.optional(section, "undeliverable", undeliverable).unwrap_or_default();
    let link = read_link_options(reader, section);
    Options { push_service, isolated, application_server_key, pending_acks, flood_per_minute, undeliverable, link }
}

fn read_link_options(reader: &mut Reader, section: &Section) -> LinkOptions {
    let name = format!("{}.hold_for_sleep", section.name);
    let hold =
        section.value("hold_for_sleep").and_then(|value| reader.number(value, name, 0, HOLD_FOR_SLEEP_MAX.into()));
    let hold_for_sleep = hold.and_then(|count| u8::try_from(count).ok()).unwrap_or(HOLD_FOR_SLEEP_DEFAULT);
    let urgent_channels = section.value("urgent_channels").map(|_| read_numbers(reader, section, "urgent_channels"));
    LinkOptions { hold_for_sleep, urgent_channels: urgent_channels.unwrap_or_default() }
}

/// Reads what is done about messages that can never be delivered.
///
/// # Errors
/// The words that mean something.
pub fn undeliverable(text: &str) -> Result<Undeliverable, Problem> {
    match text {
        "keep" => Ok(Undeliverable::Keep),
        "acknowledge" => Ok(Undeliverable::Acknowledge),
        _ => Err(Problem::OneOf(&["keep", "acknowledge"])),
    }
}

/// Reads when what a device has acknowledged is written to flash.
///
/// # Errors
/// The words that mean something.
pub fn pending_acks(text: &str) -> Result<PendingAcks, Problem> {
    match text {
        "auto" => Ok(PendingAcks::Auto),
        "flash" => Ok(PendingAcks::Flash),
        _ => Err(Problem::OneOf(&["auto", "flash"])),
    }
}

/// Reads how far a device is kept apart.
///
/// # Errors
/// The words that mean something.
pub fn isolation(text: &str) -> Result<Isolation, Problem> {
    match text {
        "set" => Ok(Isolation::Set),
        "connection" => Ok(Isolation::Connection),
        _ => Err(Problem::OneOf(&["set", "connection"])),
    }
}

fn read_channels(reader: &mut Reader, section: &Section) -> Vec<ChannelId> {
    if section.value("channels").is_none() {
        return vec![CHANNEL_DEFAULT];
    }
    let channels = read_numbers(reader, section, "channels");
    if channels.is_empty()
        && section.value("channels").is_some_and(|value| value.get_ref().as_array().is_some_and(|it| it.is_empty()))
    {
        reader.refuse_in(section, "channels", Problem::Empty);
    }
    channels
}

fn read_numbers(reader: &mut Reader, section: &Section, key: &str) -> Vec<ChannelId> {
    let Some(value) = section.value(key) else { return Vec::new() };
    let DeValue::Array(elements) = value.get_ref() else {
        reader.refuse_type(section, key, "a list of whole numbers, as in [1, 2]");
        return Vec::new();
    };
    if elements.len() > CHANNELS_PER_DEVICE_MAX {
        let problem = Problem::TooMany { what: "channels of a device", count_max: CHANNELS_PER_DEVICE_MAX };
        reader.refuse_in(section, key, problem);
    }
    let mut channels: Vec<ChannelId> = Vec::new();
    for (index, element) in elements.iter().take(CHANNELS_PER_DEVICE_MAX).enumerate() {
        let name = format!("{}.{key}[{index}]", section.name);
        let number = reader.number(element, name.clone(), 1, u32::from(u16::MAX));
        let Some(channel) = number.and_then(|number| u16::try_from(number).ok()).map(ChannelId) else { continue };
        if channels.contains(&channel) {
            let at = element.span().start;
            reader.refuse(at, name, Problem::Duplicate { first_line: reader.line(value.span().start) });
        } else {
            channels.push(channel);
        }
    }
    channels
}

fn check_unique<T: Ord>(reader: &mut Reader, section: &Section, key: &str, uses: &mut BTreeMap<T, usize>, value: T) {
    let line = section.value(key).map_or(1, |value| reader.line(value.span().start));
    match uses.get(&value) {
        Some(&first_line) => reader.refuse_in(section, key, Problem::Duplicate { first_line }),
        None => {
            uses.insert(value, line);
        }
    }
}

/// Checks a device that is named on a command line, by the same bounds.
///
/// # Errors
/// The first thing that is wrong with it, with its key.
pub fn device(
    id: &str,
    link: &str,
    channels: Vec<ChannelId>,
    mtu: u16,
    options: Options,
) -> Result<Device, (&'static str, Problem)> {
    let id = id.parse().map_err(|error| ("id", Problem::DeviceId(error)))?;
    let link = link_endpoint(link).map_err(|problem| ("link", problem))?;
    if channels.len() > CHANNELS_PER_DEVICE_MAX {
        let problem = Problem::TooMany { what: "channels of a device", count_max: CHANNELS_PER_DEVICE_MAX };
        return Err(("channels", problem));
    }
    let (min, max) = (LINK_MTU_BYTES_MIN as u32, LINK_MTU_BYTES_MAX as u32);
    if !(min..=max).contains(&u32::from(mtu)) {
        return Err(("mtu", Problem::OutOfBounds { min, max }));
    }
    if options.flood_per_minute.is_some_and(|limit| !(1..=FLOOD_PER_MINUTE_MAX).contains(&limit)) {
        return Err(("flood_per_minute", Problem::OutOfBounds { min: 1, max: FLOOD_PER_MINUTE_MAX }));
    }
    if options.link.hold_for_sleep > HOLD_FOR_SLEEP_MAX {
        return Err(("hold_for_sleep", Problem::OutOfBounds { min: 0, max: HOLD_FOR_SLEEP_MAX.into() }));
    }
    if options.link.urgent_channels.len() > CHANNELS_PER_DEVICE_MAX {
        let problem = Problem::TooMany { what: "channels of a device", count_max: CHANNELS_PER_DEVICE_MAX };
        return Err(("urgent_channels", problem));
    }
    let channels = if channels.is_empty() { vec![CHANNEL_DEFAULT] } else { channels };
    Ok(Device { id, link, channels, mtu, options })
}

/// The place of a link without its parameters: two rates do not make two ports.
pub fn link_place(link: &LinkEndpoint) -> String {
    match link {
        LinkEndpoint::Serial { path, .. } => format!("serial:{}", path.display()),
        LinkEndpoint::Unix { path } => format!("unix:{}", path.display()),
        LinkEndpoint::Tcp(address) => format!("tcp:{address}"),
    }
}

fn absolute_path(text: &str) -> Result<PathBuf, Problem> {
    Some(PathBuf::from(text)).filter(|path| path.is_absolute()).ok_or(Problem::RelativePath)
}

fn socket_path(text: &str) -> Result<PathBuf, Problem> {
    checked_socket_path(absolute_path(text)?)
}

fn checked_socket_path(path: PathBuf) -> Result<PathBuf, Problem> {
    if path.as_os_str().as_bytes().len() > UNIX_PATH_BYTES_MAX {
        return Err(Problem::PathTooLong { bytes_max: UNIX_PATH_BYTES_MAX });
    }
    Ok(path)
}

fn link_endpoint(text: &str) -> Result<LinkEndpoint, Problem> {
    let link: LinkEndpoint = text.parse().map_err(Problem::Link)?;
    match &link {
        LinkEndpoint::Unix { path } => drop(checked_socket_path(path.clone())?),
        LinkEndpoint::Serial { path, .. } if path.as_os_str().as_bytes().len() > LINK_PATH_BYTES_MAX => {
            return Err(Problem::PathTooLong { bytes_max: LINK_PATH_BYTES_MAX });
        }
        LinkEndpoint::Serial { .. } | LinkEndpoint::Tcp(_) => {}
    }
    Ok(link)
}

/// Reads the URL of a push service.
///
/// # Errors
/// Anything but an absolute `https` URL with a host, without credentials and fragment.
///
/// Source: RFC 8030 §3, §8 (only HTTP over TLS), RFC 9110 §4.2.4 (user information in URIs).
pub fn push_service_url(text: &str) -> Result<Uri, InvalidUrl> {
    if text.len() > URI_BYTES_MAX {
        return Err(InvalidUrl::TooLong { bytes_max: URI_BYTES_MAX });
    }
    if text.contains('#') {
        return Err(InvalidUrl::Fragment);
    }
    let url: Uri = text.parse().map_err(|_| InvalidUrl::Malformed)?;
    match url.scheme_str() {
        Some("https") => {}
        Some("http") => return Err(InvalidUrl::Insecure),
        Some(_) => return Err(InvalidUrl::UnknownScheme),
        None => return Err(InvalidUrl::Malformed),
    }
    let authority = url.authority().ok_or(InvalidUrl::InvalidAuthority)?;
    if authority.as_str().contains('@') {
        return Err(InvalidUrl::Credentials);
    }
    let announced_port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    let port_is_valid = announced_port.is_empty() || authority.port_u16().is_some_and(|port| port > 0);
    if authority.host().is_empty() || !port_is_valid {
        return Err(InvalidUrl::InvalidAuthority);
    }
    Ok(url)
}
