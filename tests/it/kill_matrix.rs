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
mod stage;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::time::Duration;

use fieldgate::limits::DELIVERY_PER_DEVICE_MAX;

use crate::process::{now, pause};
use ledger::Tally;
use stage::Stage;

const STOP: Duration = Duration::from_secs(2);
const JOB_COUNT: usize = 4;

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
            (Victim::ForgetfulDevice, Blow::Kill, Moment::BeforeDeviceAck) => 1..=DELIVERY_PER_DEVICE_MAX,
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
