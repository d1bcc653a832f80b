//! What an application server knows of the messages to one device, and what their application has.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fieldgate::sender::{SendError, Sender};
use fieldgate::transport::properties::Trust;
use fieldgate::webpush::headers::Ttl;
use fieldgate::webpush::resource::{PushMessageUri, PushUri};
use fieldgate::webpush::subscription::PushSubscription;

use crate::process::{PATIENCE, Site, now, pause};

const TTL: Ttl = Ttl::from_secs(3_600);
/// How long the last message may take to be acknowledged: the service pushes again after half a minute.
const SETTLE_PATIENCE: Duration = Duration::from_secs(150);

/// The messages to one device.
pub struct Ledger {
    subscription: PushSubscription,
    trust: PathBuf,
    /// The file that has what the application received: a journal, or what was printed.
    application: String,
    posts: Mutex<Posts>,
    /// How many were accepted so far.
    pub accepted: AtomicUsize,
    attempts: AtomicUsize,
}

#[derive(Default)]
struct Posts {
    /// Texts that the service accepted, with the message resource while it is not known to be gone.
    accepted: BTreeMap<String, Option<PushMessageUri>>,
    /// Texts whose request was not answered: accepted or not.
    unknown: Vec<String>,
}

/// How the messages of one device fared.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    pub sent: usize,
    pub unknown: usize,
    pub received: usize,
    pub doubled: usize,
}

impl Ledger {
    /// The application server speaks to the service itself, by whatever way the gateway does.
    pub fn new(site: &Site, id: &str, application: &str) -> Self {
        let mut subscription = site.subscription(id);
        let endpoint = subscription.endpoint.as_str().replacen(subscription.endpoint.authority(), site.authority(), 1);
        subscription.endpoint = PushUri::parse(&endpoint).expect("it was a URI");
        Self {
            subscription,
            trust: site.ca.clone(),
            application: application.to_owned(),
            posts: Mutex::default(),
            accepted: AtomicUsize::new(0),
            attempts: AtomicUsize::new(1),
        }
    }

    /// Posts messages of so many octets one after another; each is accepted in the end, or its fate is unknown.
    pub fn post(&self, count: usize, octets: usize) {
        self.with_sender(async |sender| {
            for _ in 0..count {
                let number = self.attempts.fetch_add(1, Ordering::Relaxed);
                self.post_one(sender, format!("{number:0octets$}")).await;
            }
        });
    }

    async fn post_one(&self, sender: &mut Sender, text: String) {
        let start = now();
        loop {
            match sender.send(&self.subscription, text.as_bytes(), TTL).await {
                Ok(sent) => {
                    self.posts().accepted.insert(text, Some(sent.accepted.message));
                    self.accepted.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(SendError::Connection(_) | SendError::Timeout) => return self.posts().unknown.push(text),
                // Not accepted, and it can be said again.
                Err(error @ (SendError::Establishment(_) | SendError::Refused(_))) if error.is_retryable() => {
                    assert!(start.elapsed() < PATIENCE, "the service takes nothing: {error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("the service refused a message: {error}"),
            }
        }
    }

    /// Whether the application has all that was accepted so far.
    pub fn is_received(&self, site: &Site) -> bool {
        let received = site.received_in(&self.application);
        self.posts().accepted.keys().all(|text| received.contains(text))
    }

    /// Whether the application has a message that nothing acknowledged yet.
    pub fn is_any_received(&self, site: &Site) -> bool {
        let received = site.received_in(&self.application);
        let posts = self.posts();
        posts.accepted.iter().any(|(text, message)| message.is_some() && received.contains(text))
    }

    /// How many accepted messages the service still holds. One that is gone must be at its application.
    pub fn held(&self, site: &Site) -> usize {
        let open: Vec<(String, PushMessageUri)> = {
            let posts = self.posts();
            posts.accepted.iter().filter_map(|(text, message)| Some((text.clone(), message.clone()?))).collect()
        };
        let gone = Mutex::new(Vec::new());
        self.with_sender(async |sender| {
            for (text, message) in &open {
                if let Ok(false) = sender.holds(message).await {
                    gone.lock().expect("one thread").push(text.clone());
                }
            }
        });
        let gone = gone.into_inner().expect("one thread");
        let received = site.received_in(&self.application);
        for text in &gone {
            assert!(received.contains(text), "{} was acknowledged, but its application does not have it", short(text));
            self.posts().accepted.insert(text.clone(), None);
        }
        open.len() - gone.len()
    }

    /// Waits until everything is acknowledged.
    pub fn settle(&self, site: &Site) {
        let start = now();
        while self.held(site) > 0 {
            assert!(start.elapsed() < SETTLE_PATIENCE, "not all were acknowledged in time: {}", self.open(site));
            pause(Duration::from_millis(50));
        }
    }

    /// What is not acknowledged, and what the gateway says of itself.
    fn open(&self, site: &Site) -> String {
        let received = site.received_in(&self.application);
        let posts = self.posts();
        let open = posts.accepted.iter().filter(|(_, message)| message.is_some());
        let texts: Vec<String> = open
            .map(|(text, _)| format!("{} (at the application: {})", short(text), received.contains(text)))
            .collect();
        let status = site.command(&["status"]);
        format!("{}\n{}", texts.join(", "), String::from_utf8_lossy(&status.stdout))
    }

    /// Counts, and makes sure that each accepted message came and nothing came that was not sent.
    pub fn tally(&self, site: &Site) -> Tally {
        let posts = self.posts();
        let mut tally = Tally { sent: posts.accepted.len(), unknown: posts.unknown.len(), ..Tally::default() };
        let mut copies: BTreeMap<String, usize> = BTreeMap::new();
        for text in site.received_in(&self.application) {
            *copies.entry(text).or_default() += 1;
        }
        for (text, count) in &copies {
            assert!(posts.accepted.contains_key(text) || posts.unknown.contains(text), "{} was not sent", short(text));
            tally.received += count;
            tally.doubled += count - 1;
            assert!(*count <= 2, "{} came {count} times", short(text));
        }
        for text in posts.accepted.keys() {
            assert!(copies.contains_key(text), "{} was accepted and lost", short(text));
        }
        tally
    }

    fn posts(&self) -> std::sync::MutexGuard<'_, Posts> {
        self.posts.lock().expect("nobody panicked")
    }

    fn with_sender(&self, act: impl AsyncFnOnce(&mut Sender)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
        let mut sender =
            Sender::new(&self.subscription, Trust::File(self.trust.clone())).expect("the authority is there");
        runtime.expect("the system has room for a runtime").block_on(act(&mut sender));
    }
}

/// The number alone.
fn short(text: &str) -> &str {
    text.trim_start_matches('0')
}
