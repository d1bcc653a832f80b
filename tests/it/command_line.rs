//! The command line as a person meets it: what is wrong is said with the argument, the next step and an exit code; nothing
//! panics, and no capability is printed.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Part of each capability here.
const SECRET: &str = "c2VjcmV0";

/// A-AS-13, A-AS-28: among others an urgency that is none, and two of them.
#[test]
fn a_wrong_command_line_is_told_with_its_argument() {
    for (arguments, told) in [
        (&[][..], "Usage: fieldgate <COMMAND>"),
        (&["stats"], "similar subcommand exists: 'status'"),
        (&["run", "--confg", "x"], "a similar argument exists: '--config'"),
        (&["check", "--config"], "--config <FILE>"),
        (&["device", "add", "d"], "--link <LINK>"),
        (&["device", "add", "a b", "--link", "unix:/x"], "id: a device id is 1 to 32 characters"),
        (&["device", "add", "d", "--link", "usb:1"], "--link: a link is serial:"),
        (&["device", "add", "d", "--link", "unix:/x", "--mtu", "19"], "--mtu: out of bounds; write a number from 20"),
        (&["device", "add", "d", "--link", "unix:/x", "--channel", "0"], "'--channel <N>'"),
        (&["device", "add", "d", "--link", "unix:/x", "--flood-per-minute", "0"], "--flood-per-minute: out of bounds"),
        (
            &["device", "add", "d", "--link", "unix:/x", "--undeliverable", "drop"],
            "'--undeliverable <keep|acknowledge>'",
        ),
        (&["device", "show", "d", "--wait", "soon"], "'--wait <SECONDS>'"),
        (&["send", "x"], "--to <FILE>"),
        (&["send", "--to", "-", "--ttl", "-5", "x"], "'--ttl <SECONDS>': a TTL is a whole number of seconds"),
        (&["send", "--to", "-", "--ttl", "5", "-"], "cannot both come from standard input"),
        (&["send", "--to", "-", "--ttl", "5", "--urgency", "urgent", "x"], "write one of: very-low, low, normal, high"),
        (
            &["send", "--to", "-", "--ttl", "5", "--urgency", "low", "--urgency", "low", "x"],
            "cannot be used multiple times",
        ),
        (&["service"], "--state <DIR>"),
        (&["service", "--state", "s", "--listen", "here"], "'--listen <ADDR>': not an IP address"),
        (&["service", "--state", "s", "--alternative", "here"], "not a port or the name webpush"),
        (&["service", "--state", "s", "--name", "https://x"], "'--name <HOST>': not a host name"),
        (&["simulate", "usb:1"], "'<LINK>': a device is at pty"),
        (&["demo", "--messages", "0"], "'--messages <N>'"),
        (&["init", "--push-service", "http://x/"], "--push-service: http:// is not encrypted"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let ran = run(folder.path(), arguments);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains(told), "{arguments:?}: {}", ran.err);
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0, "{arguments:?}");
    }
}

#[test]
fn what_is_not_there_is_named_with_the_next_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = "cannot read the configuration fieldgate.toml";
    let (status, device) = (["status"], ["device", "list"]);
    for arguments in [&["run"][..], &["check"], &["connections"], &status, &device] {
        let ran = run(folder.path(), arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}");
        assert!(
            ran.err.contains(config) && ran.err.contains("--config, or make one with: fieldgate init"),
            "{}",
            ran.err
        );
    }
    drop(std::os::unix::net::UnixListener::bind(folder.path().join("left.sock")).expect("a socket of a dead process"));
    for socket in ["absent.sock", "left.sock"] {
        let ran = run(folder.path(), &["status", "--control", socket]);
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        assert!(ran.err.contains(&format!("control socket {socket}: ")), "{}", ran.err);
        assert!(
            ran.err
                .contains("start the gateway with fieldgate run, or name the socket of a running one with --control")
        );
    }
    for (arguments, code, told) in [
        (&["send", "--to", "absent", "--ttl", "5", "x"][..], 2, "--to: absent: No such file"),
        (&["send", "--to", "absent", "--ttl", "5", "x"], 2, "write the file with: fieldgate device show ID --json"),
        (&["init", "--state", "s", "--config", "no/where.toml"], 1, "name another file with --config"),
        (&["service", "--state", "/proc/absent", "--listen", "127.0.0.1:0"], 1, "choose another with --state"),
        (&["simulate", "pty:/no/such/folder/meter"], 1, "pty:/no/such/folder/meter"),
    ] {
        let ran = run(folder.path(), arguments);
        assert!(ran.code == Some(code) && ran.err.contains(told), "{arguments:?}: {:?} {}", ran.code, ran.err);
    }
}

/// A-UA-08, A-ALL-04: a subscription that is wrong, or in the wrong place, is not repeated.
#[test]
fn a_capability_is_never_printed() {
    let folder = tempfile::tempdir().expect("a folder");
    let endpoint = format!("https://127.0.0.1:1/{SECRET}");
    let keys = format!("\"keys\":{{\"p256dh\":\"{}\",\"auth\":\"{SECRET}\"}}", "A".repeat(87));
    let whole = format!("{{\"endpoint\":\"{endpoint}\",{keys}}}");
    for (content, told) in [
        (format!("nonsense {endpoint}"), "not a push subscription in JSON"),
        (format!("{{\"endpoint\":\"{endpoint}\"}}"), "lacks keys.p256dh"),
        (whole.replace("https", "http"), "only https URIs"),
        (whole.clone(), "keys.auth: not the base64url of 16 octets"),
    ] {
        fs::write(folder.path().join("to.json"), content).expect("written");
        let ran = run(folder.path(), &["send", "--to", "to.json", "--ttl", "5", "x"]);
        assert!(ran.code == Some(2) && ran.err.contains("--to: to.json: ") && ran.err.contains(told), "{}", ran.err);
    }
    for argument in [whole.as_str(), &endpoint] {
        let ran = run(folder.path(), &["send", "--to", argument, "--ttl", "5", "x"]);
        assert!(ran.code == Some(2) && ran.err.contains("--to: the argument: "), "{}", ran.err);
    }
    let auth = "AAAAAAAAAAAAAAAAAAAAAA";
    fs::write(folder.path().join("to.json"), whole.replace(&format!("\"{SECRET}\""), &format!("\"{auth}\"")))
        .expect("written");
    for ca in ["absent.pem", "to.json"] {
        let ran = run(folder.path(), &["send", "--to", "to.json", "--ca", ca, "--ttl", "5", "x"]);
        assert!(ran.code == Some(2) && ran.err.contains("--ca: ") && ran.err.contains("in PEM"), "{}", ran.err);
    }
    fs::write(folder.path().join("ca.pem"), include_str!("../common/certificates/rsa2048_authority.pem"))
        .expect("written");
    for crl in ["absent.pem", "to.json"] {
        let ran = run(folder.path(), &["send", "--to", "to.json", "--ca", "ca.pem", "--crl", crl, "--ttl", "5", "x"]);
        assert!(ran.code == Some(2) && ran.err.contains("--crl: ") && ran.err.contains("in PEM"), "{}", ran.err);
    }
    fs::write(
        folder.path().join("fieldgate.toml"),
        format!("state = \"s\"\n[push_service]\nurl = \"http://x/{SECRET}\"\n"),
    )
    .expect("written");
    assert_eq!(run(folder.path(), &["run"]).code, Some(2));
    assert_eq!(run(folder.path(), &["init", "--push-service", &format!("ftp://x/{SECRET}")]).code, Some(2));
}

#[test]
fn a_subscription_that_others_may_read_is_warned_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("to.json");
    fs::write(&file, "{}").expect("written");
    for (mode, is_warned) in [(0o644, true), (0o640, true), (0o600, false), (0o400, false)] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).expect("it is ours");
        let ran = run(folder.path(), &["send", "--to", "to.json", "--ttl", "5", "x"]);
        assert_eq!(ran.err.contains("warning: --to: others may read to.json"), is_warned, "{mode:o}: {}", ran.err);
        assert_eq!(ran.err.contains("chmod 600 to.json"), is_warned);
    }
}

#[test]
fn what_prevents_a_start_is_said_with_file_line_and_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("no.pem"), "").expect("written");
    fs::write(path("file"), "").expect("written");
    fs::create_dir(path("open")).expect("made");
    fs::write(path("open/other"), "").expect("written");
    fs::set_permissions(path("open"), Permissions::from_mode(0o755)).expect("it is ours");
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    fs::write(path("ca.pem"), certificate.cert.pem()).expect("written");
    for (state, control, ca, code, told) in [
        ("state", "c", "no.pem", 2, "a.toml:5: push_service.ca_file: "),
        ("state", "c", "absent.pem", 2, "a.toml:5: push_service.ca_file: "),
        ("file", "c", "ca.pem", 1, "a.toml:1: state: "),
        ("open", "c", "ca.pem", 1, "a.toml:1: state: the state folder"),
        ("state", "no/c", "ca.pem", 1, "a.toml:2: control: "),
        ("state", "file", "ca.pem", 1, "a.toml:2: control: "),
    ] {
        let [state, control, ca] = [state, control, ca].map(path);
        let text = format!(
            "state = \"{state}\"\ncontrol = \"{control}\"\n[push_service]\nurl = \"https://localhost:1/\"\nca_file = \"{ca}\"\n"
        );
        fs::write(path("a.toml"), text).expect("written");
        let ran = run(folder.path(), &["run", "--config", "a.toml"]);
        assert!(ran.code == Some(code) && ran.err.contains(told), "{told}: {:?} {}", ran.code, ran.err);
        assert!(ran.err.contains("; "), "without a next step: {}", ran.err);
    }
}

/// A reader that goes away, and a full disk behind standard output: exit code 1, one line, no panic.
#[test]
fn output_that_cannot_be_written_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    let init = ["init", "--state", "s", "--push-service", "https://push.example.net/subscribe"];
    assert_eq!(run(folder.path(), &init).code, Some(0));
    let demo = ["demo", "--messages", "1", "--devices", "1", "--json"];
    let service = ["service", "--state", "service", "--listen", "127.0.0.1:0"];
    for arguments in [&["check"][..], &[&init[..], &["--force"]].concat(), &demo, &service] {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let ran = read(command(folder.path(), arguments).stdout(full).output());
        assert_eq!(ran.code, Some(1), "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains("fieldgate: standard output: No space left"), "{arguments:?}: {}", ran.err);
    }
    // Where standard error is full there is nowhere left to say so, and the exit code is as before.
    let full = OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    assert_eq!(read(command(folder.path(), &["status"]).stderr(full).output()).code, Some(1));
}

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(folder: &Path, arguments: &[&str]) -> Ran {
    read(command(folder, arguments).output())
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fieldgate"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command
}

/// What every run has in common: it ends by itself, without a panic, and tells no secret.
fn read(output: std::io::Result<Output>) -> Ran {
    let Output { status, stdout, stderr } = output.expect("it runs");
    let text = |octets| String::from_utf8(octets).expect("text");
    let ran = Ran { code: status.code(), out: text(stdout), err: text(stderr) };
    assert!(!ran.err.contains("panic"), "{}", ran.err);
    assert!(!ran.out.contains(SECRET) && !ran.err.contains(SECRET), "{}{}", ran.out, ran.err);
    ran
}
