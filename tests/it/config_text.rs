//! Configuration texts and what a person is told about them.

use std::path::PathBuf;

use fieldgate::config::{Config, ConfigError, Device, Problem, push_service_url};
use fieldgate::limits::{
    CHANNELS_PER_DEVICE_MAX, CONFIG_BYTES_MAX, DEVICE_COUNT_MAX, FLASH_BYTES_PER_DAY, FLASH_BYTES_PER_DAY_MIN,
    SUBSCRIPTION_COUNT_MAX, UNIX_PATH_BYTES_MAX, URI_BYTES_MAX,
};
use fieldgate::wire::ChannelId;
use proptest::prelude::*;

const HEAD: &str = "state = \"/var/lib/fieldgate\"\n[push_service]\nurl = \"https://push.example.net/subscribe\"\n";

#[test]
fn the_example_of_the_module_is_read() {
    let text = include_str!("../../src/config.rs");
    let example: String = text
        .lines()
        .skip_while(|line| *line != "//! ```toml")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| format!("{}\n", line.trim_start_matches("//!")))
        .collect();
    let config = Config::parse(&example).expect("an example that works");
    assert_eq!(config.control, PathBuf::from("/run/fieldgate/control.sock"));
    assert_eq!(config.push_service.ca_file, Some(PathBuf::from("/etc/fieldgate/ca.pem")));
    assert_eq!(config.push_service.crl_file, Some(PathBuf::from("/etc/fieldgate/crl.pem")));
    assert_eq!(config.devices.len(), 1);
}

#[test]
fn a_budget_of_flash_is_at_least_a_commit() {
    let with = |line: &str| Config::parse(&format!("{line}\n{HEAD}"));
    assert_eq!(with("").expect("it is right").flash_bytes_per_day, FLASH_BYTES_PER_DAY);
    for bytes in [FLASH_BYTES_PER_DAY_MIN, u32::MAX] {
        let config = with(&format!("flash_bytes_per_day = {bytes}")).expect("within bounds");
        assert_eq!(config.flash_bytes_per_day, bytes);
    }
    for bytes in [u64::from(FLASH_BYTES_PER_DAY_MIN) - 1, u64::from(u32::MAX) + 1] {
        let errors = with(&format!("flash_bytes_per_day = {bytes}")).expect_err("out of bounds");
        assert_eq!(lines(&errors), ["1: flash_bytes_per_day: out of bounds; write a number from 4096 to 4294967295"]);
    }
}

#[test]
fn what_is_not_named_has_its_default() {
    let config = parse("[[device]]\nid = \"a\"\nlink = \"unix:/run/a\"").expect("it is right");
    assert_eq!(config.control, PathBuf::from("/var/lib/fieldgate/control.sock"));
    assert_eq!(config.push_service.ca_file, None);
    let [Device { channels, mtu: 256, .. }] = &config.devices[..] else { panic!("{config:?}") };
    assert_eq!(channels, &[ChannelId(1)]);
    assert_eq!(parse("").expect("a gateway without devices").devices, []);
}

/// A-UA-01: without a push service the error names the missing setting.
#[test]
fn a_ua_01_no_push_service_names_the_setting() {
    let errors = Config::parse("state = \"/s\"").expect_err("no push service");
    assert_eq!(lines(&errors)[0].split(';').next(), Some("1: push_service.url: not set"));
    let errors = Config::parse("state = \"/s\"\n[push_service]\n").expect_err("no URL");
    assert_eq!(lines(&errors)[0].split(';').next(), Some("2: push_service.url: not set"));
}

/// A-UA-38: `http://` is refused by name.
#[test]
fn a_ua_38_http_is_refused_by_name() {
    let text = HEAD.replace("https://", "http://");
    let errors = Config::parse(&text).expect_err("not encrypted");
    assert_eq!(lines(&errors), ["3: push_service.url: http:// is not encrypted and refused; write https://"]);
}

#[test]
fn urls_that_cannot_be_used_are_refused_and_never_repeated() {
    for (url, told) in [
        ("push.example.net", "not a URL"),
        ("/subscribe", "not a URL"),
        ("", "not a URL"),
        ("https://", "not a URL"),
        ("ftp://secret.example/", "scheme is unknown"),
        ("https://user:secret@example.net/", "user name or password"),
        ("https://example.net/secret#part", "fragment"),
        ("https://example.net:0/secret", "no valid host and port"),
        ("https://example.net:99999/secret", "no valid host and port"),
        ("https://example.net:/secret", "no valid host and port"),
        ("https://:443/secret", ""),
    ] {
        let errors = Config::parse(&format!("state = \"/s\"\n[push_service]\nurl = \"{url}\"")).expect_err(url);
        let line = lines(&errors).remove(0);
        assert!(line.contains(told) && !line.contains("secret"), "{url}: {line}");
    }
    for url in ["https://example.net", "https://[2001:db8::1]/", "https://[::1]:8443/s", "https://192.0.2.1:1/s?a=b"] {
        assert!(push_service_url(url).is_ok(), "{url}");
    }
    let longest = format!("https://example.net/{}", "x".repeat(URI_BYTES_MAX - 20));
    assert!(push_service_url(&longest).is_ok());
    assert!(push_service_url(&format!("{longest}x")).is_err());
}

#[test]
fn all_errors_come_at_once_each_with_its_line() {
    let text = "stat = \"/s\"\ncontrol = \"run/x.sock\"\n\n[push_service]\nurl = 7\nca = \"x\"\n\n[[device]]\nid = \"a b\"\n\
                link = \"usb:1\"\nmtu = 19\nchannels = [1, 1, 70000, \"x\"]\ncolour = \"red\"\n";
    let errors = Config::parse(text).expect_err("hardly anything is right");
    let expected = [
        "1: stat: unknown key; did you mean state?",
        "1: state: not set; add, for example: state = \"/var/lib/fieldgate\"",
        "2: control: the path is relative; write it from / on",
        "5: push_service.url: this is a whole number; write text in quotes",
        "6: push_service.ca: unknown key; remove it, known here: name, url, ca_file, crl_file, credential_file",
        "9: device[0].id: a device id is 1 to 32 characters of A-Z a-z 0-9 . _ -; choose another id",
        "10: device[0].link: a link is serial:/dev/PORT?baud=N, unix:/PATH or tcp:127.0.0.1:PORT",
        "11: device[0].mtu: out of bounds; write a number from 20 to 1024",
        "12: device[0].channels[1]: already used in line 12; choose another",
        "12: device[0].channels[2]: out of bounds; write a number from 1 to 65535",
        "12: device[0].channels[3]: this is text; write a whole number",
        "13: device[0].colour: unknown key; remove it, known here: id, link, channels, mtu, push_service, isolated, \
         application_server_key, pending_acks, \
         flood_per_minute, undeliverable, hold_for_sleep, urgent_channels",
    ];
    assert_eq!(lines(&errors), expected);
}

/// At the bound of its size this takes a fraction of a second, not minutes: each error finds its line without a search.
#[test]
fn an_error_in_each_line_of_the_longest_text_is_told() {
    let count = CONFIG_BYTES_MAX / "k00000=1\n".len();
    let text: String = (0..count).map(|number| format!("k{number:05}=1\n")).collect();
    let errors = Config::parse(&text).expect_err("nothing in it is known");
    let unknown = errors.iter().filter(|error| matches!(error.problem, Problem::Unknown { .. }));
    assert!(unknown.map(|error| error.line).eq(1..=count));
}

#[test]
fn text_that_is_no_toml_is_refused_with_each_line() {
    let errors = Config::parse("state = \n[push_service\nurl = \"https://a/\"\n").expect_err("no TOML");
    assert!(errors.iter().all(|error| matches!(error.problem, Problem::Syntax(_))), "{errors:?}");
    assert_eq!(errors[0].line, 1, "{errors:?}");
    let errors = Config::parse("state = \"/a\"\nstate = \"/b\"\n").expect_err("said twice");
    assert!(errors[0].line == 2 && errors[0].to_string().contains("duplicate key"), "{errors:?}");
}

#[test]
fn tables_of_the_wrong_kind_say_what_to_write() {
    let told = |text: &str| lines(&Config::parse(text).expect_err(text)).join("\n");
    assert!(told("push_service = \"https://a/\"").contains("1: push_service: this is text; write a table"));
    assert!(told("[device]\nid = \"a\"").contains("device: this is a table; write [[device]] once for each device"));
    assert!(told("device = [1]").contains("1: device[0]: this is a whole number; write [[device]]"));
    assert!(told("[[device]]\nchannels = 1").contains("2: device[0].channels: this is a whole number; write a list"));
}

#[test]
fn two_devices_share_neither_id_nor_link() {
    let device = |id: &str, link: &str| format!("[[device]]\nid = \"{id}\"\nlink = \"{link}\"\n");
    let told = |first: String, second: String| lines(&parse(&(first + &second)).expect_err("the same")).join("\n");
    assert_eq!(
        told(device("a", "unix:/a"), device("a", "unix:/b")),
        "8: device[1].id: already used in line 5; choose another"
    );
    for (one, other) in [
        ("serial:/dev/ttyS0?baud=9600", "serial:/dev/ttyS0"),
        ("unix:/a", "unix:/a"),
        ("tcp:127.0.0.1:7000", "tcp:127.0.0.1:7000"),
    ] {
        assert_eq!(
            told(device("a", one), device("b", other)),
            "9: device[1].link: already used in line 6; choose another"
        );
    }
    let control = "unix:/var/lib/fieldgate/control.sock";
    assert!(parse(&device("a", control)).is_err(), "the control socket is taken");
}

#[test]
fn each_count_is_taken_at_its_bound_and_refused_above() {
    let devices = |count: usize, channels: usize| -> String {
        let channels = (1..=channels).map(|channel| channel.to_string()).collect::<Vec<_>>().join(",");
        (0..count)
            .map(|n| format!("[[device]]\nid = \"d{n}\"\nlink = \"unix:/{n}\"\nchannels = [{channels}]\n"))
            .collect()
    };
    assert_eq!(parse(&devices(DEVICE_COUNT_MAX, 1)).map(|config| config.devices.len()), Ok(DEVICE_COUNT_MAX));
    assert!(told(&devices(DEVICE_COUNT_MAX + 1, 1)).contains("devices may be 64 at most"));
    assert!(parse(&devices(1, CHANNELS_PER_DEVICE_MAX)).is_ok());
    assert!(told(&devices(1, CHANNELS_PER_DEVICE_MAX + 1)).contains("channels of a device may be 8 at most"));
    assert!(told(&devices(1, 0)).contains("nothing in the list"));
    let full = SUBSCRIPTION_COUNT_MAX / CHANNELS_PER_DEVICE_MAX;
    assert!(parse(&devices(full, CHANNELS_PER_DEVICE_MAX)).is_ok());
    assert!(told(&devices(full + 1, CHANNELS_PER_DEVICE_MAX)).contains("channels of all devices may be 256 at most"));
    for (mtu, is_right) in [(19, false), (20, true), (1024, true), (1025, false), (-1, false)] {
        let text = format!("[[device]]\nid = \"a\"\nlink = \"unix:/a\"\nmtu = {mtu}");
        assert_eq!(parse(&text).is_ok(), is_right, "{mtu}");
    }
}

#[test]
fn sockets_have_paths_that_the_system_can_hold() {
    let path = |bytes: usize| format!("/{}", "x".repeat(bytes - 1));
    let with_control = |bytes| format!("control = \"{}\"\n{HEAD}", path(bytes));
    assert!(Config::parse(&with_control(UNIX_PATH_BYTES_MAX)).is_ok());
    assert!(Config::parse(&with_control(UNIX_PATH_BYTES_MAX + 1)).is_err());
    let long_state = HEAD.replace("/var/lib/fieldgate", &path(UNIX_PATH_BYTES_MAX - 5));
    assert!(lines(&Config::parse(&long_state).expect_err("too long"))[0].contains("set control"));
    assert!(told(&format!("[[device]]\nid = \"a\"\nlink = \"unix:{}\"", path(108))).contains("107 octets"));
}

#[test]
fn a_text_that_is_too_long_is_not_even_parsed() {
    let comment = |bytes: usize| format!("{HEAD}#{}", "x".repeat(bytes - HEAD.len() - 1));
    assert!(Config::parse(&comment(CONFIG_BYTES_MAX)).is_ok());
    let errors = Config::parse(&comment(CONFIG_BYTES_MAX + 1)).expect_err("too long");
    assert_eq!(errors[0].problem, Problem::TooLong { bytes_max: CONFIG_BYTES_MAX });
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        prop_assert!(Config::parse(&text).is_err());
    }

    #[test]
    fn no_change_of_a_right_text_makes_the_reader_panic(at in 0_usize..170, replacement in "\\PC{0,3}") {
        let mut text = format!("{HEAD}[[device]]\nid = \"a\"\nlink = \"unix:/a\"\nchannels = [1, 2]\nmtu = 64\n");
        if let Some((start, _)) = text.char_indices().nth(at) {
            text.replace_range(start..=start, &replacement);
        }
        if let Err(errors) = Config::parse(&text) {
            prop_assert!(errors.iter().all(|error| error.line >= 1 && error.line <= 9));
        }
    }
}

fn parse(devices: &str) -> Result<Config, Vec<ConfigError>> {
    Config::parse(&format!("{HEAD}{devices}"))
}

fn told(devices: &str) -> String {
    lines(&parse(devices).expect_err(devices)).join("\n")
}

fn lines(errors: &[ConfigError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}
