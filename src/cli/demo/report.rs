//! What the demonstration shows: each message's hops, then a summary.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::stage::{Posted, Received};
use crate::cli::{Outcome, say, write_out};
use crate::webpush::resource::PushMessageUri;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// One line that is written over, below the messages that are done: a terminal.
    Live,
    /// Plain lines.
    Lines,
}

/// One message on its way.
struct Journey {
    device: String,
    message: PushMessageUri,
    /// When the last octet of the request was handed over, and when its answer came.
    posted_at: Instant,
    accepted_at: Instant,
    received_at: Option<Instant>,
    gone_at: Option<Instant>,
    /// How often its device's application had it.
    copies: u32,
}

/// All messages on their way.
pub struct Report {
    shown: Shown,
    journeys: Vec<Journey>,
    /// Messages of which nothing was sent.
    strangers: u32,
    /// Where the next look for one that is gone begins.
    turn: usize,
}

impl Report {
    /// Nothing was sent yet.
    pub fn new(shown: Shown) -> Self {
        Self { shown, journeys: Vec::new(), strangers: 0, turn: 0 }
    }

    /// Shows a line.
    pub fn say(&self, line: &str) {
        self.clear();
        show(&format!("{line}\n"));
    }

    /// A message was accepted by the push service.
    pub fn posted(&mut self, posted: Posted) {
        let Posted { device, message, posted_at, accepted_at } = posted;
        self.journeys.push(Journey {
            device,
            message,
            posted_at,
            accepted_at,
            received_at: None,
            gone_at: None,
            copies: 0,
        });
        self.progress();
    }

    /// An application has a message.
    pub fn received(&mut self, received: &Received) {
        let journey = received.number.and_then(|number| self.journeys.get_mut(number));
        match journey.filter(|journey| journey.device == received.device) {
            Some(journey) => {
                journey.copies += 1;
                journey.received_at.get_or_insert(received.at);
            }
            None => self.strangers += 1,
        }
        self.progress();
    }

    /// A message that its device has, and that may be gone at the push service: each in turn.
    pub fn next_delivered(&mut self) -> Option<(usize, PushMessageUri)> {
        let count = self.journeys.len();
        let waits = |number: &usize| {
            let journey = &self.journeys[*number];
            journey.received_at.is_some() && journey.gone_at.is_none()
        };
        let number = (0..count).map(|step| (self.turn + step) % count).find(waits)?;
        self.turn = number + 1;
        Some((number, self.journeys[number].message.clone()))
    }

    /// A message is gone at the push service: its journey is over.
    pub fn gone(&mut self, number: usize) {
        let journey = &mut self.journeys[number];
        journey.gone_at = Some(Instant::now());
        let hop = |at: Option<Instant>| at.map_or(0.0, |at| ms(at.saturating_duration_since(journey.posted_at)));
        let line = format!(
            "#{:<4} {:<10} accepted {:>6.1} ms   at the device {:>7.1} ms   acknowledged {:>7.1} ms",
            number + 1,
            journey.device,
            hop(Some(journey.accepted_at)),
            hop(journey.received_at),
            hop(journey.gone_at),
        );
        self.say(&line);
        self.progress();
    }

    /// Messages whose journey is over.
    pub fn done(&self) -> usize {
        self.journeys.iter().filter(|journey| journey.gone_at.is_some()).count()
    }

    fn received_count(&self) -> usize {
        self.journeys.iter().filter(|journey| journey.received_at.is_some()).count()
    }

    fn progress(&self) {
        if self.shown == Shown::Live {
            let (accepted, received, done) = (self.journeys.len(), self.received_count(), self.done());
            show(&format!("\r\x1b[Kaccepted {accepted}   at the device {received}   acknowledged {done}"));
        }
    }

    fn clear(&self) {
        if self.shown == Shown::Live {
            show("\r\x1b[K");
        }
    }

    /// Shows the summary; with `json` the last line is one object.
    ///
    /// # Errors
    /// Standard output is closed or full.
    pub fn finish(&self, counters: &Value, json: bool) -> Outcome {
        self.clear();
        let latencies = self.latencies();
        let (p50, p99) = (percentile(&latencies, 50), percentile(&latencies, 99));
        let doubled = self.journeys.iter().filter(|journey| journey.copies > 1).count();
        let lost = self.journeys.len() - self.received_count();
        say(format_args!(
            "{} sent, {} at their devices, {} acknowledged and gone",
            self.journeys.len(),
            self.received_count(),
            self.done()
        ))?;
        say(format_args!(
            "{lost} lost, {doubled} doubled; from the sender's last octet to the application: p50 {p50:.1} ms, p99 {p99:.1} ms"
        ))?;
        if json {
            let summary = json!({
                "sent": self.journeys.len(),
                "relayed": counters["relayed"],
                "device_acks": counters["device_acks"],
                "acknowledged": self.done(),
                "lost": lost,
                "doubled": doubled,
                "p50_ms": round(p50),
                "p99_ms": round(p99),
            });
            say(summary)?;
        }
        Ok(())
    }

    /// Whether every message came to its device once and is gone.
    pub fn verdict(&self) -> Result<(), String> {
        let wrong = self.journeys.iter().filter(|journey| journey.copies != 1 || journey.gone_at.is_none()).count();
        match (wrong, self.strangers) {
            (0, 0) => Ok(()),
            (0, strangers) => Err(format!("{strangers} messages came that nobody sent to that device")),
            (wrong, _) => Err(format!("{wrong} messages were lost, doubled or not acknowledged")),
        }
    }

    fn latencies(&self) -> Vec<Duration> {
        let latency = |journey: &Journey| Some(journey.received_at?.saturating_duration_since(journey.posted_at));
        let mut latencies: Vec<Duration> = self.journeys.iter().filter_map(latency).collect();
        latencies.sort_unstable();
        latencies
    }
}

/// Shows progress. Without somebody to show it to, the messages go on all the same.
fn show(text: &str) {
    if let Err(error) = write_out(text) {
        tracing::debug!("standard output: {error}");
    }
}

/// The nearest-rank percentile of sorted values, in milliseconds; 0 of none.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().map_or(0.0, ms)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

fn round(ms: f64) -> f64 {
    (ms * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let values: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99)), (50.0, 99.0));
        assert_eq!((percentile(&values[..1], 99), percentile(&[], 50)), (1.0, 0.0));
    }

    #[test]
    fn only_once_and_gone_is_right() {
        let mut report = Report::new(Shown::Lines);
        report.posted(posted());
        assert!(report.verdict().is_err(), "lost");
        report.received(&received(0, "a"));
        assert_eq!(report.next_delivered().map(|(number, _)| number), Some(0));
        report.gone(0);
        assert_eq!(report.verdict(), Ok(()));
        report.received(&received(0, "a"));
        assert!(report.verdict().is_err(), "doubled");
    }

    #[test]
    fn a_message_at_another_device_is_wrong() {
        let mut report = Report::new(Shown::Lines);
        report.posted(posted());
        report.received(&received(0, "a"));
        report.gone(0);
        report.received(&received(0, "b"));
        assert!(report.verdict().is_err());
    }

    fn posted() -> Posted {
        let message = PushMessageUri::parse("https://push.example/m").expect("valid");
        Posted { device: "a".into(), message, posted_at: Instant::now(), accepted_at: Instant::now() }
    }

    fn received(number: usize, device: &str) -> Received {
        Received { device: device.into(), number: Some(number), at: Instant::now() }
    }
}
