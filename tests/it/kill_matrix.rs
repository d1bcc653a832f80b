//! Each process is killed, ended and stopped at each moment that matters, and the messages are counted.
//!
//! ```text
//! application server -------------------> service <- uplink -> gateway <- link -> d1, the one that may be the victim
//!   (this test)                                                    ^---- serial --> d2, which only has to go on
//! ```
//!
//! `uplink` and `link` are lines that the test can hold at any octet, so that each moment is met exactly. By default
//! each victim is dealt each blow at one of the moments, and a stopped process rests for two seconds.
//! `FIELDGATE_KILL_MATRIX=all` takes every moment, any other value the cells with such a name.
//! `FIELDGATE_KILL_STOP_MS` is how long a process is stopped, `FIELDGATE_KILL_JOBS` how many cells run at once.

mod ledger;
mod line;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use fieldgate::limits::DELIVERY_PER_DEVICE_MAX;

use crate::process::{Process, Site, await_true, now, pause};
use ledger::{Ledger, Tally};
use line::Line;

/// The file with what d1's application received, if it keeps one.
const JOURNAL: &str = "d1.journal";
const STOP: Duration = Duration::from_secs(2);
const JOB_COUNT: usize = 4;
const SMALL_BYTES: usize = 40;
const LARGE_BYTES: usize = 3_900;
/// A place in the middle of a large message, and of a frame of 256 octets.
const MIDDLE_BYTES: u64 = 2_003;
const BURST_SENDER_COUNT: usize = 6;
const BURST_PER_SENDER: usize = 8;

const VICTIMS: [Victim; 4] = [Victim::Gateway, Victim::Service, Victim::Device, Victim::ForgetfulDevice];
const BLOWS: [Blow; 3] = [Blow::Kill, Blow::Terminate, Blow::Stop];
const MOMENTS: [Moment; 6] = [
    Moment::Idle,
    Moment::MidFrame,
    Moment::BeforeDeviceAck,
    Moment::BeforeDelete,
    Moment::BeforeAnswer,
    Moment::Burst,
];
/// When each victim is dealt each blow by default.
const SAMPLE: [[Moment; 3]; 4] = [
    [Moment::BeforeDelete, Moment::Idle, Moment::MidFrame],
    [Moment::Burst, Moment::BeforeDelete, Moment::BeforeAnswer],
    [Moment::MidFrame, Moment::BeforeDeviceAck, Moment::Burst],
    [Moment::BeforeDeviceAck, Moment::MidFrame, Moment::BeforeDelete],
];

/// A-UA-25, A-UA-26, A-UA-27, A-GAP-10: what is accepted reaches its application once, and nothing is acknowledged that
/// an application does not have, whatever is killed, ended or stopped when.
#[test]
fn each_process_is_killed_ended_and_stopped_at_each_moment() {
    let wanted = std::env::var("FIELDGATE_KILL_MATRIX").unwrap_or_default();
    let cells: Vec<Cell> = cells().filter(|cell| cell.is_wanted(&wanted)).collect();
    assert!(!cells.is_empty(), "no cell is called {wanted:?}");
    let cells = Mutex::new(cells);
    let failed: Mutex<Vec<String>> = Mutex::default();
    let next = || cells.lock().expect("nobody panics here").pop();
    std::thread::scope(|scope| {
        for _ in 0..number("FIELDGATE_KILL_JOBS").unwrap_or(JOB_COUNT) {
            scope.spawn(|| {
                while let Some(cell) = next() {
                    // On a thread of its own, so that a cell that fails leaves the others alone.
                    match std::thread::scope(|scope| scope.spawn(|| cell.run()).join()) {
                        Ok(outcome) => println!("{cell}: {outcome}"),
                        Err(_) => {
                            println!("{cell}: FAILED");
                            failed.lock().expect("nobody panics here").push(cell.to_string());
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nobody panics here");
    assert!(failed.is_empty(), "failed: {failed:?}");
}

/// All cells.
fn cells() -> impl Iterator<Item = Cell> {
    let positions = (0..VICTIMS.len()).flat_map(|victim| (0..BLOWS.len()).map(move |blow| (victim, blow)));
    positions.flat_map(|(victim, blow)| {
        MOMENTS.into_iter().map(move |moment| {
            let is_sample = moment == SAMPLE[victim][blow];
            Cell { victim: VICTIMS[victim], blow: BLOWS[blow], moment, is_sample }
        })
    })
}

fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Victim {
    Gateway,
    Service,
    /// It keeps a journal.
    Device,
    /// It forgets all when it ends.
    ForgetfulDevice,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Blow {
    Kill,
    Terminate,
    /// Stopped, and continued later.
    Stop,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Nothing is under way.
    Idle,
    /// Part of a frame of a large message has left.
    MidFrame,
    /// The application has the messages, and no device ack has reached the gateway.
    BeforeDeviceAck,
    /// The device acknowledged, and no DELETE has reached the service.
    BeforeDelete,
    /// The service removed the messages, and no answer has reached the gateway.
    BeforeAnswer,
    /// Messages are being posted: some are answered, some stored, some neither.
    Burst,
}

/// What is done to whom and when.
struct Cell {
    victim: Victim,
    blow: Blow,
    moment: Moment,
    is_sample: bool,
}

impl Cell {
    fn is_wanted(&self, wanted: &str) -> bool {
        match wanted {
            "" => self.is_sample,
            "all" => true,
            part => self.to_string().contains(part),
        }
    }

    /// How many messages may come twice: those that its application had and the gateway could not know of.
    fn may_double(&self) -> RangeInclusive<usize> {
        match (self.victim, self.blow, self.moment) {
            (Victim::ForgetfulDevice, Blow::Kill, Moment::BeforeDeviceAck) => {
                DELIVERY_PER_DEVICE_MAX..=DELIVERY_PER_DEVICE_MAX
            }
            (Victim::ForgetfulDevice, Blow::Kill | Blow::Terminate, _) => 0..=DELIVERY_PER_DEVICE_MAX,
            _ => 0..=0,
        }
    }

    fn run(&self) -> Outcome {
        let start = now();
        let (stage, mut victim, _others) = Stage::set(self.victim);
        stage.warm_up();
        std::thread::scope(|scope| {
            let posting = stage.await_moment(scope, self.moment);
            let struck = now();
            stage.strike(&mut victim, self.blow);
            stage.others_serve();
            match self.blow {
                Blow::Kill | Blow::Terminate => victim = self.victim.start(&stage.site),
                Blow::Stop => {
                    pause(stop_time().saturating_sub(struck.elapsed()));
                    victim.signal("CONT");
                }
            }
            posting.into_iter().for_each(|sender| sender.join().expect("all was posted"));
        });
        stage.serves_again();
        let (d1, d2) = stage.tallies();
        assert!(self.may_double().contains(&d1.doubled), "{} came twice", d1.doubled);
        assert_eq!(d2.doubled, 0, "the other device was not touched");
        Outcome { d1, d2, seconds: start.elapsed().as_secs_f32() }
    }
}

fn stop_time() -> Duration {
    number("FIELDGATE_KILL_STOP_MS").map_or(STOP, |stop_ms| Duration::from_millis(stop_ms as u64))
}

impl Victim {
    /// Starts it, the first time or again.
    fn start(self, site: &Site) -> Process {
        let (place, journal) = (format!("unix:{}", site.path("d1")), site.path(JOURNAL));
        match self {
            Self::Gateway => site.start_gateway(),
            Self::Service => site.restart_service(),
            Self::Device => site.start_device_at(&place, "d1", &["--state", &journal]),
            Self::ForgetfulDevice => site.start_device_at(&place, "d1", &[]),
        }
    }
}

/// All of a cell but its processes.
struct Stage {
    victim: Victim,
    site: Site,
    uplink: Line,
    link: Line,
    d1: Ledger,
    d2: Ledger,
}

impl Stage {
    /// Starts everything; returns the victim and the other processes too.
    fn set(victim: Victim) -> (Self, Process, Vec<Process>) {
        let (site, service) = Site::with_service();
        let (uplink, address) = Line::tcp(site.authority().parse().expect("an address"));
        let link = Line::unix(site.path("d1").into(), site.path("d1.gateway").into());
        let url = site.url.replacen(site.authority(), &address.to_string(), 1);
        let links = [("d1", format!("unix:{}", site.path("d1.gateway"))), ("d2", site.device_link("d2"))];
        site.configure_with(&url, &links);
        let d2 = site.start_device("d2", &[]);
        site.line_of("device-d2.out", "{");
        let gateway = Victim::Gateway.start(&site);
        let (is_forgetful, file) = match victim {
            Victim::ForgetfulDevice => (true, "device-d1.out"),
            _ => (false, JOURNAL),
        };
        let d1 = if is_forgetful { Victim::ForgetfulDevice } else { Victim::Device }.start(&site);
        let ledgers = (Ledger::new(&site, "d1", file), Ledger::new(&site, "d2", "device-d2.out"));
        let stage = Self { victim, site, uplink, link, d1: ledgers.0, d2: ledgers.1 };
        match victim {
            Victim::Gateway => (stage, gateway, vec![service, d1, d2]),
            Victim::Service => (stage, service, vec![gateway, d1, d2]),
            Victim::Device | Victim::ForgetfulDevice => (stage, d1, vec![service, gateway, d2]),
        }
    }

    /// Messages pass both ways of all lines.
    fn warm_up(&self) {
        self.d1.post(1, LARGE_BYTES);
        self.d2.post(1, SMALL_BYTES);
        [&self.d1, &self.d2].into_iter().for_each(|ledger| ledger.settle(&self.site));
    }

    /// Brings about the moment; what is still being posted then is returned.
    fn await_moment<'s>(&'s self, scope: &'s Scope<'s, '_>, moment: Moment) -> Vec<ScopedJoinHandle<'s, ()>> {
        match moment {
            Moment::Idle => {}
            Moment::MidFrame => {
                let line = if self.victim == Victim::Service { &self.uplink } else { &self.link };
                line.down().hold_after(MIDDLE_BYTES);
                self.d1.post(3, LARGE_BYTES);
                line.down().await_held();
            }
            Moment::BeforeDeviceAck => {
                self.link.up().hold_after(0);
                self.post_a_window();
                self.link.up().await_held();
            }
            Moment::BeforeDelete | Moment::BeforeAnswer => {
                self.uplink.up().hold_after(0);
                self.post_a_window();
                await_true("all device acks at the gateway", || self.status()["devices"][0]["in_flight"] == 0);
                self.uplink.up().await_held();
                if moment == Moment::BeforeAnswer {
                    self.uplink.down().hold_after(0);
                    self.uplink.up().open();
                    self.d1.settle(&self.site);
                }
            }
            Moment::Burst => {
                let start = self.d1.accepted.load(Ordering::Relaxed);
                let send = || self.d1.post(BURST_PER_SENDER, SMALL_BYTES);
                let senders = (0..BURST_SENDER_COUNT).map(|_| scope.spawn(send)).collect();
                let enough = start + BURST_SENDER_COUNT;
                await_true("a burst", || self.d1.accepted.load(Ordering::Relaxed) > enough);
                return senders;
            }
        }
        Vec::new()
    }

    /// All messages that may be unacknowledged at once come to the application, and none is gone at the service.
    fn post_a_window(&self) {
        self.d1.post(DELIVERY_PER_DEVICE_MAX, SMALL_BYTES);
        await_true("all messages at the application", || self.d1.is_received(&self.site));
        assert_eq!(self.d1.held(&self.site), DELIVERY_PER_DEVICE_MAX, "a device ack or a DELETE has passed");
    }

    fn strike(&self, victim: &mut Process, blow: Blow) {
        match blow {
            Blow::Kill => {
                victim.kill();
                // What was on its way from or to it is lost.
                if matches!(self.victim, Victim::Gateway | Victim::Service) {
                    self.uplink.cut();
                }
                if self.victim != Victim::Service {
                    self.link.cut();
                }
            }
            Blow::Terminate => victim.terminate(),
            Blow::Stop => victim.signal("STOP"),
        }
        [&self.uplink, &self.link].into_iter().for_each(Line::open);
    }

    /// What does not need the victim goes on without it.
    fn others_serve(&self) {
        match self.victim {
            Victim::Gateway => {
                self.d1.post(2, SMALL_BYTES);
                self.d2.post(2, SMALL_BYTES);
            }
            Victim::Service => assert_eq!(self.status()["devices"][1]["presence"], "ready"),
            Victim::Device | Victim::ForgetfulDevice => {
                self.d1.post(2, SMALL_BYTES);
                self.d2.post(4, SMALL_BYTES);
                self.d2.settle(&self.site);
            }
        }
    }

    /// Everything arrives and is acknowledged, what was posted before and what is posted now.
    fn serves_again(&self) {
        for ledger in [&self.d1, &self.d2] {
            ledger.post(2, SMALL_BYTES);
            ledger.post(1, LARGE_BYTES);
            ledger.settle(&self.site);
            // Behind this one nothing is left on the link.
            ledger.post(1, SMALL_BYTES);
            ledger.settle(&self.site);
        }
        await_true("nothing is left in flight", || self.status()["in_flight"] == 0);
    }

    fn tallies(&self) -> (Tally, Tally) {
        let printed: Vec<String> = self.site.received("d1");
        let distinct: BTreeSet<&String> = printed.iter().collect();
        assert!(self.victim == Victim::ForgetfulDevice || printed.len() == distinct.len(), "nothing is printed twice");
        (self.d1.tally(&self.site), self.d2.tally(&self.site))
    }

    fn status(&self) -> serde_json::Value {
        let output = self.site.command(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }
}

/// How a cell went.
struct Outcome {
    d1: Tally,
    d2: Tally,
    seconds: f32,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { sent, unknown, received, doubled } = self.d1;
        let (other, seconds) = (self.d2.received, self.seconds);
        write!(f, "sent {sent} (and {unknown} unanswered), received {received}, doubled {doubled}; ")?;
        write!(f, "other device {other} of {}; {seconds:.1} s", self.d2.sent)
    }
}

/// Its name, by which it can be chosen.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let victim = match self.victim {
            Victim::Gateway => "gateway",
            Victim::Service => "service",
            Victim::Device => "device with state",
            Victim::ForgetfulDevice => "device without state",
        };
        let blow = match self.blow {
            Blow::Kill => "kill -9",
            Blow::Terminate => "SIGTERM",
            Blow::Stop => "SIGSTOP",
        };
        let moment = match self.moment {
            Moment::Idle => "idle",
            Moment::MidFrame => "mid-frame",
            Moment::BeforeDeviceAck => "before its ack",
            Moment::BeforeDelete => "before DELETE",
            Moment::BeforeAnswer => "before its 204",
            Moment::Burst => "burst",
        };
        write!(f, "{victim}, {blow}, {moment}")
    }
}
