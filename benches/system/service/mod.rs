//! The push service by itself: senders and user agents are parts of the bench, and as cheap as can be.

mod agent;
mod dial;
mod http1;
mod http2;
mod peers;
mod syncs;

use std::fs::{self, File};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fieldgate::random::SystemRandom;
use fieldgate::webpush::ece::{self, Keys};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::ours::{self, Ours, settle};
use crate::process::{PATIENCE, Process, Site, now};
use crate::sections::{CONTENT, Options, burst_octets, ms, sync_once};
use crate::table::Goal::{Least, Most};
use crate::table::{Row, Table, percentile};
use crate::usage::{cpu_us, memory};

use agent::Agent;
use dial::Server;
use http1::Http1;
use http2::Http2;
use syncs::Syncs;

/// Senders, and subscriptions that they send to.
const AT_ONCE: usize = 64;
/// What a slow disk needs for a sync.
const SLOW_US: u64 = 10_000;
/// Messages that a service pushes to one subscription before any is acknowledged.
const MESSAGES_EACH: usize = 8;
/// The most that the service keeps: SERVICE_MESSAGE_COUNT_MAX.
const STORED: usize = 65_536;
/// Open files of a process beside its connections.
const FILES_BESIDE: usize = 64;
/// Messages that leave at once.
const BURST: usize = 16;

/// A service, and what plays everything around it.
struct Bed {
    site: Site,
    service: Process,
    server: Server,
    syncs: Syncs,
    body: Bytes,
}

/// A subscription of nobody's device.
struct Subscription {
    path: String,
    push: String,
}

/// What a number of messages took.
struct Use {
    per_second: f64,
    per_sync: f64,
    syncs: f64,
    server_us: f64,
    bench_us: f64,
}

/// All figures of the push service.
pub async fn run(options: Options, table: &mut Table) {
    let Some(mut bed) = Bed::start() else {
        return table.note("not without a C compiler, which makes syncs countable: apt-get install gcc");
    };
    posts(options, &bed, table).await;
    pushes(options, &bed, table).await;
    fleet(options, &mut bed, table).await;
    restart(options, &mut bed, table).await;
    drop(bed);
    octets(options, table).await;
    table.note("senders and user agents are one thread of the bench, beside the service on the same cores");
}

/// Messages accepted a second, each on the disk.
async fn posts(options: Options, bed: &Bed, table: &mut Table) {
    let (fast, slow) = (options.count(16_000, 2_000), options.count(8_000, 1_500));
    let mut first = None;
    for (name, is_http2, connections) in
        [("HTTP/2, one connection", true, 1), ("HTTP/2, 64 connections", true, 64), ("HTTP/1.1", false, 64)]
    {
        let used = bed.posted(fast, is_http2, connections).await;
        let row = Row::new(format!("{fast} stored, 64 at once, {name}"), "/s", used.per_second);
        table.row(row.goal(Least(5_000.0)));
        table.row(Row::new("  messages a sync", "", used.per_sync));
        table.row(Row::new("  CPU of the service a message", "us", used.server_us));
        table.row(Row::new("  CPU of the senders a message", "us", used.bench_us));
        first.get_or_insert(used);
    }
    bed.syncs.slow_down(SLOW_US);
    for (name, is_http2, connections) in [("HTTP/2, one connection", true, 1), ("HTTP/1.1", false, 64)] {
        let used = bed.posted(slow, is_http2, connections).await;
        let row = Row::new(format!("{slow} stored, 10 ms a sync, {name}"), "/s", used.per_second);
        table.row(row.goal(Least(3_000.0)));
        table.row(Row::new("  messages a sync", "", used.per_sync).goal(Least(32.0)).bound_least(36.0));
    }
    bed.syncs.slow_down(0);
    if options.peers {
        let peer = peers::published(&bed.body, fast, &bed.syncs).await;
        let ours = first.expect("the first way was measured");
        table.row(Row::new("beside mosquitto, persistence, QoS 1", "/s", ours.per_second).peer(Some(peer.per_second)));
        table.row(Row::new("  syncs", "", ours.syncs).peer(Some(peer.syncs)));
        table.row(Row::new("  CPU a message", "us", ours.server_us).peer(Some(peer.server_us)));
        table.note("mosquitto answers before anything is on the disk, and writes it every half hour, or when it ends");
    }
}

/// Stored messages pushed a second to one user agent that acknowledges each.
async fn pushes(options: Options, bed: &Bed, table: &mut Table) {
    let count = options.count(4_000, 500);
    let subscriptions = bed.subscribe(1).await;
    let messages = bed.store(&subscriptions, count).await.remove(0);
    let mut agent = Agent::connect(&bed.server, &subscriptions[0].path).await;
    let (mut last, start) = (now(), now());
    let used = bed.used(count, async { last = agent.receive(&messages).await }).await;
    let peer = peers::pushed_per_second(&bed.body, options.count(40_000, 4_000)).await;
    let rate = count as f64 / (last - start).as_secs_f64();
    table.row(Row::new(format!("{count} pushed to one user agent, acknowledged"), "/s", rate).peer(peer));
    table.row(Row::new("  CPU of the service a message", "us", used.server_us));
    table.row(Row::new("  CPU of the user agent a message", "us", used.bench_us));
    table.note(match peer {
        Some(_) => "peer: nghttpd --push, 303 octets from a file, neither stored nor acknowledged",
        None => "no peer for pushes: apt-get install nghttp2-server",
    });
    bed.unsubscribe(&subscriptions).await;
}

/// Many user agents, each on a connection of its own.
async fn fleet(options: Options, bed: &mut Bed, table: &mut Table) {
    let wanted = options.count(1_000, 100);
    let size = wanted.min(files_max() - FILES_BESIDE);
    if size < wanted {
        table.note(&format!("only {size} user agents: raise the limit of open files (ulimit -n)"));
    }
    let subscriptions = bed.subscribe(size).await;
    // What it has used before counts as its own.
    bed.service.terminate();
    bed.start_again().await;
    let before = memory(bed.service.id());
    let mut agents = connect_all(bed, &subscriptions).await;
    for agent in &mut agents {
        agent.monitor().await;
    }
    settle().await;
    let each = (memory(bed.service.id()).resident - before.resident) / size as f64;
    table.row(Row::new(format!("memory of each of {size} that monitor"), "kB", each).goal(Most(48.0)));

    let count = options.count(1_000, 200);
    let times = promised(bed, agents, &subscriptions, count).await;
    let disk = File::create(bed.site.path("sync")).expect("a file");
    let syncs: Vec<f64> = (0..count).map(|_| sync_once(&disk)).collect();
    let row = Row::new(format!("POST to promise, {size} connected: p50"), "ms", percentile(&times, 50));
    table.row(row);
    let row = Row::new(format!("POST to promise, {size} connected: p99"), "ms", percentile(&times, 99));
    table.row(row.goal(Most(10.0)));
    table.row(Row::new("one fdatasync on that disk: p50", "ms", percentile(&syncs, 50)));
    table.row(Row::new("one fdatasync on that disk: p99", "ms", percentile(&syncs, 99)));

    let messages = bed.store(&subscriptions, size * MESSAGES_EACH).await;
    let agents = connect_all(bed, &subscriptions).await;
    let (count, mut last, start) = (size * MESSAGES_EACH, now(), now());
    let used = bed.used(count, async { last = receive_all(agents, messages).await }).await;
    let rate = count as f64 / (last - start).as_secs_f64();
    table.row(Row::new(format!("{count} pushed to {size} user agents, acknowledged"), "/s", rate));
    table.row(Row::new("  CPU of the service a message", "us", used.server_us));
    table.row(Row::new("  CPU of the user agents a message", "us", used.bench_us));
    bed.unsubscribe(&subscriptions).await;
}

async fn connect_all(bed: &Bed, subscriptions: &[Subscription]) -> Vec<Agent> {
    let mut agents = Vec::new();
    for subscription in subscriptions {
        agents.push(Agent::connect(&bed.server, &subscription.path).await);
    }
    agents
}

/// When the last message came to the last agent.
async fn receive_all(agents: Vec<Agent>, messages: Vec<Vec<String>>) -> Instant {
    let mut tasks = JoinSet::new();
    for (mut agent, messages) in agents.into_iter().zip(messages) {
        tasks.spawn_local(async move { agent.receive(&messages).await });
    }
    tasks.join_all().await.into_iter().max().expect("there are some")
}

/// One message at a time to one agent after the other: from its first octet to its promise.
///
/// Units: milliseconds.
async fn promised(bed: &Bed, agents: Vec<Agent>, subscriptions: &[Subscription], count: usize) -> Vec<f64> {
    let (sender, mut promises) = mpsc::channel(agents.len());
    let mut tasks = JoinSet::new();
    for (index, agent) in agents.into_iter().enumerate() {
        tasks.spawn_local(agent.watch(index, sender.clone()));
    }
    let mut http = Http1::connect(&bed.server).await.expect("the service is there");
    let mut times = Vec::new();
    for index in (0..subscriptions.len()).cycle().take(count) {
        sleep(Duration::from_millis(2)).await;
        let start = now();
        let message = http.post(&subscriptions[index].push, &bed.body).await.expect("the service is there");
        let (to, at) = timeout(PATIENCE, promises.recv()).await.expect("it comes in time").expect("agents are there");
        assert_eq!(to, index, "whoever it is for");
        times.push(ms(at - start));
        http.delete(&message).await;
    }
    tasks.shutdown().await;
    times
}

/// From the start of a service with as many messages as it keeps until it pushes one of them.
async fn restart(options: Options, bed: &mut Bed, table: &mut Table) {
    let count = options.count(STORED, 2_048);
    let subscriptions = bed.subscribe(AT_ONCE).await;
    let pushes: Vec<String> = subscriptions.iter().map(|subscription| subscription.push.clone()).collect();
    let mut http = Http2::connect(&bed.server).await.expect("the service is there");
    http.post_all(&pushes, &bed.body, count, AT_ONCE).await;
    drop(http);
    for (how, is_killed) in [("ended well", false), ("killed", true)] {
        match is_killed {
            true => bed.service.kill(),
            false => bed.service.terminate(),
        }
        let start = now();
        bed.start_again().await;
        Agent::connect(&bed.server, &subscriptions[0].path).await.first().await;
        let row = Row::new(format!("{how} with {count} stored, until one is pushed"), "ms", ms(start.elapsed()));
        table.row(row);
    }
    table.row(Row::new("  memory of the service then, resident", "kB", memory(bed.service.id()).resident));
}

/// TLS octets between service and gateway, both ways: push, acknowledgement and its answer.
async fn octets(options: Options, table: &mut Table) {
    let mut ours = Ours::start(ours::Shape { devices: 2, channels: BURST / 2, counted: true }).await;
    let alone = burst_octets(&mut ours, 1, options.count(100, 30)).await;
    let burst = burst_octets(&mut ours, BURST, options.count(100, 30)).await;
    table.row(Row::new("octets of a lone message", "octets", alone.octets()).goal(Most(556.0)).bound(556.0));
    table.row(Row::new("  of which from the service", "octets", alone.down));
    let row = Row::new(format!("octets of each of {BURST} at once"), "octets", burst.octets());
    table.row(row.goal(Most(410.0)));
    table.row(Row::new("  of which from the service", "octets", burst.down));
    table.row(Row::new("  TLS records from the service", "", burst.down_records).bound(0.7));
    table.note("octets: to and from a gateway, acknowledgement included; 303 are the message");
}

impl Bed {
    fn start() -> Option<Self> {
        let syncs = Syncs::build()?;
        // A site keeps its environment for good, and there is one a run.
        let environment = syncs.environment().map(|(name, value)| (name, &*Box::leak(value.into_boxed_str())));
        let (site, service) = Site::with_service_in(Box::leak(Box::new(environment)));
        let server = Server::new(site.authority().parse().expect("an address and a port"), &site.ca);
        let mut random = SystemRandom::default();
        let keys = Keys::generate(&mut random);
        let body = ece::encode(keys.public(), keys.auth(), &[b'x'; CONTENT], 0, &mut random).expect("it fits");
        Some(Self { site, service, server, syncs, body: body.into() })
    }

    async fn used(&self, count: usize, work: impl Future<Output = ()>) -> Use {
        Use::of(self.service.id(), &self.syncs, count, work).await
    }

    /// New subscriptions, of one sender each at most.
    async fn subscribe(&self, count: usize) -> Vec<Subscription> {
        let mut tasks = JoinSet::new();
        for sender in 0..AT_ONCE.min(count) {
            let (server, count) = (self.server.clone(), (sender..count).step_by(AT_ONCE).count());
            tasks.spawn_local(async move {
                let mut http = Http1::connect(&server).await.expect("the service is there");
                let mut made = Vec::new();
                for _ in 0..count {
                    let head = http.request("POST", "/subscribe", "", b"").await.expect("the service is there");
                    head.expect(201);
                    made.push(Subscription { path: head.location().into(), push: head.link("push\"").into() });
                }
                made
            });
        }
        tasks.join_all().await.into_iter().flatten().collect()
    }

    /// Ends subscriptions, and with them their messages.
    async fn unsubscribe(&self, subscriptions: &[Subscription]) {
        let mut http = Http2::connect(&self.server).await.expect("the service is there");
        for some in subscriptions.chunks(AT_ONCE) {
            for subscription in some {
                http.request("DELETE", &subscription.path, &[]);
            }
            http.flush().await;
            let mut answered = 0;
            while answered < some.len() {
                answered += usize::from(http.next().await.ends_stream());
            }
        }
    }

    /// Posts so many messages to subscriptions of its own, which end afterwards.
    async fn posted(&self, count: usize, is_http2: bool, connections: usize) -> Use {
        let subscriptions = self.subscribe(AT_ONCE).await;
        let pushes: Vec<String> = subscriptions.iter().map(|subscription| subscription.push.clone()).collect();
        let (each, at_once) = (count / connections, AT_ONCE / connections);
        let mut tasks: JoinSet<()> = JoinSet::new();
        let (go, going) = tokio::sync::watch::channel(false);
        for index in 0..connections {
            let (body, mut going) = (self.body.clone(), going.clone());
            let pushes = if connections == 1 { pushes.clone() } else { vec![pushes[index].clone()] };
            if is_http2 {
                let mut http = Http2::connect(&self.server).await.expect("the service is there");
                tasks.spawn_local(async move {
                    going.wait_for(|go| *go).await.expect("it comes");
                    http.post_all(&pushes, &body, each, at_once).await;
                });
            } else {
                let mut http = Http1::connect(&self.server).await.expect("the service is there");
                tasks.spawn_local(async move {
                    going.wait_for(|go| *go).await.expect("it comes");
                    for _ in 0..each {
                        http.post(&pushes[0], &body).await.expect("the service is there");
                    }
                });
            }
        }
        settle().await;
        let work = async {
            go.send_replace(true);
            tasks.join_all().await;
        };
        let used = self.used(each * connections, work).await;
        self.unsubscribe(&subscriptions).await;
        used
    }

    /// Stores messages, as many for each subscription; returns their paths, in the order in which they are pushed.
    async fn store(&self, subscriptions: &[Subscription], count: usize) -> Vec<Vec<String>> {
        let mut tasks = JoinSet::new();
        let each = count / subscriptions.len();
        for sender in 0..AT_ONCE.min(subscriptions.len()) {
            let (server, body) = (self.server.clone(), self.body.clone());
            let mine: Vec<(usize, String)> = (sender..subscriptions.len())
                .step_by(AT_ONCE)
                .map(|index| (index, subscriptions[index].push.clone()))
                .collect();
            tasks.spawn_local(async move {
                let mut http = Http1::connect(&server).await.expect("the service is there");
                let mut stored = Vec::new();
                for (index, push) in mine {
                    let mut messages = Vec::new();
                    for _ in 0..each {
                        messages.push(http.post(&push, &body).await.expect("the service is there"));
                    }
                    stored.push((index, messages));
                }
                stored
            });
        }
        let mut stored: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
        stored.sort();
        stored.into_iter().map(|(_, messages)| messages).collect()
    }

    /// Starts the service, which has ended, again; done when it takes connections.
    async fn start_again(&mut self) {
        let start = now();
        self.service = self.site.restart_service();
        while let Err(error) = Http1::connect(&self.server).await {
            assert!(start.elapsed() < PATIENCE, "the service comes back: {error}");
            sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Use {
    async fn of(server: u32, syncs: &Syncs, count: usize, work: impl Future<Output = ()>) -> Self {
        let cpu = || (cpu_us(server), cpu_us(std::process::id()));
        let (synced, before, start) = (syncs.count(), cpu(), now());
        work.await;
        let (seconds, after) = (start.elapsed().as_secs_f64(), cpu());
        let (syncs, count) = ((syncs.count() - synced) as f64, count as f64);
        Self {
            per_second: count / seconds,
            per_sync: count / syncs,
            syncs,
            server_us: (after.0 - before.0) / count,
            bench_us: (after.1 - before.1) / count,
        }
    }
}

/// Files that a process may have open.
fn files_max() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    files.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(1_024)
}
