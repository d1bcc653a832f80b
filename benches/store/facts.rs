//! What is written for what: octets in whole blocks, and syncs. Each submission is synced by itself, which is the most:
//! the real store syncs together what waits.

use fieldgate::proto::device::PendingAcks;
use fieldgate::store::Wear;
use fieldgate::store::log::{Capacity, Log};
use fieldgate::time::Duration;

use crate::flash::MemoryFlash;
use crate::scene::{Scene, Submission};
use crate::table::{Goal, Row, Table};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY_HOURS: u64 = 24;
const DAY_COUNT: usize = 2;
/// Octets a day that nothing happens.
const IDLE_DAY_OCTETS: f64 = 16_384.0;
const MESSAGE_COUNT: usize = 1_000;
/// What one subscription takes in a log of its own: its record alone, and the number of orphans before and after.
const SUBSCRIPTION_SYNCS: f64 = 3.0;
/// What making room for a block costs on average, at most.
const COMPACTION_SYNCS: f64 = 0.1;
const BLOCK: f64 = 4_096.0;

/// A gateway and its log.
struct Board {
    scene: Scene,
    log: Log<MemoryFlash>,
}

impl Board {
    fn new(scene: Scene) -> Self {
        let (log, _) = Log::open(MemoryFlash::new(), Capacity::default()).expect("memory works");
        let mut board = Self { scene, log };
        board.cost();
        board
    }

    /// What was written since the last call.
    fn cost(&mut self) -> Wear {
        let (before, _) = self.log.wear();
        write(&mut self.log, self.scene.take_written());
        self.log.wear().0.since(before)
    }

    /// What something costs, until all of it is done.
    fn cost_of(&mut self, event: impl FnOnce(&mut Scene)) -> Wear {
        event(&mut self.scene);
        self.scene.pass(HOUR);
        self.cost()
    }
}

/// Writes to a log what a gateway submitted.
pub fn write(log: &mut Log<MemoryFlash>, submissions: Vec<Submission>) {
    for submission in submissions {
        log.append(submission).expect("there is room");
        log.sync().expect("memory works");
    }
}

/// What is written for each thing that happens.
pub fn events(table: &mut Table) {
    let mut board = Board::new(Scene::serving(1, 1, PendingAcks::Auto));
    let one_more = board.cost_of(|scene| scene.add(1, 1, PendingAcks::Auto));
    row(table, "a subscription, alone", one_more, 1.0, Some(SUBSCRIPTION_SYNCS));
    let rotated = board.cost_of(|scene| scene.rotate(1));
    row(table, "a subscription made anew, the old one removed", rotated, 1.0, None);
    let removed = board.cost_of(|scene| scene.remove(1));
    row(table, "a subscription removed", removed, 1.0, None);
    let mut all = Board::new(Scene::new());
    let subscribed = all.cost_of(|scene| (0..64).for_each(|number| scene.add(number, 4, PendingAcks::Auto)));
    row(table, "256 subscriptions at once, each", subscribed, 256.0, Some(1.2));
    for (pending_acks, bound) in [(PendingAcks::Auto, 0.0), (PendingAcks::Flash, 2.0 + COMPACTION_SYNCS)] {
        let cost = messages(pending_acks);
        row(table, &format!("a message, pending_acks {pending_acks:?}"), cost, MESSAGE_COUNT as f64, Some(bound));
    }
}

/// Messages one after the other, delivered and acknowledged.
fn messages(pending_acks: PendingAcks) -> Wear {
    let mut board = Board::new(Scene::serving(4, 1, pending_acks));
    let cost = board.cost_of(|scene| {
        for number in 0..MESSAGE_COUNT {
            scene.push(number);
            scene.pass(Duration::from_secs(1));
        }
    });
    assert_eq!(board.scene.acknowledged(), MESSAGE_COUNT as u64, "all are acknowledged");
    cost
}

/// What is written on a day; the worse of two.
pub fn days(table: &mut Table) {
    let few = || Scene::serving(4, 1, PendingAcks::Auto);
    let quiet = |_: &mut Scene| {};
    let idle = worst_day(Scene::serving(64, 4, PendingAcks::Auto), quiet);
    octets(table, "a day without messages, 256 subscriptions, no clock", idle);
    let mut scene = few();
    scene.synchronise();
    octets(table, "the same, 4 subscriptions, a clock that is synchronised", worst_day(scene, quiet));
    octets(table, "the same, no clock, the connection lost each hour", worst_day(few(), Scene::disconnect));
    let busy = worst_day(few(), |scene| {
        for number in 0..60 {
            scene.push(number);
            scene.pass(Duration::from_secs(1));
        }
    });
    octets(table, "the same, no clock, 60 messages each hour", busy);
}

fn worst_day(scene: Scene, each_hour: impl Fn(&mut Scene)) -> Wear {
    let mut board = Board::new(scene);
    let day = |_| {
        for _ in 0..DAY_HOURS {
            each_hour(&mut board.scene);
            board.scene.pass(HOUR);
        }
        board.cost()
    };
    (0..DAY_COUNT).map(day).max_by_key(|wear| wear.bytes).expect("there is a day")
}

fn octets(table: &mut Table, what: &str, wear: Wear) {
    let octets = Row::new(what, "octets", wear.bytes as f64).goal(Goal::Most(IDLE_DAY_OCTETS));
    table.row(octets.bound(IDLE_DAY_OCTETS));
}

/// Prints a cost; the bound is of syncs, and of as many blocks.
fn row(table: &mut Table, what: &str, wear: Wear, count: f64, syncs_max: Option<f64>) {
    let octets = Row::new(format!("{what}: octets"), "octets", wear.bytes as f64 / count);
    let syncs = Row::new(format!("{what}: syncs"), "", wear.syncs as f64 / count);
    for (row, unit) in [(octets, BLOCK), (syncs, 1.0)] {
        table.row(match syncs_max {
            Some(most) => row.bound(most * unit),
            None => row,
        });
    }
}
