//! The figures, one function a section.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use fieldgate::limits::{KEEP_ALIVE_MS, KEEP_ALIVE_MS_MAX};
use fieldgate::random::SystemRandom;
use fieldgate::webpush::ece::{self, Keys};
use fieldgate::webpush::headers::Ttl;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::ours::{self, Ours, settle};
use crate::peer::{self, Peer, Subscriber, signal};
use crate::process::now;
use crate::proxy::Count;
use crate::table::Goal::{Least, LeastOfPeer, Most, MostOfPeer};
use crate::table::{Row, Table, median, percentile};
use crate::usage::{cpu_us, memory, storage_bytes};

/// Octets of a message, unless a section says otherwise.
pub const CONTENT: usize = 200;
/// Octets of the largest message.
pub const CONTENT_MAX: usize = 3_993;
const DAY: Ttl = Ttl::from_secs(86_400);
const ONE: ours::Shape = ours::Shape { devices: 1, channels: 1, counted: false };
const COUNTED: ours::Shape = ours::Shape { counted: true, ..ONE };
const CAREFUL: peer::Shape = peer::Shape { devices: 1, bridged: false };
const BRIDGED: peer::Shape = peer::Shape { bridged: true, ..CAREFUL };

/// How a section runs.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A smoke run: enough to see that everything works, too little to compare times.
    pub quick: bool,
    pub peers: bool,
}

impl Options {
    pub fn count(self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    async fn peer(self, shape: peer::Shape) -> Option<Peer> {
        if self.peers { Some(Peer::start(shape).await) } else { None }
    }
}

/// From the POST to the application of the device, one message at a time.
pub async fn latency(options: Options, table: &mut Table) {
    let count = options.count(400, 40);
    let mut ours = Ours::start(ONE).await;
    let disk = File::create(ours.site.path("sync")).expect("a file");
    let (mut stored, mut direct, mut syncs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        stored.push(ours_once(&mut ours, DAY).await);
        direct.push(ours_once(&mut ours, Ttl::from_secs(0)).await);
        syncs.push(sync_once(&disk));
    }
    drop(ours);
    let mut bridged = None;
    if let Some(mut peer) = options.peer(BRIDGED).await {
        let mut times = Vec::new();
        for _ in 0..count {
            times.push(peer_once(&mut peer).await);
        }
        bridged = Some(times);
    }
    let of = |percent| bridged.as_ref().map(|times| percentile(times, percent));
    let sync = median(&syncs);
    table.row(Row::new("stored, then pushed: p50", "ms", median(&stored)).peer(of(50)));
    table.row(Row::new("stored, then pushed: p99", "ms", percentile(&stored, 99)).peer(of(99)));
    table.row(Row::new("one fdatasync on that disk: p50", "ms", sync));
    table.row(Row::new("one fdatasync on that disk: p99", "ms", percentile(&syncs, 99)));
    let net = (median(&stored) - sync).max(0.0);
    table.row(Row::new("stored, less one fdatasync: p50", "ms", net).peer(of(50)));
    let row = Row::new("TTL 0, never stored: p50", "ms", median(&direct)).peer(of(50));
    table.row(row.goal(MostOfPeer(1.25)));
    table.row(Row::new("TTL 0, never stored: p99", "ms", percentile(&direct, 99)).peer(of(99)).goal(Most(5.0)));
    table.note("peer: two bridged mosquitto brokers in memory, careful relay; its device is a thread of the bench");
}

/// Units: milliseconds.
async fn ours_once(ours: &mut Ours, ttl: Ttl) -> f64 {
    let parcels = ours.parcels(CONTENT);
    sleep(Duration::from_millis(5)).await;
    let start = now();
    ours.poster.post(&parcels[0], ttl).await;
    ms(ours.next_received().await - start)
}

async fn peer_once(peer: &mut Peer) -> f64 {
    sleep(Duration::from_millis(5)).await;
    let start = now();
    peer.publish_all(&[b'x'; CONTENT], 1).await;
    ms(peer.next_received().await - start)
}

/// Units: milliseconds.
pub fn sync_once(disk: &File) -> f64 {
    let start = now();
    disk.write_all_at(&[1; 4_096], 0).expect("written");
    disk.sync_data().expect("synced");
    ms(start.elapsed())
}

/// Messages a second from end to end, each acknowledged by its device.
pub async fn throughput(options: Options, table: &mut Table) {
    let count = options.count(4_000, 500);
    let (mut live, mut waiting) = (Vec::new(), Vec::new());
    let (mut live_peer, mut waiting_peer) = (Vec::new(), Vec::new());
    for _ in 0..options.count(3, 1) {
        let mut ours = Ours::start(ONE).await;
        live.push(ours_live(&mut ours, count).await);
        waiting.push(count as f64 / ours_burst(&mut ours, count).await.seconds);
        assert_eq!(ours.counter("acknowledged"), 2 * count as u64 + 1, "each is acknowledged, the first one too");
        drop(ours);
        if let Some(mut peer) = options.peer(CAREFUL).await {
            live_peer.push(peer_live(&mut peer, count).await);
            waiting_peer.push(count as f64 / peer_burst(&mut peer, count).await.seconds);
        }
    }
    let of = |rates: &[f64]| options.peers.then(|| median(rates));
    let row = Row::new(format!("{count} that wait at the service"), "/s", median(&waiting)).peer(of(&waiting_peer));
    table.row(row.goal(Least(5_000.0)).goal(LeastOfPeer(1.2)));
    table.row(Row::new(format!("{count} while they are sent and stored"), "/s", median(&live)).peer(of(&live_peer)));
    table.note(
        "peer: mosquitto in memory, careful relay, nothing encrypted end to end; 64 requests of the sender at once",
    );
}

async fn ours_live(ours: &mut Ours, count: usize) -> f64 {
    let parcels = ours.parcels(CONTENT);
    let start = now();
    ours.poster.post_all(&parcels, count).await;
    count as f64 / (ours.last_received(count).await - start).as_secs_f64()
}

async fn peer_live(peer: &mut Peer, count: usize) -> f64 {
    let start = now();
    peer.publish_all(&[b'x'; CONTENT], count).await;
    count as f64 / (peer.last_received(count).await - start).as_secs_f64()
}

/// What became of messages that had all been waiting.
struct Burst {
    seconds: f64,
    cpu_us: f64,
    count: Count,
}

/// Messages are sent while the gateway stands still; then it goes on.
async fn ours_burst(ours: &mut Ours, count: usize) -> Burst {
    let id = ours.gateway.id();
    let parcels = ours.parcels(CONTENT);
    settle().await;
    let octets = octets_of(ours);
    ours.gateway.signal("STOP");
    ours.poster.post_all(&parcels, count).await;
    let (cpu, start) = (cpu_us(id), now());
    ours.gateway.signal("CONT");
    let end = ours.last_received(count).await;
    settle().await;
    Burst { seconds: (end - start).as_secs_f64(), cpu_us: cpu_us(id) - cpu, count: octets_of(ours) - octets }
}

async fn peer_burst(peer: &mut Peer, count: usize) -> Burst {
    let ids = peer.gateway_ids();
    let cpu = |ids: &[u32]| ids.iter().map(|id| cpu_us(*id)).sum::<f64>();
    ids.iter().for_each(|id| signal(*id, "STOP"));
    peer.publish_all(&[b'x'; CONTENT], count).await;
    let (before, start) = (cpu(&ids), now());
    ids.iter().for_each(|id| signal(*id, "CONT"));
    let end = peer.last_received(count).await;
    settle().await;
    Burst { seconds: (end - start).as_secs_f64(), cpu_us: cpu(&ids) - before, count: Count::default() }
}

/// CPU time of what stands at the gateway.
pub async fn cpu(options: Options, table: &mut Table) {
    let (steady, burst) = (options.count(1_000, 100), options.count(4_000, 500));
    let (mut ours, mut careful, mut bridged) = (Cpu::default(), Cpu::default(), Cpu::default());
    for _ in 0..options.count(3, 1) {
        let mut here = Ours::start(ONE).await;
        ours.steady.push(ours_steady(&mut here, steady).await);
        ours.burst.push(ours_burst(&mut here, burst).await.cpu_us / burst as f64);
        drop(here);
        for (shape, figures) in [(CAREFUL, &mut careful), (BRIDGED, &mut bridged)] {
            if let Some(mut peer) = options.peer(shape).await {
                figures.steady.push(peer_steady(&mut peer, steady).await);
                figures.burst.push(peer_burst(&mut peer, burst).await.cpu_us / burst as f64);
            }
        }
    }
    let of = |figures: &[f64]| options.peers.then(|| median(figures));
    let (ours_steady, ours_burst) = (median(&ours.steady), median(&ours.burst));
    let row = Row::new("a message at 100/s", "us", ours_steady).peer(of(&careful.steady));
    table.row(row.goal(Most(400.0)).goal(MostOfPeer(0.65)));
    table.row(Row::new("the same, a bridge and the relay", "us", ours_steady).peer(of(&bridged.steady)));
    let row = Row::new(format!("a message of {burst} that wait"), "us", ours_burst).peer(of(&careful.burst));
    table.row(row.goal(Most(160.0)).goal(MostOfPeer(1.0)));
    table.row(Row::new("the same, a bridge and the relay", "us", ours_burst).peer(of(&bridged.burst)));
    table.row(Row::new("of which decrypting, in the bench's own process", "us", decode_us(options.count(2_000, 200))));
    table.note("the careful relay passes on what it gets");
}

/// Microseconds a message, one figure a run.
#[derive(Debug, Default)]
struct Cpu {
    steady: Vec<f64>,
    burst: Vec<f64>,
}

fn decode_us(count: usize) -> f64 {
    let mut random = SystemRandom::default();
    let keys = Keys::generate(&mut random);
    let body = ece::encode(keys.public(), keys.auth(), &[b'x'; CONTENT], 0, &mut random).expect("it fits");
    let before = cpu_us(std::process::id());
    for _ in 0..count {
        ece::decode(&keys, body.clone()).expect("the keys are its own");
    }
    (cpu_us(std::process::id()) - before) / count as f64
}

async fn ours_steady(ours: &mut Ours, count: usize) -> f64 {
    let parcels = ours.parcels(CONTENT);
    let id = ours.gateway.id();
    let before = cpu_us(id);
    let mut ticks = ticks(10);
    for _ in 0..count {
        ticks.tick().await;
        ours.poster.post(&parcels[0], DAY).await;
    }
    ours.last_received(count).await;
    settle().await;
    (cpu_us(id) - before) / count as f64
}

async fn peer_steady(peer: &mut Peer, count: usize) -> f64 {
    let ids = peer.gateway_ids();
    let cpu = || ids.iter().map(|id| cpu_us(*id)).sum::<f64>();
    let before = cpu();
    let mut ticks = ticks(10);
    for _ in 0..count {
        ticks.tick().await;
        peer.publish_all(&[b'x'; CONTENT], 1).await;
    }
    peer.last_received(count).await;
    settle().await;
    (cpu() - before) / count as f64
}

fn ticks(ms: u64) -> tokio::time::Interval {
    let mut ticks = interval(Duration::from_millis(ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Resident and anonymous memory of the gateway.
pub async fn memory_of_gateway(options: Options, table: &mut Table) {
    let count = options.count(1_000, 128);
    let mut idle_anonymous = Vec::new();
    for devices in [1, 16, 64] {
        let mut ours = Ours::start(ours::Shape { devices, ..ONE }).await;
        let id = ours.gateway.id();
        settle().await;
        let idle = memory(id);
        let parcels = ours.parcels(CONTENT_MAX);
        ours.poster.post_all(&parcels, count).await;
        ours.last_received(count).await;
        settle().await;
        let used = memory(id);
        drop(ours);
        let peer = match options.peer(peer::Shape { devices, ..CAREFUL }).await {
            Some(mut peer) => {
                peer.publish_all(&[b'x'; CONTENT_MAX], count).await;
                peer.last_received(count).await;
                Some(memory(peer.relay.id()))
            }
            None => None,
        };
        let goals = match devices {
            1 => Some((8_192.0, 2_048.0)),
            64 => Some((10_240.0, 3_584.0)),
            _ => None,
        };
        let name = |when: &str, what: &str| format!("devices: {devices}, {when}, {what}");
        table.row(Row::new(name("idle", "resident"), "kB", idle.resident));
        table.row(Row::new(name("idle", "anonymous"), "kB", idle.anonymous));
        let mut resident = Row::new(name("used", "resident"), "kB", used.resident).peer(peer.map(|peer| peer.resident));
        let mut anonymous =
            Row::new(name("used", "anonymous"), "kB", used.anonymous).peer(peer.map(|peer| peer.anonymous));
        if let Some((resident_max, anonymous_max)) = goals {
            resident = resident.goal(Most(resident_max));
            anonymous = anonymous.goal(Most(anonymous_max)).bound(1.1 * anonymous_max);
        }
        table.row(resident);
        table.row(anonymous);
        idle_anonymous.push(idle.anonymous);
    }
    let each = (idle_anonymous[2] - idle_anonymous[0]) / 63.0;
    table.row(Row::new("an idle device: anonymous", "kB", each).goal(Most(24.0)));
    table.note(&format!("used: after {count} messages of {CONTENT_MAX} octets; idle: after one small message each"));
    table.note("peer: the careful relay alone, without its broker; one process for all devices");
}

/// TLS octets between gateway and service, both ways.
pub async fn octets(options: Options, table: &mut Table) {
    let mut ours = Ours::start(COUNTED).await;
    let slow = octets_alone(&mut ours, options.count(20, 4), 1_100).await;
    let fast = octets_alone(&mut ours, options.count(200, 50), 10).await;
    let waiting = options.count(1_000, 200);
    let burst = Cost::of(ours_burst(&mut ours, waiting).await.count, waiting);
    let parcels = ours.parcels(CONTENT);
    let body = parcels[0].body.to_vec();
    drop(ours);
    let some = octets_in_turn(4, options).await;
    let many = octets_in_turn(8, options).await;
    let peer = match options.peers {
        true => Some(peer_octets(&body, options.count(200, 50), waiting).await),
        false => None,
    };
    let of = |figure: fn(&PeerOctets) -> f64| peer.as_ref().map(figure);
    let row = Row::new("alone, a second apart", "octets", slow.octets()).peer(of(|peer| peer.sealed));
    table.row(row.goal(Most(500.0)).goal(MostOfPeer(1.35)).bound(550.0));
    table.row(Row::new("alone, within a second", "octets", fast.octets()).peer(of(|peer| peer.sealed)).bound(550.0));
    table.row(Row::new("alone, the peer in plain text", "octets", fast.octets()).peer(of(|peer| peer.plain)));
    let row = Row::new(format!("{waiting} that wait"), "octets", burst.octets()).peer(of(|peer| peer.burst));
    table.row(row.goal(Most(425.0)).goal(MostOfPeer(1.15)));
    let more = |cost: Cost| cost.octets() - fast.octets();
    table.row(Row::new("32 subscriptions in turn, beyond one", "octets", more(some)).goal(Most(2.0)));
    table.row(Row::new("64 subscriptions in turn, beyond one", "octets", more(many)).goal(Most(2.0)));
    for (name, cost) in [("alone", fast), ("waiting", burst), ("64 in turn", many)] {
        table.row(Row::new(format!("{name}: to the service"), "octets", cost.up));
        table.row(Row::new(format!("{name}: from the service"), "octets", cost.down));
        table.row(Row::new(format!("{name}: TLS records to the service"), "", cost.up_records));
        table.row(Row::new(format!("{name}: TLS records from the service"), "", cost.down_records));
    }
    table.note("peer: mosquitto_sub -q 1 with the same 303 octets of ciphertext, unless it says plain");
}

/// What one message costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    up: f64,
    up_records: f64,
    pub down: f64,
    pub down_records: f64,
}

impl Cost {
    fn of(used: Count, messages: usize) -> Self {
        let each = |count: u64| count as f64 / messages as f64;
        Self {
            up: each(used.up_octets),
            up_records: each(used.up_records),
            down: each(used.down_octets),
            down_records: each(used.down_records),
        }
    }

    pub fn octets(self) -> f64 {
        self.up + self.down
    }
}

fn octets_of(ours: &Ours) -> Count {
    ours.proxy.as_ref().map_or_else(Count::default, |proxy| proxy.count())
}

/// Messages that go one at a time, each to the next subscription, each acknowledged before the next one.
async fn octets_alone(ours: &mut Ours, count: usize, apart_ms: u64) -> Cost {
    let parcels = ours.parcels(CONTENT);
    settle().await;
    let before = octets_of(ours);
    for parcel in parcels.iter().cycle().take(count) {
        ours.poster.post(parcel, DAY).await;
        ours.next_received().await;
        sleep(Duration::from_millis(apart_ms)).await;
    }
    settle().await;
    Cost::of(octets_of(ours) - before, count)
}

/// So many messages at once, each to another subscription; the next ones when all is quiet again.
pub async fn burst_octets(ours: &mut Ours, size: usize, rounds: usize) -> Cost {
    let parcels = ours.parcels(CONTENT);
    settle().await;
    let before = octets_of(ours);
    for _ in 0..rounds {
        ours.poster.post_all(&parcels, size).await;
        ours.last_received(size).await;
        sleep(Duration::from_millis(20)).await;
    }
    settle().await;
    Cost::of(octets_of(ours) - before, size * rounds)
}

/// Messages to the subscriptions of so many devices with 8 channels each, one after the other.
async fn octets_in_turn(devices: usize, options: Options) -> Cost {
    let mut ours = Ours::start(ours::Shape { devices, channels: 8, counted: true }).await;
    octets_alone(&mut ours, options.count(320, 128), 10).await
}

struct PeerOctets {
    sealed: f64,
    plain: f64,
    burst: f64,
}

async fn peer_octets(body: &[u8], count: usize, waiting: usize) -> PeerOctets {
    let mut peer = Subscriber::start().await;
    let sealed = peer_alone(&mut peer, body, count).await;
    let plain = peer_alone(&mut peer, &[b'x'; CONTENT], count).await;
    let before = peer.proxy.count();
    signal(peer.process.id(), "STOP");
    peer.publish_all(body, waiting).await;
    signal(peer.process.id(), "CONT");
    peer.quiet().await;
    let burst = (peer.proxy.count() - before).octets() / waiting as f64;
    PeerOctets { sealed, plain, burst }
}

async fn peer_alone(peer: &mut Subscriber, content: &[u8], count: usize) -> f64 {
    let before = peer.proxy.count();
    for _ in 0..count {
        peer.publish_all(content, 1).await;
        sleep(Duration::from_millis(5)).await;
    }
    peer.quiet().await;
    (peer.proxy.count() - before).octets() / count as f64
}

/// What goes through while nothing happens: the first test of a silent connection is waited for.
pub async fn idle(options: Options, table: &mut Table) {
    if options.quick {
        return table.note(&format!("not in a quick run: the first test comes after {} s", KEEP_ALIVE_MS / 1_000));
    }
    let one = Ours::start(COUNTED).await;
    let many = Ours::start(ours::Shape { devices: 8, channels: 8, counted: true }).await;
    settle().await;
    let before = [&one, &many].map(octets_of);
    sleep(Duration::from_millis(KEEP_ALIVE_MS + 5_000)).await;
    let after = [&one, &many].map(octets_of);
    // After some answers a quarter is added to the interval, and so on: src/proto/keep_alive.rs.
    let proved_ms = KEEP_ALIVE_MS + KEEP_ALIVE_MS / 4;
    for (index, name) in ["one subscription", "64 subscriptions"].into_iter().enumerate() {
        let used = (after[index] - before[index]).octets();
        let hourly = |interval_ms: u64| used * 3_600_000.0 / interval_ms as f64;
        table.row(Row::new(format!("a test of the connection, {name}"), "octets", used).peer(Some(48.0)));
        for (interval_ms, most) in [(KEEP_ALIVE_MS, 2_880.0), (proved_ms, 1_000.0), (KEEP_ALIVE_MS_MAX, 1_000.0)] {
            let metric = format!("an hour, tested every {} s, {name}", interval_ms / 1_000);
            let row = Row::new(metric, "octets", hourly(interval_ms)).peer(Some(2_880.0));
            table.row(row.goal(Most(most)));
        }
    }
    table.note("one test is measured and hours are scaled; the interval grows as the path proves to last");
    table.note("peer: mosquitto's PINGREQ and its answer every 60 s, by calculation");
}

/// What the gateway has written to storage.
pub async fn flash(options: Options, table: &mut Table) {
    let count = options.count(1_000, 100);
    let mut one = Ours::start(ONE).await;
    settle().await;
    let parcels = one.parcels(CONTENT);
    let first = storage_bytes(one.gateway.id());
    one.poster.post_all(&parcels, count).await;
    one.last_received(count).await;
    settle().await;
    let messages = storage_bytes(one.gateway.id()) - first;
    drop(one);
    let many = Ours::start(ours::Shape { devices: 8, channels: 8, ..ONE }).await;
    settle().await;
    let all = storage_bytes(many.gateway.id());
    let row = Row::new(format!("a message, of {count}"), "octets", messages / count as f64);
    table.row(row.goal(Most(0.0)).bound(0.0));
    table.row(Row::new("a new state with 1 subscription", "octets", first));
    table.row(Row::new("a subscription more, of 63", "octets", (all - first) / 63.0));
}

pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
