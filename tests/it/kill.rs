//! `kill -9` at random moments: every accepted message comes to its application once, and none is acknowledged that its
//! device did not acknowledge.

use std::time::Duration;

use fieldgate::random::{SeededRandom, between_ms};
use fieldgate::sender::{SendError, Sender};
use fieldgate::transport::properties::Trust;
use fieldgate::webpush::headers::Ttl;
use fieldgate::webpush::resource::PushMessageUri;
use fieldgate::webpush::subscription::PushSubscription;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::process::{PATIENCE, Process, Site};

const MESSAGE_COUNT: usize = 200;
const INTERVAL: Duration = Duration::from_millis(25);
const KILL_COUNT: usize = 4;
const TTL_S: u64 = 3_600;

/// A-UA-27, A-UA-49, A-GAP-10: the gateway is killed while the first half of 200 messages is sent, the service while
/// the second half is. `FIELDGATE_KILL_ROUNDS` repeats it, `FIELDGATE_KILL_SEED` chooses the moments.
#[test]
fn killed_processes_neither_lose_nor_double_messages() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first_seed = number("FIELDGATE_KILL_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    for seed in (first_seed..).take(number("FIELDGATE_KILL_ROUNDS").unwrap_or(1) as usize) {
        println!("FIELDGATE_KILL_SEED={seed}");
        round(seed);
    }
}

fn round(seed: u64) {
    let (site, service) = Site::with_service();
    site.configure(&[("d1", site.device_link("d1"))]);
    let _device = site.start_device("d1", &[]);
    site.line_of("device-d1.out", "{");
    let gateway = site.start_gateway();
    let subscription = site.subscription("d1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.expect("a runtime").block_on(async {
        let mut random = SeededRandom::new(seed);
        let mut gateway = Victim::new(gateway, Site::start_gateway, 0, &mut random);
        let mut service = Victim::new(service, Site::restart_service, MESSAGE_COUNT / 2, &mut random);
        let mut ledger = Ledger::new(&subscription, Trust::File(site.ca.clone()));
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while ledger.accepted.len() < MESSAGE_COUNT {
            ticks.tick().await;
            gateway.turn(ledger.accepted.len(), &site, &mut random);
            service.turn(ledger.accepted.len(), &site, &mut random);
            ledger.post(&subscription).await;
            ledger.look(&site).await;
        }
        gateway.revive(&site);
        service.revive(&site);
        ledger.settle(&site).await;
        ledger.check(&site);
    });
}

/// A process that is killed at random moments and started again after a random pause.
struct Victim {
    process: Option<Process>,
    start: fn(&Site) -> Process,
    /// Counts of accepted messages at which it is killed, the next one last.
    kills: Vec<usize>,
    restart_at: Instant,
}

impl Victim {
    fn new(process: Process, start: fn(&Site) -> Process, from: usize, random: &mut SeededRandom) -> Self {
        let half = MESSAGE_COUNT as u64 / 2;
        let mut kills: Vec<usize> = (0..KILL_COUNT).map(|_| from + between_ms(random, 1, half - 1) as usize).collect();
        kills.sort_unstable_by(|one, other| other.cmp(one));
        Self { process: Some(process), start, kills, restart_at: Instant::now() }
    }

    fn turn(&mut self, accepted: usize, site: &Site, random: &mut SeededRandom) {
        if self.process.is_none() && Instant::now() >= self.restart_at {
            self.process = Some((self.start)(site));
        }
        if self.kills.last().is_some_and(|&at| at <= accepted)
            && let Some(mut process) = self.process.take()
        {
            self.kills.pop();
            process.kill();
            self.restart_at = Instant::now() + Duration::from_millis(between_ms(random, 0, 400));
        }
    }

    fn revive(&mut self, site: &Site) {
        assert!(self.kills.is_empty(), "all kills took place");
        self.process.get_or_insert_with(|| (self.start)(site));
    }
}

/// What the application server knows.
struct Ledger {
    sender: Sender,
    attempts: usize,
    /// Texts that the service accepted, with the message resource while it is not gone.
    accepted: Vec<(String, Option<PushMessageUri>)>,
    /// Texts whose request was not answered: accepted or not.
    unknown: Vec<String>,
    turn: usize,
}

impl Ledger {
    fn new(subscription: &PushSubscription, trust: Trust) -> Self {
        let sender = Sender::new(subscription, trust).expect("the authority is there");
        Self { sender, attempts: 0, accepted: Vec::new(), unknown: Vec::new(), turn: 0 }
    }

    async fn post(&mut self, subscription: &PushSubscription) {
        self.attempts += 1;
        let text = format!("message {}", self.attempts);
        match self.sender.send(subscription, text.as_bytes(), Ttl::from_secs(TTL_S)).await {
            Ok(sent) => self.accepted.push((text, Some(sent.accepted.message))),
            Err(SendError::Connection(_) | SendError::Timeout) => self.unknown.push(text),
            Err(SendError::Establishment(_)) => {}
            Err(error) => panic!("the service refused a message: {error}"),
        }
    }

    /// Looks whether one message is gone at the service: then its device must have it.
    async fn look(&mut self, site: &Site) {
        let count = self.accepted.len();
        let Some(at) = (0..count).map(|step| (self.turn + step) % count).find(|&at| self.accepted[at].1.is_some())
        else {
            return;
        };
        self.turn = at + 1;
        let (text, message) = &mut self.accepted[at];
        let Some(resource) = message.as_ref() else { return };
        if let Ok(false) = self.sender.holds(resource).await {
            assert!(site.received("d1").contains(text), "{text} was acknowledged, but its device does not have it");
            *message = None;
        }
    }

    async fn settle(&mut self, site: &Site) {
        let start = Instant::now();
        while self.accepted.iter().any(|(_, message)| message.is_some()) {
            assert!(start.elapsed() < PATIENCE, "not all were acknowledged in time: {}", self.open(site));
            self.look(site).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// What is not acknowledged, and what the gateway says of itself.
    fn open(&self, site: &Site) -> String {
        let received = site.received("d1");
        let open = self.accepted.iter().filter(|(_, message)| message.is_some());
        let texts: Vec<String> = open.map(|(text, _)| format!("{text} ({})", received.contains(text))).collect();
        let status = site.command(&["status"]);
        format!("{} (at the device?)\n{}", texts.join(", "), String::from_utf8_lossy(&status.stdout))
    }

    fn check(&self, site: &Site) {
        let received = site.received("d1");
        let copies = |text: &String| received.iter().filter(|other| *other == text).count();
        for (text, _) in &self.accepted {
            assert_eq!(copies(text), 1, "{text} was accepted and must come once");
        }
        for text in &self.unknown {
            assert!(copies(text) <= 1, "{text} came twice");
        }
        let known = self.accepted.len() + self.unknown.iter().map(copies).sum::<usize>();
        assert_eq!(received.len(), known, "nothing comes that was not sent");
    }
}
