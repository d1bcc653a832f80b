//! The files of the Debian package: what they promise is what the program and the service manager understand.

use std::collections::BTreeSet;

use fieldgate::config::service::ServiceConfig;
use fieldgate::config::{Config, Problem};

const CONFIGURATION: &str = include_str!("../../boards/debian/fieldgate.toml");
const SERVICE_CONFIGURATION: &str = include_str!("../../boards/debian/fieldgate-push.toml");
const SERVICE_UNIT: &str = include_str!("../../boards/debian/fieldgate-push.service");
const GATEWAY_UNIT: &str = include_str!("../../boards/debian/fieldgate.service");

/// Each key that the parser knows is in the file, with an example that works.
#[test]
fn the_packaged_configuration_explains_every_key() {
    let uncommented = uncommented(CONFIGURATION);
    Config::parse(&uncommented).expect("every example is right");
    let names: BTreeSet<&str> =
        uncommented.lines().filter_map(|line| Some(line.split_once(" = ")?.0.trim_start_matches('#'))).collect();
    let tables = ["push_service", "announce", "urgency", "device"];
    for known in ["", "[push_service]\n", "[announce]\n", "[urgency]\n", "[[device]]\n"]
        .iter()
        .flat_map(|section| known_keys(section))
    {
        assert!(names.contains(known) || tables.contains(known), "{known} is not in boards/debian/fieldgate.toml");
    }
    assert!(uncommented.contains("[push_service]") && uncommented.contains("[[device]]"));
}

/// The package does not start before its configuration is complete, and this is what is missing.
#[test]
fn the_packaged_configuration_lacks_the_url_and_nothing_else() {
    let errors = Config::parse(CONFIGURATION).expect_err("it has no URL");
    assert!(matches!(&errors[..], [error] if error.key == "push_service.url"), "{errors:?}");
}

/// The unit gives the configuration the folders that it names.
#[test]
fn the_unit_and_the_packaged_configuration_name_the_same_folders() {
    let config = Config::parse(&uncommented(CONFIGURATION)).expect("every example is right");
    let setting = |key: &str| {
        let start = format!("{key}=");
        GATEWAY_UNIT.lines().find_map(|line| line.strip_prefix(&start)).expect("the unit has it")
    };
    assert_eq!(config.state.to_str(), Some(format!("/var/lib/{}", setting("StateDirectory")).as_str()));
    let run = format!("/run/{}/control.sock", setting("RuntimeDirectory"));
    assert_eq!(config.control.to_str(), Some(run.as_str()));
    assert!(setting("ExecStart").ends_with(" --config /etc/fieldgate/fieldgate.toml"));
}

/// The same for the push service, whose configuration is complete as it comes.
#[test]
fn the_packaged_configuration_of_the_push_service_explains_every_key() {
    ServiceConfig::parse(SERVICE_CONFIGURATION).expect("nothing has to be said");
    let uncommented = uncommented(SERVICE_CONFIGURATION);
    ServiceConfig::parse(&uncommented).expect("every example is right");
    let errors = ServiceConfig::parse("zzzzzzzz = 1").expect_err("there is no such key");
    let Problem::Unknown { known, .. } = errors[0].problem else { panic!("{errors:?}") };
    for known in known {
        assert!(uncommented.contains(&format!("\n{known} = ")), "{known} is not in boards/debian/fieldgate-push.toml");
    }
    let start = SERVICE_UNIT.lines().find(|line| line.starts_with("ExecStart=")).expect("it starts something");
    assert!(
        start.contains(" --config /etc/fieldgate/fieldgate-push.toml --listen [::]:8443 --name %H --state /var/lib/")
    );
}

/// The keys that the parser names when it meets one that it does not know.
fn known_keys(section: &str) -> &'static [&'static str] {
    let errors = Config::parse(&format!("{section}zzzzzzzz = 1\n")).expect_err("there is no such key");
    let known = errors.iter().find_map(|error| match error.problem {
        Problem::Unknown { known, .. } => Some(known),
        _ => None,
    });
    known.expect("it says so")
}

fn uncommented(text: &str) -> String {
    let is_setting = |line: &str| line.contains(" = ") || line.starts_with('[');
    let line = |line: &str| match line.strip_prefix("# ") {
        Some(setting) if is_setting(setting) => format!("{setting}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}
