//! The configuration of the push service, and what its operator asks of a running one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use fieldgate::config::service::ServiceConfig;
use fieldgate::service::ExpireError;
use fieldgate::service::gate::Rules;
use fieldgate::service::retention::{Policy, WhenFull};
use fieldgate::webpush::headers::Ttl;
use fieldgate::webpush::link;

use crate::process::BINARY;
use crate::raw_user_agent::{HEADERS, RawUserAgent, STATUS_404};
use crate::service::Rig;

fn errors(text: &str) -> Vec<String> {
    let errors = ServiceConfig::parse(text).expect_err("it is wrong");
    errors.iter().map(ToString::to_string).collect()
}

fn debug(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}")
}

/// Every key is in the example, and what the example calls defaults are those.
#[test]
fn the_example_of_the_module_is_read() {
    let text = include_str!("../../src/config/service.rs");
    let lines = text.lines().skip_while(|line| *line != "//! ```toml").skip(1).take_while(|line| *line != "//! ```");
    let example: String = lines.map(|line| format!("{}\n", line.trim_start_matches("//!"))).collect();
    let config = ServiceConfig::parse(&example).expect("an example that works");
    let unlimited =
        Policy { attempt_count_max: None, refused_count_max: None, pushes_per_second: None, ..config.policy };
    assert_eq!(debug(&unlimited), debug(&Policy::default()));
    assert_eq!(Rules { redirect_to: None, ..config.rules }, Rules::default());
    let known = errors("zzzzzzzzzzzzzzzz = 1")[0].split_once("known here: ").expect("it says so").1.to_owned();
    for key in known.split(", ") {
        assert!(example.contains(&format!("{key} = ")), "{key}");
    }
    let empty = ServiceConfig::parse("").expect("everything may be left out");
    assert_eq!((debug(&empty.policy), empty.rules), (debug(&Policy::default()), Rules::default()));
}

/// A-PS-70: what is out of bounds is refused at the start, among it a size of messages below 4096 octets.
#[test]
fn a_ps_70_numbers_are_within_bounds() {
    for (key, min, max) in [
        ("ttl_max_s", 1, 1_u64 << 31),
        ("set_members_max", 1, 1_024),
        ("messages_per_subscription_max", 1, 4_096),
        ("message_bytes_max", 4_096, 65_536),
        ("attempts_max", 1, 1_000),
        ("sends_per_minute", 1, 60_000),
        ("refused_in_a_row_max", 1, 1_000_000),
        ("pushes_per_second", 1, 1_000),
        ("batch_s", 0, 3_600),
        ("fresh_days", 1, 3_650),
        ("unused_days", 1, 3_650),
        ("receipt_subscriptions_per_connection", 1, 1_000_000),
    ] {
        for right in [min, max] {
            ServiceConfig::parse(&format!("{key} = {right}")).expect("within bounds");
        }
        for wrong in [i128::from(min) - 1, i128::from(max) + 1] {
            let expected = format!("1: {key}: out of bounds; write a number from {min} to {max}");
            assert_eq!(errors(&format!("{key} = {wrong}")), [expected], "{wrong}");
        }
    }
}

#[test]
fn what_is_said_is_what_counts() {
    let text = "ttl_max_s = 60\nset_members_max = 2\nmessages_per_subscription_max = 3\nwhen_full = \"evict\"\n\
        message_bytes_max = 5000\nattempts_max = 4\nsends_per_minute = 5\nrefused_in_a_row_max = 6\n\
        pushes_per_second = 7\nbatch_s = 8\nfresh_days = 9\nunused_days = 10\nrequire_set = true\n\
        receipt_subscriptions_per_connection = 11\nredirect_to = \"https://a.example/s\"\n";
    let config = ServiceConfig::parse(text).expect("it is right");
    let expected = Policy {
        ttl_max: Ttl::from_secs(60),
        set_member_count_max: 2,
        message_count_max: 3,
        when_full: WhenFull::Evict,
        attempt_count_max: Some(4),
        sends_per_minute: Some(5),
        refused_count_max: Some(6),
        pushes_per_second: Some(7),
        batch: Duration::from_secs(8),
        fresh: Duration::from_secs(9 * 86_400),
        unused: Duration::from_secs(10 * 86_400),
    };
    assert_eq!(debug(&config.policy), debug(&expected));
    let redirect_to = Some("https://a.example/s".parse().expect("a URI"));
    let rules = Rules {
        require_set: true,
        redirect_to,
        receipt_subscriptions_per_connection: 11,
        message_bytes_max: 5_000,
        offer_sets: true,
    };
    assert_eq!(config.rules, rules);
}

/// All that is wrong is said at once, with its line and what to do.
#[test]
fn everything_that_is_wrong_is_said() {
    let text = "listen = \"here\"\nofer_sets = true\nwhen_full = \"drop\"\nrequire_set = 1\nstate = \"here\"\n\
        redirect_to = \"http://a.example/\"\nname = \"a:1\"\nalternative = \"web\"\nsubscribe_token_file = 7\n";
    assert_eq!(
        errors(text),
        [
            "1: listen: not an IP address, with or without a port, such as 0.0.0.0 or [::]:8443",
            "2: ofer_sets: unknown key; did you mean offer_sets?",
            "3: when_full: write one of: refuse, evict",
            "4: require_set: this is a whole number; write true or false",
            "5: state: the path is relative; write it from / on",
            "6: redirect_to: http:// is not encrypted and refused; write https://",
            "7: name: not a host name, such as push.example.net; without port, scheme or path",
            "8: alternative: not a port or the name webpush, with or without an IP address, such as webpush or [::]:8444",
            "9: subscribe_token_file: this is a whole number; write text in quotes",
        ]
    );
    let both = errors("offer_sets = false\nrequire_set = true\n");
    assert_eq!(both, ["2: require_set: not beside offer_sets = false; remove one of them"]);
}

/// A-PS-74, A-PS-75, A-PS-80, A-PS-102: who asks for messages of what an operator ends is told, and the
/// connection goes on.
#[tokio::test(flavor = "local")]
async fn a_ps_74_what_an_operator_ends_is_gone() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let one = client.subscribe(None).await;
    let two = client.subscribe(Some(&one.set)).await;
    let fields = [("ttl", "60"), ("prefer", "respond-async")];
    let sent = client.request("POST", &two.push, &fields, b"").await;
    let base = format!("{}/", client.origin).parse().expect("a URI");
    let receipts = link::find(&sent.fields, link::RECEIPT, &base).expect("a link").expect("a good one");
    let operator = rig.running.operator();
    for path in ["/AAAAAAAAAAAAAAAAAAAAAA", "/subscribe", ""] {
        assert_eq!(operator.expire(path).await, Err(ExpireError::Unknown));
    }
    assert_eq!(operator.expire(&one.push).await, Err(ExpireError::IsPush));
    let mut agent = RawUserAgent::connect(&rig, &[]).await;
    for (stream, path) in [(1, receipts.path()), (3, &one.subscription), (5, &two.set)] {
        agent.request(stream, "GET", path, &[]).await;
        // The stored message may come first.
        agent.barrier().await;
        operator.expire(path).await.expect("it is there");
        let answer = agent.expect(HEADERS, stream).await;
        assert_eq!((answer.payload[0], answer.ends_stream()), (STATUS_404, true));
        agent.barrier().await;
        assert_eq!(operator.expire(path).await, Err(ExpireError::Unknown));
        assert_eq!(client.request("GET", path, &[], b"").await.status, 404);
    }
    for made in [&one, &two] {
        assert_eq!(client.request("POST", &made.push, &[("ttl", "5")], b"").await.status, 404);
        assert_eq!(client.request("GET", &made.subscription, &[], b"").await.status, 404);
    }
    drop((agent, client, operator));
    let rig = rig.restart().await;
    let mut client = rig.client().await;
    assert_eq!(client.request("GET", &one.set, &[], b"").await.status, 404, "it was on the disk");
}

fn service(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(BINARY);
    command.current_dir(folder).arg("service").args(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).ok();
    child.wait_with_output().expect("it ends")
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A-PS-102: the command reaches the running service by a socket for its user alone, and prints no URL.
#[test]
fn a_ps_102_the_command_reaches_the_running_service() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    std::fs::write(folder.path().join("s.toml"), format!("listen = \"127.0.0.1:0\"\nstate = {state:?}\n"))
        .expect("written");
    let arguments = ["expire", "--config", "s.toml"];
    let url = "https://localhost/AAAAAAAAAAAAAAAAAAAAAA\n";
    let complaint = |input: &str| {
        let ended = service(folder.path(), &arguments, input);
        assert!(ended.stdout.is_empty());
        (ended.status.code(), String::from_utf8(ended.stderr).expect("text"))
    };
    let (code, told) = complaint(url);
    assert!(code == Some(1) && told.contains("start the push service"), "{told}");
    let mut command = Command::new(BINARY);
    command.current_dir(folder.path()).args(["service", "--config", "s.toml"]).stdout(Stdio::piped());
    let mut child = Killed(command.spawn().expect("it runs"));
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert!(line.starts_with("listening https://127.0.0.1:"), "{line}");
    let mode = std::fs::metadata(state.join("control.sock")).expect("it listens").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (code, told) = complaint(url);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("has no such resource") && !told.contains("AAAA"), "{told}");
    let (code, told) = complaint("nothing of the kind AAAA");
    assert!(code == Some(2) && told.contains("standard input holds no URL") && !told.contains("AAAA"), "{told}");
}

/// A-PS-70: a service with a wrong configuration does not start, and the check says the same.
#[test]
fn a_ps_70_a_wrong_configuration_starts_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("s.toml");
    let state = folder.path().join("state");
    std::fs::write(&file, format!("state = {state:?}\nmessage_bytes_max = 4095\n")).expect("written");
    for arguments in [&["--config", "s.toml"][..], &["check", "--config", "s.toml"]] {
        let ended = service(folder.path(), arguments, "");
        let told = String::from_utf8(ended.stderr).expect("text");
        assert_eq!(ended.status.code(), Some(2), "{told}");
        assert!(told.contains("s.toml:2: message_bytes_max: out of bounds; write a number from 4096"), "{told}");
    }
    assert!(!state.exists());
    std::fs::write(&file, "subscribe_token_file = \"/nothing\"\n").expect("written");
    let ended = service(folder.path(), &["check", "--config", "s.toml"], "");
    let told = String::from_utf8(ended.stderr).expect("text");
    assert!(
        ended.status.code() == Some(2) && told.contains("s.toml:1: subscribe_token_file: /nothing cannot"),
        "{told}"
    );
    std::fs::write(&file, "").expect("written");
    assert_eq!(service(folder.path(), &["check", "--config", "s.toml"], "").stdout, b"ok\n");
}
