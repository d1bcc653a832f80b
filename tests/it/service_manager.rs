//! The real binary under a service manager: what it tells on the notification socket, and that SIGHUP is a reload.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::process::{PATIENCE, Site, await_true, pause};

const ALIVE_MS: u64 = 200;

/// The other end of the notifications, `sd_notify(3)`.
struct Notified {
    socket: UnixDatagram,
    told: Vec<String>,
}

#[test]
fn readiness_needs_no_uplink_and_the_status_follows_it() {
    let (site, mut service) = Site::with_service();
    site.configure(&[("d1", site.device_link("d1"))]);
    service.kill();
    let mut notified = Notified::bind(&site);
    let _gateway = notified.start(&site);
    notified.await_line("READY=1");
    notified.await_line(&format!("STATUS={}: waiting (", site.authority()));
    let _service = site.restart_service();
    notified.await_line(&format!("STATUS={}: connected", site.authority()));
}

/// The loop itself says that it comes round: a process that stands still says nothing.
#[test]
fn only_a_loop_that_comes_round_feeds_the_watchdog() {
    let (site, _service) = Site::with_service();
    site.configure(&[("d1", site.device_link("d1"))]);
    let mut notified = Notified::bind(&site);
    let mut gateway = notified.start(&site);
    for _ in 0..3 {
        notified.await_line("WATCHDOG=1");
    }
    gateway.signal("STOP");
    notified.drain();
    pause(Duration::from_millis(3 * ALIVE_MS));
    notified.drain();
    assert!(!notified.told.iter().any(|line| line == "WATCHDOG=1"), "{:?}", notified.told);
    gateway.signal("CONT");
    notified.await_line("WATCHDOG=1");
    gateway.terminate();
    notified.await_line("STOPPING=1");
}

#[test]
fn sighup_reloads_and_a_broken_file_changes_nothing_but_is_shown() {
    let (site, _service) = Site::with_service();
    site.configure(&[("d1", site.device_link("d1"))]);
    let mut notified = Notified::bind(&site);
    let gateway = notified.start(&site);
    notified.await_line("READY=1");
    site.configure(&[("d1", site.device_link("d1")), ("d2", site.device_link("d2"))]);
    gateway.signal("HUP");
    notified.await_reload();
    assert!(list(&site).contains("\"d2\""));
    fs::write(site.path("fieldgate.toml.good"), fs::read(site.path("fieldgate.toml")).expect("read")).expect("written");
    fs::write(site.path("fieldgate.toml"), "state = 7\n").expect("written");
    gateway.signal("HUP");
    notified.await_reload();
    let line = notified.await_line("STATUS=");
    assert!(line.contains("configuration not reloaded: the configuration has 2 errors: "), "{line}");
    assert!(line.contains("fieldgate.toml:1: state: this is a whole number"), "{line}");
    fs::rename(site.path("fieldgate.toml.good"), site.path("fieldgate.toml")).expect("renamed");
    assert!(list(&site).contains("\"d2\""), "the old one is in effect");
    let status = site.command(&["status"]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("\nconfiguration not reloaded: the configuration has 2 errors"), "{status}");
}

/// The socket is open to the group, and to nobody else.
#[test]
fn the_control_socket_is_for_owner_and_group() {
    use std::os::unix::fs::PermissionsExt as _;
    let (site, _service) = Site::with_service();
    site.configure(&[("d1", site.device_link("d1"))]);
    let mut notified = Notified::bind(&site);
    let _gateway = notified.start(&site);
    notified.await_line("READY=1");
    let mode = fs::metadata(site.path("gateway/control.sock")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}

fn list(site: &Site) -> String {
    String::from_utf8(site.command(&["device", "list", "--json"]).stdout).expect("text")
}

impl Notified {
    fn bind(site: &Site) -> Self {
        let socket = UnixDatagram::bind(site.path("notify.sock")).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a time limit");
        Self { socket, told: Vec::new() }
    }

    fn start(&self, site: &Site) -> crate::process::Process {
        let watchdog = (2 * ALIVE_MS * 1000).to_string();
        site.start_gateway_with(&[("NOTIFY_SOCKET", &site.path("notify.sock")), ("WATCHDOG_USEC", &watchdog)])
    }

    /// Waits for a line that begins so, and forgets everything up to it.
    fn await_line(&mut self, start: &str) -> String {
        await_true(start, || {
            self.receive();
            self.told.iter().any(|line| line.starts_with(start))
        });
        let at = self.told.iter().position(|line| line.starts_with(start)).expect("it was there");
        self.told.drain(..=at).next_back().expect("it was there")
    }

    /// Waits for a whole reload: it says that it begins, when, and that it is over.
    fn await_reload(&mut self) {
        self.await_line("RELOADING=1");
        let since = self.await_line("MONOTONIC_USEC=");
        assert!(since.trim_start_matches("MONOTONIC_USEC=").parse::<u64>().is_ok_and(|usec| usec > 0), "{since}");
        self.await_line("READY=1");
    }

    /// Takes in everything that was said, and forgets what was said before.
    fn drain(&mut self) {
        self.told.clear();
        let start = crate::process::now();
        while self.receive() {
            assert!(start.elapsed() < PATIENCE, "it does not stop talking");
        }
    }

    fn receive(&mut self) -> bool {
        let mut octets = [0; 4096];
        match self.socket.recv(&mut octets) {
            Ok(bytes) => {
                let text = std::str::from_utf8(&octets[..bytes]).expect("text");
                self.told.extend(text.lines().map(str::to_owned));
                true
            }
            Err(error) => {
                use std::io::ErrorKind::{Interrupted, WouldBlock};
                assert!(matches!(error.kind(), WouldBlock | Interrupted), "{error}");
                error.kind() == Interrupted
            }
        }
    }
}
