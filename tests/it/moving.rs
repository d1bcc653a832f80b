//! The identity of a gateway moves to another board: the real binaries, and a person at a terminal.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use fieldgate::proto::lasting::Said;
use fieldgate::proto::record::Record;
use fieldgate::store::Change;
use fieldgate::store::file::FileFlash;
use fieldgate::store::log::{Capacity, Log};
use fieldgate::time::UnixTime;
use fieldgate::webpush::alt_svc::Alternative;
use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};

use crate::process::{BINARY, Process, Site, await_true, pause};

/// All that the processes can say holds no secret.
const LOUD: &[(&str, &str)] = &[("FIELDGATE_LOG", "trace")];
const PASSPHRASE: &str = "four random words here";

/// Runs the binary with files of 8 blocks of 512 octets at most, which is no room for anything new.
const ON_A_FULL_DISK: &str = "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"";

/// Two boards: the one of the site, and another one with the same configuration.
struct Boards {
    site: Site,
    service: Process,
}

impl Boards {
    fn new() -> Self {
        let (site, service) = Site::with_service_in(LOUD);
        site.configure(&[("d1", site.device_link("d1"))]);
        let text = fs::read_to_string(site.path("fieldgate.toml")).expect("readable");
        fs::write(site.path("other.toml"), text.replace(&site.path("gateway"), &site.path("other"))).expect("written");
        let boards = Self { site, service };
        boards.write_passphrase("passphrase", PASSPHRASE);
        boards.write_passphrase("wrong", "another one of these");
        boards
    }

    fn write_passphrase(&self, name: &str, text: &str) {
        fs::write(self.site.path(name), text).expect("written");
        fs::set_permissions(self.site.path(name), fs::Permissions::from_mode(0o600)).expect("it is ours");
    }

    /// The first board makes a subscription and stops.
    fn subscribed(&self) {
        let mut gateway = self.site.start_gateway();
        self.site.subscription("d1");
        gateway.terminate();
    }

    fn export(&self, more: &[&str]) -> Output {
        let (to, passphrase) = (self.site.path("export"), self.site.path("passphrase"));
        self.site.command(&[&["export", "--to", &to, "--passphrase-file", &passphrase], more].concat())
    }

    fn import(&self, more: &[&str]) -> Output {
        self.import_with("export", "passphrase", more)
    }

    fn import_with(&self, from: &str, passphrase: &str, more: &[&str]) -> Output {
        let (from, passphrase) = (self.site.path(from), self.site.path(passphrase));
        let import = ["import", "--from", &from, "--passphrase-file", &passphrase];
        self.site.command_of("other.toml", &[&import, more].concat())
    }

    /// What is on the flash of a board that does not run.
    fn facts(&self, folder: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let flash = FileFlash::open(self.site.path(folder).as_ref()).expect("nobody else has it");
        let (log, _) = Log::open(flash, Capacity::default()).expect("it opens");
        log.facts().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    fn status(&self, config: &str) -> serde_json::Value {
        let output = self.site.command_of(config, &["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }
}

fn done(output: &Output) {
    assert!(output.status.success(), "{}", told(output));
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn refused(output: &Output, code: i32, told_with: &[&str]) {
    let told = told(output);
    assert_eq!(output.status.code(), Some(code), "{told}");
    for part in told_with {
        assert!(told.contains(part), "{part:?} is not in: {told}");
    }
    assert!(!told.contains(PASSPHRASE) && !told.contains("https://"), "{told}");
}

/// How a service was reached from one network does not move to another one; everything else does.
#[test]
fn alternatives_stay_with_their_board() {
    let boards = Boards::new();
    boards.subscribed();
    let before = boards.facts("gateway");
    let places = vec![(Alternative { host: "a.example".to_owned(), port: 1001 }, 86_400)];
    let record = Record::Alternatives("push.example".to_owned(), Said { at: UnixTime(1_800_000_000), places });
    let flash = FileFlash::open(boards.site.path("gateway").as_ref()).expect("nobody else has it");
    let (mut log, _) = Log::open(flash, Capacity::default()).expect("it opens");
    log.append(vec![Change::put(&record.key().encode(), &record.encode())]).expect("it fits");
    log.sync().expect("safe");
    drop(log);
    done(&boards.export(&[]));
    done(&boards.import(&[]));
    assert_eq!(boards.facts("gateway").len(), before.len() + 1);
    assert_eq!(boards.facts("other"), before);
}

/// A-GAP-06: a board is replaced. What is sent to the old push URIs, before, meanwhile and afterwards, comes once each; what
/// the device had acknowledged and the service not heard of is not sent again. Then both run: one yields, and stays away.
#[test]
fn a_board_is_replaced_and_nobody_notices() {
    let mut boards = Boards::new();
    let site = &boards.site;
    let mut first = site.start_gateway();
    let _device = site.start_device("d1", &["--state", &site.path("journal"), "--slow", "1500"]);
    let subscription = site.subscription("d1");
    site.send(&subscription, "before");
    site.await_received("d1", "before");
    await_true("nothing is in flight", || site.status()["in_flight"] == 0);
    // The device acknowledges this one when there is no service to hear of it.
    site.send(&subscription, "owed");
    await_true("it is on its way", || site.status()["in_flight"] == 1);
    pause(Duration::from_millis(500));
    boards.service.kill();
    let site = &boards.site;
    site.await_received("d1", "owed");
    pause(Duration::from_millis(500));
    first.terminate();
    let owed = |facts: &[(Vec<u8>, Vec<u8>)]| {
        facts.iter().filter(|(key, value)| matches!(Record::decode(key, value), Ok(Record::PendingAck(_)))).count()
    };
    assert_eq!(owed(&boards.facts("gateway")), 1);
    done(&boards.export(&[]));
    done(&boards.import(&[]));
    assert_eq!(boards.facts("other"), boards.facts("gateway"));

    boards.service = boards.site.restart_service();
    let site = &boards.site;
    site.await_listening();
    site.send(&subscription, "meanwhile");
    let second = site.spawn("other", &["run", "--config", &site.path("other.toml")]);
    site.await_received("d1", "meanwhile");
    site.send(&subscription, "afterwards");
    site.await_received("d1", "afterwards");
    assert_eq!(site.received("d1"), ["before", "owed", "meanwhile", "afterwards"]);
    let duplicates = site.lines("device-d1.out").iter().filter(|line| line.contains("\"duplicate\"")).count();
    assert_eq!(duplicates, 0, "what was acknowledged did not come again");
    await_true("the service hears of all", || boards.status("other.toml")["in_flight"] == 0);
    assert_eq!(boards.status("other.toml")["uplink"], "connected");

    // Both run; the port of the device is the second one's.
    let text = fs::read_to_string(site.path("fieldgate.toml")).expect("readable");
    fs::write(site.path("fieldgate.toml"), text.replace("d1.tty", "d2.tty")).expect("written");
    let _first = site.start_gateway();
    let displaced = || {
        let statuses = ["fieldgate.toml", "other.toml"].map(|config| boards.status(config));
        statuses.iter().filter(|status| status["uplink"] == "displaced").count()
    };
    let yields = || {
        let lines = [site.lines("gateway.err"), site.lines("other.err")].concat();
        lines.iter().filter(|line| line.contains("another gateway has the identity")).count()
    };
    await_true("one is displaced", || displaced() == 1);
    for _ in 0..10 {
        pause(Duration::from_millis(200));
        assert_eq!((displaced(), yields()), (1, 1), "the other one is left alone");
    }
    drop(second);
}

/// Export needs a gateway that does not run, and something to export; it overwrites nothing unasked. What it writes is for
/// its owner alone, and tells nothing.
#[test]
fn an_export_is_for_its_owner_alone() {
    let boards = Boards::new();
    let site = &boards.site;
    refused(&boards.export(&[]), 1, &["holds nothing to export", "--config"]);
    assert!(!fs::exists(site.path("gateway")).expect("readable"), "nothing was made");
    let mut gateway = site.start_gateway();
    let subscription = site.subscription("d1");
    refused(&boards.export(&[]), 1, &["the gateway is running", "systemctl stop"]);
    gateway.terminate();
    boards.write_passphrase("short", "eleven char");
    let short = site.path("short");
    let with_short = site.command(&["export", "--to", &site.path("export"), "--passphrase-file", &short]);
    refused(&with_short, 2, &["12 characters"]);
    fs::set_permissions(site.path("passphrase"), fs::Permissions::from_mode(0o644)).expect("it is ours");
    refused(&boards.export(&[]), 2, &["0644", "chmod 600"]);
    fs::set_permissions(site.path("passphrase"), fs::Permissions::from_mode(0o600)).expect("it is ours");
    assert!(!fs::exists(site.path("export")).expect("readable"));

    let exported = boards.export(&[]);
    done(&exported);
    let mode = fs::metadata(site.path("export")).expect("it is there").permissions().mode() & 0o777;
    let octets = fs::read(site.path("export")).expect("readable");
    assert_eq!(mode, 0o600);
    let printed = String::from_utf8_lossy(&exported.stdout).into_owned();
    let endpoint = subscription.endpoint.as_str();
    for text in [String::from_utf8_lossy(&octets).into_owned(), printed, told(&exported)] {
        assert!(!text.contains(endpoint) && !text.contains("https://") && !text.contains(PASSPHRASE), "{text}");
    }
    refused(&boards.export(&[]), 1, &["exists", "--force"]);
    assert_eq!(fs::read(site.path("export")).expect("readable"), octets);
    done(&boards.export(&["--force"]));
    assert_ne!(fs::read(site.path("export")).expect("readable"), octets, "another salt");
}

/// Each thing that is wrong with a file is told apart, with the next step, and nothing is made or changed.
#[test]
fn what_cannot_be_imported_changes_nothing() {
    let boards = Boards::new();
    let site = &boards.site;
    boards.subscribed();
    done(&boards.export(&[]));
    let octets = fs::read(site.path("export")).expect("readable");
    let changed = |at: usize, value: u8| {
        let mut octets = octets.clone();
        octets[at] = value;
        octets
    };
    refused(&boards.import_with("export", "wrong", &[]), 1, &["another passphrase", "try again"]);
    refused(&boards.import_with("absent", "passphrase", &[]), 1, &["--from: ", "fieldgate export"]);
    for (content, told) in [
        (octets[..octets.len() - 1].to_vec(), "it is cut"),
        (octets[..30].to_vec(), "it is cut"),
        ([&octets[..], b"x"].concat(), "something follows its end"),
        (b"state = \"/var/lib/fieldgate\"".to_vec(), "it is no export"),
        (changed(8, 2), "it has format 2"),
        (changed(13, 0xff), "more memory or time"),
        (changed(octets.len() - 1, octets[octets.len() - 1] ^ 1), "changed or damaged"),
    ] {
        fs::write(site.path("bad"), content).expect("written");
        refused(&boards.import_with("bad", "passphrase", &[]), 1, &["--from: ", told]);
    }
    assert!(!fs::exists(site.path("other")).expect("readable"), "nothing was made");

    // Of a configuration without its devices all subscriptions would end, and without its push service be forgotten.
    let text = fs::read_to_string(site.path("other.toml")).expect("readable");
    fs::write(site.path("other.toml"), text.replace(site.authority(), "push.example:8443")).expect("written");
    refused(&boards.import(&[]), 1, &["lacks push services", site.authority(), "copy the configuration"]);
    fs::write(site.path("other.toml"), text.replace("id = \"d1\"", "id = \"d2\"")).expect("written");
    refused(&boards.import(&[]), 1, &["lacks devices", "d1", "copy the configuration"]);
    assert!(!fs::exists(site.path("other")).expect("readable"), "nothing was made");
}

/// An identity takes the place of another one only when that is asked for, and never of one in use.
#[test]
fn an_identity_in_use_is_not_replaced() {
    let boards = Boards::new();
    let site = &boards.site;
    boards.subscribed();
    done(&boards.export(&[]));
    let mut other = site.spawn("other", &["run", "--config", &site.path("other.toml")]);
    let has_subscription = || {
        let shown = site.command_of("other.toml", &["device", "show", "d1", "--json"]);
        shown.status.success()
    };
    await_true("an identity of its own", has_subscription);
    for more in [&[][..], &["--replace"]] {
        refused(&boards.import(more), 1, &["the gateway is running", "systemctl stop"]);
    }
    other.terminate();
    let own = boards.facts("other");
    assert_ne!(own, boards.facts("gateway"));
    refused(&boards.import(&[]), 1, &["holds a state already", "fieldgate reset", "--replace"]);
    refused(&boards.import_with("export", "wrong", &["--replace"]), 1, &["another passphrase"]);
    assert_eq!(boards.facts("other"), own);
    let [from, passphrase, config] = ["export", "passphrase", "other.toml"].map(|name| site.path(name));
    let import = ["import", "--replace", "--from", &from, "--passphrase-file", &passphrase, "--config", &config];
    let full = Command::new("sh").args(["-c", ON_A_FULL_DISK, BINARY]).args(import).output().expect("it runs");
    refused(&full, 1, &["the medium failed", "again with --replace", "or nothing"]);
    assert_eq!(boards.facts("other"), own);
    done(&boards.import(&["--replace"]));
    assert_eq!(boards.facts("other"), boards.facts("gateway"), "nothing of its own is left");
}

/// Who imports as another user would leave files that the gateway cannot read.
#[test]
fn the_state_of_another_user_is_left_to_them() {
    let boards = Boards::new();
    boards.subscribed();
    done(&boards.export(&[]));
    fs::create_dir(boards.site.path("other")).expect("made");
    let nobody = 65_534;
    if std::os::unix::fs::chown(boards.site.path("other"), Some(nobody), Some(nobody)).is_err() {
        return; // Only root can give something away, and make this mistake.
    }
    refused(&boards.import(&[]), 1, &["belongs to the user 65534", "runuser"]);
    assert_eq!(fs::read_dir(boards.site.path("other")).expect("readable").count(), 0);
}

/// A person types it, sees nothing of it, and finds the terminal as it was; also after ctrl-C.
#[test]
fn a_passphrase_is_typed_unseen() {
    let boards = Boards::new();
    let site = &boards.site;
    boards.subscribed();
    let config = site.path("fieldgate.toml");
    let to = site.path("typed");
    let export = ["export", "--config", &config, "--to", &to];
    for (typed, code, said) in [
        (&[PASSPHRASE, "another one of these"][..], 2, "two different passphrases"),
        (&["too short\n"], 2, "12 characters"),
        (&["half of it\x03"], 1, "interrupted"),
        (&[PASSPHRASE, PASSPHRASE], 0, ""),
    ] {
        assert!(!fs::exists(&to).expect("readable"), "nothing was written");
        let (ran, shown) = at_terminal(&export, typed);
        assert_eq!(ran.status.code(), Some(code), "{}", told(&ran));
        assert!(told(&ran).contains(said), "{}", told(&ran));
        assert!(
            shown.contains("New passphrase: ") && !typed.iter().any(|line| shown.contains(line.trim())),
            "{shown:?}"
        );
    }
    let other = site.path("other.toml");
    let (ran, _) = at_terminal(&["import", "--config", &other, "--from", &to], &[PASSPHRASE]);
    done(&ran);
    assert_eq!(boards.facts("other"), boards.facts("gateway"));

    // Where nobody can be asked, that is said.
    let nobody = Command::new("setsid").arg("-w").arg(BINARY).args(export).arg("--force").stdin(Stdio::null()).output();
    refused(&nobody.expect("it runs"), 2, &["no terminal", "--passphrase-file"]);
}

/// Runs the binary at a terminal of its own, types a line at each prompt, and gives back what the terminal showed.
fn at_terminal(arguments: &[&str], typed: &[&str]) -> (Output, String) {
    let pty = openpty(None, None).expect("a terminal");
    let is_echoing = || tcgetattr(&pty.master).expect("it is there").local_flags.contains(LocalFlags::ECHO);
    let mut terminal = File::from(pty.master.try_clone().expect("it is open"));
    let mut command = Command::new("setsid");
    command.args(["-c", "-w", BINARY]).args(arguments).stdin(pty.slave.try_clone().expect("it is open"));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut shown = String::new();
    for (index, line) in typed.iter().enumerate() {
        while shown.matches(": ").count() <= index {
            let mut octets = [0; 256];
            let count = terminal.read(&mut octets).expect("it is open");
            shown += &String::from_utf8_lossy(&octets[..count]);
        }
        assert!(!is_echoing());
        let end = if line.contains('\x03') { "" } else { "\n" };
        terminal.write_all(format!("{}{end}", line.trim_end_matches('\n')).as_bytes()).expect("it is open");
    }
    let output = child.wait_with_output().expect("it ends");
    assert!(is_echoing(), "it is as it was");
    // The line ends are shown, and nothing else.
    terminal.write_all(b"\n").expect("it is open");
    while !shown.ends_with("\r\n\r\n") && !shown.ends_with(": \r\n") {
        let mut octets = [0; 256];
        let count = terminal.read(&mut octets).expect("it is open");
        shown += &String::from_utf8_lossy(&octets[..count]);
    }
    (output, shown)
}
