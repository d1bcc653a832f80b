//! Random operations on the whole system in simulated time, checked against a reference model.
//!
//! `FIELDGATE_SIM_SEEDS` is the number of seeds, `FIELDGATE_SIM_FIRST` the first one, `FIELDGATE_SIM_TRACE=1` prints
//! every step.

#[path = "../common/sim.rs"]
mod sim;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use sim::invariant::{Bounds, Invariant, Report, Stock, Violation};
use sim::{Climate, Fault, Options};

/// Seeds that a plain test run tries.
const SEED_COUNT: u64 = 300;
/// Messages of that part of a month that a plain test run tries.
const MONTH_MESSAGES: u64 = 8_000;
const MONTH_MESSAGES_PER_DAY: u64 = 33_333;

#[test]
fn random_operations_keep_every_promise() {
    let count = number("FIELDGATE_SIM_SEEDS").unwrap_or(SEED_COUNT);
    let first = number("FIELDGATE_SIM_FIRST").unwrap_or_else(seed_of_commit);
    let trace = number("FIELDGATE_SIM_TRACE") == Some(1);
    #[allow(clippy::disallowed_methods, reason = "how long the test took is for a person")]
    let start = std::time::Instant::now();
    let (mut sums, mut failed) = (Sums::default(), Vec::new());
    for seed in first..first + count {
        let options = Options { seed, climate: None, fault: None, bounds: Bounds::default(), trace };
        match run(options) {
            Ok(report) => sums.add(&report),
            Err(text) => failed.push((seed, text)),
        }
    }
    println!("{count} seeds, {first} to {}, in {:.1} s", first + count - 1, start.elapsed().as_secs_f64());
    sums.print();
    for (seed, text) in failed.iter().take(20) {
        println!(
            "seed {seed}: {text}\n  FIELDGATE_SIM_FIRST={seed} FIELDGATE_SIM_SEEDS=1 FIELDGATE_SIM_TRACE=1 \
             cargo test --test it simulation::random_operations -- --nocapture"
        );
    }
    assert!(failed.is_empty(), "{} of {count} seeds failed", failed.len());
}

/// A month of 1,000,000 messages to machines of gateway, service and devices that are never started anew, with all that goes
/// wrong in one: what each of them remembers after a tenth of it is what it remembers at the end. A plain run takes a part
/// of the month; `FIELDGATE_LONG_MESSAGES=1000000 cargo test --release --test it a_month` all of it, and with
/// `FIELDGATE_LONG_REAL=1` each message is decrypted.
#[test]
fn a_month_leaves_nothing_behind() {
    let messages = number("FIELDGATE_LONG_MESSAGES").unwrap_or(MONTH_MESSAGES);
    let seed = if number("FIELDGATE_LONG_REAL") == Some(1) { 0 } else { 1 };
    let climate = Some(Climate::Month(messages as u32));
    let report = run(Options { seed, climate, fault: None, bounds: Bounds::default(), trace: false });
    let report = report.unwrap_or_else(|text| panic!("{text}"));
    for stock in report.stock {
        println!("{stock:?}");
    }
    println!("{} accepted, {} delivered, {} promises", report.accepted, report.delivered, report.promises);
    assert!(report.accepted > messages * 9 / 10 && report.delivered > report.accepted * 8 / 10, "{report:?}");
    let of = |figure: fn(&Stock) -> usize| {
        let (early, late) = report.stock.split_at(5);
        let most = |stock: &[Stock]| stock.iter().map(figure).max().unwrap_or(0);
        (most(early), most(late))
    };
    for (name, (early, late)) in [
        ("service records", of(|it| it.service_records)),
        ("service sending", of(|it| it.service_sending)),
        ("gateway records", of(|it| it.gateway_records)),
        ("gateway messages", of(|it| it.gateway_messages)),
        ("gateway streams", of(|it| it.gateway_streams)),
        ("events", of(|it| it.events)),
    ] {
        assert!(late <= early * 5 / 4 + 40, "{name}: {early} have become {late}");
    }
    assert!(report.stock[9].connections > messages / 1_000, "{report:?}");
    // The reference model forgets what is over for a day, and so grows that long.
    let (early, late) = of(|it| it.resident);
    let is_whole = messages >= 10 * MONTH_MESSAGES_PER_DAY;
    assert!(!is_whole || late <= early * 11 / 10, "{early} pages have become {late}");
}

fn run(options: Options) -> Result<Report, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| sim::run(options)));
    match outcome {
        Ok(outcome) => outcome.map_err(|violation| format!("{:?}: {}", violation.invariant, violation.text)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Err(format!("a panic: {}", text.unwrap_or("without a text")))
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// The seeds of each commit are others, and the same each time it is tested.
fn seed_of_commit() -> u64 {
    let hash = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let hash = hash.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    let hash = hash.and_then(|hash| String::from_utf8(hash).ok());
    hash.and_then(|hash| u64::from_str_radix(hash.get(..8)?, 16).ok()).unwrap_or(8_030)
}

/// Sums over the runs of each climate.
#[derive(Default)]
struct Sums {
    runs: Vec<Report>,
}

impl Sums {
    fn add(&mut self, report: &Report) {
        self.runs.push(*report);
    }

    fn print(&self) {
        self.print_of("Steady", |run| run.is_steady);
        for climate in [Climate::Calm, Climate::Devices, Climate::Network, Climate::Storm] {
            self.print_of(&format!("{climate:?}"), |run| run.climate == Some(climate) && !run.is_steady);
        }
    }

    fn print_of(&self, name: &str, is_of: impl Fn(&Report) -> bool) {
        let runs: Vec<&Report> = self.runs.iter().filter(|run| is_of(run)).collect();
        let sum = |of: fn(&Report) -> u64| runs.iter().map(|run| of(run)).sum::<u64>();
        let (promises, delivered) = (sum(|run| run.promises), sum(|run| run.delivered));
        println!(
            "{name:>8}: {} runs, {} accepted, {delivered} delivered, {} copies, {promises} promises ({:.3} each), \
                 {} refused in sight, {} by devices, at most {} ms late, {} naps",
            runs.len(),
            sum(|run| run.accepted),
            sum(|run| run.copies),
            promises as f64 / delivered.max(1) as f64,
            sum(|run| run.refused_visibly),
            sum(|run| run.refused_by_device),
            runs.iter().map(|run| run.late_ms_max).max().unwrap_or(0),
            sum(|run| run.naps),
        );
    }
}

/// Every invariant is broken by a shell that breaks its rule, and the check says which one.
mod a_faulty_shell_is_noticed {
    use super::*;

    #[test]
    fn that_acknowledges_without_a_device_ack() {
        expect(Fault::AcknowledgesUnasked, Climate::Calm, &[Invariant::AcknowledgedByDevice]);
    }

    #[test]
    fn that_acknowledges_another_message() {
        expect(Fault::AcknowledgesAnother, Climate::Calm, &[Invariant::AcknowledgedByDevice]);
    }

    #[test]
    fn that_does_not_say_what_is_wanted() {
        expect(Fault::IgnoresUrgency, Climate::Devices, &[Invariant::Wanted]);
    }

    #[test]
    fn that_does_not_say_how_much_waits() {
        expect(Fault::HidesWaiting, Climate::Calm, &[Invariant::Status]);
        expect(Fault::WithholdsStatus, Climate::Calm, &[Invariant::Status]);
    }

    #[test]
    fn that_forgets_a_body() {
        expect(Fault::SwallowsBody, Climate::Network, &[Invariant::SlotsReturn]);
    }

    #[test]
    fn that_answers_201_and_stores_nothing() {
        expect(Fault::LosesStored, Climate::Network, &[Invariant::Delivered]);
    }

    #[test]
    fn whose_flash_lies() {
        expect(
            Fault::FlashLies,
            Climate::Network,
            &[Invariant::Subscribed, Invariant::Delivered, Invariant::Announced],
        );
    }

    #[test]
    fn that_forgets_what_it_has() {
        expect(Fault::ForgetsIds, Climate::Storm, &[Invariant::Once]);
    }

    #[test]
    fn that_takes_the_newest_message_first() {
        expect(Fault::TakesNewestFirst, Climate::Calm, &[Invariant::Order]);
    }

    #[test]
    fn that_hands_over_what_is_too_late() {
        expect(Fault::IgnoresDeadline, Climate::Network, &[Invariant::InTime]);
    }

    #[test]
    fn that_changes_a_message() {
        expect(Fault::ChangesOctets, Climate::Calm, &[Invariant::Intact]);
    }

    #[test]
    fn that_announces_nothing() {
        expect(Fault::NeverAnnounces, Climate::Calm, &[Invariant::Announced]);
    }

    #[test]
    fn that_drops_acknowledgements() {
        expect(Fault::LosesDeletes, Climate::Calm, &[Invariant::Promises, Invariant::Delivered]);
        expect(Fault::NeverDeletes, Climate::Network, &[Invariant::Acknowledged, Invariant::SlotsReturn]);
    }

    /// The machines keep within their bounds, so these are lowered below what they use.
    #[test]
    fn that_uses_more_than_its_bounds() {
        let (memory, outputs) =
            (Bounds { memory_percent: 4, ..Bounds::default() }, Bounds { outputs_max: 3, ..Bounds::default() });
        assert_eq!(violation(None, Climate::Storm, memory).invariant, Invariant::Memory);
        assert_eq!(violation(None, Climate::Calm, outputs).invariant, Invariant::OutputsEnd);
    }

    fn expect(fault: Fault, climate: Climate, invariants: &[Invariant]) {
        let found = violation(Some(fault), climate, Bounds::default());
        assert!(invariants.contains(&found.invariant), "{found:?}");
    }

    /// The first violation that it leads to.
    fn violation(fault: Option<Fault>, climate: Climate, bounds: Bounds) -> Violation {
        let runs = (0..200).map(|seed| Options { seed, climate: Some(climate), fault, bounds, trace: false });
        let found = runs.map(sim::run).find_map(Result::err);
        *found.expect("the check notices")
    }
}

#[test]
fn a_seed_repeats_its_run() {
    let options =
        Options { seed: 7, climate: Some(Climate::Storm), fault: None, bounds: Bounds::default(), trace: false };
    let run = || sim::run(options).map(|report| format!("{report:?}"));
    assert_eq!(run(), run());
}
