//! `kill -9` of the push service at random moments: what it answered is so, whatever it was doing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use fieldgate::random::{SeededRandom, between_ms};
use fieldgate::webpush::link;
use tokio::task::JoinSet;

use crate::process::{Process, Site};
use crate::service::{Answer, Client, Subscribed};

/// Messages that are posted until a kill.
const POST_COUNT: u64 = 24;
/// Kills until all that is stored is fetched and compared.
const KILLS_PER_CHECK: u32 = 4;

/// What is known of a message from the answers about it.
#[derive(Clone, Debug)]
struct Known {
    subscription: usize,
    topic: Option<u64>,
    /// Its path; none while no answer came.
    path: Option<String>,
    /// Its acknowledgement was begun, and was answered.
    acknowledging: bool,
    acknowledged: bool,
    with_receipt: bool,
}

/// All messages by their number, which is their text.
type Ledger = Rc<RefCell<BTreeMap<u64, Known>>>;

/// A-GAP-10, A-PS-40, A-PS-57: nothing that was accepted is lost, nothing that was acknowledged or replaced is pushed, and
/// each acknowledgement has its receipt, once. `FIELDGATE_SERVICE_KILLS` says how often it is killed,
/// `FIELDGATE_KILL_SEED` chooses the moments.
#[tokio::test(flavor = "local")]
async fn a_gap_10_a_killed_service_keeps_its_word() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let kill_count = number("FIELDGATE_SERVICE_KILLS").unwrap_or(40);
    let seed = number("FIELDGATE_KILL_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("FIELDGATE_KILL_SEED={seed}");
    let (site, service) = Site::with_service();
    let mut trial = Trial::begin(site, service, SeededRandom::new(seed)).await;
    for kill in 0..kill_count {
        trial.work_until_killed().await;
        if kill as u32 % KILLS_PER_CHECK == KILLS_PER_CHECK - 1 {
            trial.check().await;
        }
    }
    trial.check().await;
    println!("{kill_count} kills, {} messages", trial.posted_count);
}

struct Trial {
    site: Site,
    service: Process,
    random: SeededRandom,
    subscriptions: Vec<Subscribed>,
    receipts: String,
    ledger: Ledger,
    posted_count: u64,
}

impl Trial {
    async fn begin(site: Site, service: Process, random: SeededRandom) -> Self {
        let mut client = connect(&site).await;
        let first = client.subscribe(None).await;
        let second = client.subscribe(Some(&first.set)).await;
        // One message with a receipt makes the receipt subscription of all.
        let fields = [("ttl", "3600"), ("prefer", "respond-async")];
        let answer = client.request("POST", &first.push, &fields, b"0").await;
        let base = client.origin.parse().expect("a URI");
        let receipts = link::find(&answer.fields, link::RECEIPT, &base).expect("a link").expect("a good one");
        let path = Some(answer.field("location").to_owned());
        let known =
            Known { subscription: 0, topic: None, path, acknowledging: false, acknowledged: false, with_receipt: true };
        Self {
            site,
            service,
            random,
            subscriptions: vec![first, second],
            receipts: receipts.path().to_owned(),
            ledger: Rc::new(RefCell::new(BTreeMap::from([(0, known)]))),
            posted_count: 1,
        }
    }

    /// Posts, monitors and acknowledges until the service is killed in the midst of it, then starts it again.
    async fn work_until_killed(&mut self) {
        let client = connect(&self.site).await;
        let mut tasks = JoinSet::new();
        tasks.spawn_local(acknowledge_some(client.clone(), self.subscriptions[0].set.clone(), Rc::clone(&self.ledger)));
        for _ in 0..POST_COUNT {
            let number = self.posted_count;
            self.posted_count += 1;
            let subscription = between_ms(&mut self.random, 0, 1) as usize;
            let topic = Some(between_ms(&mut self.random, 0, 7)).filter(|topic| *topic < 3);
            let with_receipt = between_ms(&mut self.random, 0, 1) == 1;
            let known =
                Known { subscription, topic, path: None, acknowledging: false, acknowledged: false, with_receipt };
            self.ledger.borrow_mut().insert(number, known.clone());
            let to = self.subscriptions[subscription].push.clone();
            let (client, receipts, ledger) = (client.clone(), self.receipts.clone(), Rc::clone(&self.ledger));
            tasks.spawn_local(async move {
                let Some(answer) = post(&client, &to, number, &known, &receipts).await else { return };
                assert_eq!(answer.status, if known.with_receipt { 202 } else { 201 });
                let path = answer.field("location").to_owned();
                ledger.borrow_mut().get_mut(&number).expect("it is known").path = Some(path);
            });
        }
        tokio::time::sleep(Duration::from_millis(between_ms(&mut self.random, 0, 40))).await;
        self.service.kill();
        drop(client);
        while let Some(ended) = tasks.join_next().await {
            ended.expect("what a task expects is so");
        }
        self.service = self.site.restart_service();
    }

    /// Fetches all that is stored, and compares it with what was answered.
    async fn check(&mut self) {
        let client = connect(&self.site).await;
        let mut monitor = client.clone().monitor(&self.subscriptions[0].set, Some("wait=0"));
        let mut pushed = Vec::new();
        while let Some(push) = monitor.try_next().await {
            pushed.push(push.text().parse::<u64>().expect("a number"));
            let answer = client.try_request("DELETE", push.path(), &[], b"").await.expect("nobody kills it now");
            assert_eq!(answer.status, 204);
        }
        let mut ledger = std::mem::take(&mut *self.ledger.borrow_mut());
        for (number, known) in &ledger {
            let is_pushed = pushed.contains(number);
            if known.acknowledged || is_replaced(&ledger, *number, |it| it.path.is_some()) {
                assert!(!is_pushed, "message {number} is over: {known:?}");
            }
            let may_be_over = known.acknowledging || is_replaced(&ledger, *number, |_| true);
            if known.path.is_some() && !may_be_over {
                assert!(is_pushed, "message {number} is lost: {known:?}");
            }
        }
        assert_eq!(pushed.iter().filter(|number| !ledger.contains_key(number)).count(), 0);
        // Whatever was stored is fetched and acknowledged now; whatever was not never will be.
        for number in pushed {
            ledger.get_mut(&number).expect("looked at above").acknowledged = true;
        }
        check_receipts(&client, &self.receipts, &ledger).await;
        // The ledger is empty now: none of these may ever come again.
    }
}

/// Fetches all receipts, and compares them with what was acknowledged.
async fn check_receipts(client: &Client, receipts: &str, ledger: &BTreeMap<u64, Known>) {
    let (_, told) = client.clone().monitor(receipts, Some("wait=0")).finish().await;
    for known in ledger.values().filter(|known| known.with_receipt) {
        let Some(path) = &known.path else { continue };
        let count = told.iter().filter(|told| told.path() == path).count();
        assert!(count <= 1, "told once: {known:?}");
        assert!(count == 1 || !known.acknowledged, "its sender is not told: {known:?}");
    }
    assert!(told.iter().all(|told| told.answer.status == 204), "nothing was given up");
    // The answer to this one tells the service that all of them arrived.
    assert_eq!(client.clone().monitor(receipts, Some("wait=0")).end().await, 204);
}

/// Whether a later message of its topic makes it over.
fn is_replaced(ledger: &BTreeMap<u64, Known>, number: u64, counts: impl Fn(&Known) -> bool) -> bool {
    let known = &ledger[&number];
    // Posts are under way together, so that the order of those between two kills is not known.
    let batch = |number: u64| number.saturating_sub(1) / POST_COUNT;
    let same = |other: &Known| other.topic == known.topic && other.subscription == known.subscription;
    known.topic.is_some()
        && ledger.iter().any(|(other, it)| {
            let is_later = batch(*other) > batch(number);
            // One of unknown outcome, or of unknown order, may or may not be the newer one.
            let may_be_later = *other != number && batch(*other) == batch(number) && !it.is_certain_only(&counts);
            same(it) && counts(it) && (is_later || may_be_later)
        })
}

impl Known {
    /// Whether only what is certain is asked for.
    fn is_certain_only(&self, counts: &impl Fn(&Self) -> bool) -> bool {
        !counts(&Self { path: None, ..self.clone() })
    }
}

async fn connect(site: &Site) -> Client {
    site.await_listening();
    let address: SocketAddr = site.authority().parse().expect("an address");
    Client::connect(address, &site.ca).await.expect("it serves")
}

async fn post(client: &Client, to: &str, number: u64, known: &Known, receipts: &str) -> Option<Answer> {
    let topic = known.topic.map(|topic| format!("topic-{topic}"));
    let link = link::value(receipts, link::RECEIPT).to_str().expect("text").to_owned();
    let mut fields = vec![("ttl", "3600")];
    fields.extend(topic.as_deref().map(|topic| ("topic", topic)));
    if known.with_receipt {
        fields.extend([("prefer", "respond-async"), ("link", &*link)]);
    }
    client.try_request("POST", to, &fields, number.to_string().as_bytes()).await
}

/// Monitors, and acknowledges every other message, until the service is gone.
async fn acknowledge_some(client: Client, set: String, ledger: Ledger) {
    let mut monitor = client.clone().monitor(&set, None);
    let mut acknowledgements = JoinSet::new();
    while let Some(push) = monitor.try_next().await {
        let number: u64 = push.text().parse().expect("a number");
        {
            let mut ledger = ledger.borrow_mut();
            let known = ledger.get_mut(&number).expect("it was posted");
            assert!(!known.acknowledged, "message {number} was acknowledged: {known:?}");
            if number % 2 == 1 {
                continue;
            }
            known.acknowledging = true;
        }
        let (client, ledger) = (client.clone(), Rc::clone(&ledger));
        acknowledgements.spawn_local(async move {
            let answer = client.try_request("DELETE", push.path(), &[], b"").await;
            if answer.is_some_and(|answer| answer.status == 204) {
                ledger.borrow_mut().get_mut(&number).expect("it is known").acknowledged = true;
            }
        });
    }
    while acknowledgements.join_next().await.is_some() {}
}
