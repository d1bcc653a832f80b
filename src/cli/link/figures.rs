//! The figures of one size of frames, and how they are shown.

use std::fmt;

use serde_json::{Value, json};

use crate::time::Duration;

/// How frames of one size passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Figures {
    /// Octets of each frame on the line.
    pub octets: usize,
    /// How many were sent.
    pub sent: u32,
    /// Answers that came after their time; their probes count as lost.
    pub late: u32,
    /// The round trips of those that were answered.
    pub round_trips: Vec<Duration>,
}

/// Round trips at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RoundTrips {
    pub min: Duration,
    pub median: Duration,
    /// Of a hundred, all but one are no longer.
    pub p99: Duration,
}

impl Figures {
    pub fn new(octets: usize) -> Self {
        Self { octets, sent: 0, late: 0, round_trips: Vec::new() }
    }

    /// How many were not answered.
    pub fn lost(&self) -> u32 {
        self.sent.saturating_sub(u32::try_from(self.round_trips.len()).unwrap_or(u32::MAX))
    }

    /// How many of a thousand were not answered.
    pub fn lost_per_mille(&self) -> u32 {
        (u64::from(self.lost()) * 1_000 / u64::from(self.sent.max(1))) as u32
    }

    /// `None` when none was answered.
    pub fn summary(&self) -> Option<RoundTrips> {
        let mut sorted = self.round_trips.clone();
        sorted.sort_unstable();
        let rank = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Some(RoundTrips { min: *sorted.first()?, median: rank(50)?, p99: rank(99)? })
    }

    /// The figures as an object.
    pub fn to_json(&self) -> Value {
        let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let summary = self.summary();
        json!({
            "octets": self.octets,
            "sent": self.sent,
            "lost": self.lost(),
            "late": self.late,
            "min_us": summary.map(|summary| us(summary.min)),
            "median_us": summary.map(|summary| us(summary.median)),
            "p99_us": summary.map(|summary| us(summary.p99)),
        })
    }
}

/// The line above those of [`Figures`].
pub(super) const HEADING: &str = "octets   sent     lost      min   median      p99";

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = self.lost_per_mille();
        write!(f, "{:>6} {:>6} {:>6}", self.octets, self.sent, format!("{}.{}", lost / 10, lost % 10))?;
        match self.summary() {
            Some(RoundTrips { min, median, p99 }) => {
                write!(f, " % {:>8} {:>8} {:>8}", Ms(min).to_string(), Ms(median).to_string(), Ms(p99).to_string())
            }
            None => write!(f, " % {:>8} {:>8} {:>8}", "-", "-", "-"),
        }
    }
}

/// Milliseconds with two decimals.
struct Ms(Duration);

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0.as_micros();
        write!(f, "{}.{:02} ms", us / 1_000, us % 1_000 / 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_what_was_lost_and_how_long_the_rest_took() {
        let mut figures = Figures::new(256);
        figures.sent = 200;
        figures.round_trips = (1..=190).rev().map(Duration::from_millis).collect();
        assert_eq!(figures.to_string(), "   256    200    5.0 %  1.00 ms 95.00 ms 189.00 ms");
        let json = figures.to_json();
        assert_eq!((json["lost"].as_u64(), json["median_us"].as_u64()), (Some(10), Some(95_000)));
    }

    #[test]
    fn the_columns_stand_below_their_heading() {
        let mut figures = Figures::new(8);
        figures.sent = 3;
        figures.round_trips = vec![Duration::from_micros(1_234); 3];
        assert_eq!(figures.to_string().len(), HEADING.len());
        assert_eq!(figures.to_string(), "     8      3    0.0 %  1.23 ms  1.23 ms  1.23 ms");
        figures.round_trips.clear();
        assert_eq!(figures.to_string(), "     8      3  100.0 %        -        -        -");
        assert_eq!(figures.to_json()["min_us"], Value::Null);
    }
}
