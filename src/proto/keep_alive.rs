//! How often an idle connection is tested, learned from the path within bounds.
//!
//! Middleboxes forget connections that are idle for longer than they care to say. Each test that is answered after a full
//! interval of silence shows that the path lasts that long; after some of them a longer interval is tried. A test without
//! answer shortens it, and keeps it short for a while.
//!
//! Nothing of this is stored: after a restart another network may be behind the same interface, where a long interval
//! would cost messages that nobody knows are late, and a short one costs 78 octets a test until the path is known.
//!
//! Source: RFC 8030 §3 (the dedicated port exists for long silences); RFC 5382 REQ-5; RFC 9113 §6.7.

use crate::limits::{
    KEEP_ALIVE_CEILING_S, KEEP_ALIVE_MS, KEEP_ALIVE_MS_MAX, KEEP_ALIVE_MS_MIN, KEEP_ALIVE_PROOF_COUNT,
    KEEP_ALIVE_WEBPUSH_MS, KEEP_ALIVE_WEBPUSH_MS_MAX, WEBPUSH_PORT,
};
use crate::time::{Duration, Instant};

/// The interval between tests, and what is known of the path.
#[derive(Debug)]
pub struct KeepAlive {
    interval: Duration,
    max: Duration,
    /// Answers in a row after a full interval of silence.
    proofs: u32,
    /// What a test without answer allows at most, and until when that is believed.
    ceiling: Option<(Duration, Instant)>,
}

/// What is known of the paths to one service: to the port of its origin, and to that of the last alternative on another
/// one. Middleboxes treat ports differently.
#[derive(Debug)]
pub struct KeepAlives {
    origin: (u16, KeepAlive),
    alternative: Option<(u16, KeepAlive)>,
    is_at_alternative: bool,
}

impl KeepAlives {
    /// An origin at that port.
    pub fn for_port(port: u16) -> Self {
        Self { origin: (port, KeepAlive::for_port(port)), alternative: None, is_at_alternative: false }
    }

    /// The connection is at an alternative on that port; none: at the origin.
    pub fn go_to(&mut self, port: Option<u16>) {
        let elsewhere = port.filter(|port| *port != self.origin.0);
        self.is_at_alternative = elsewhere.is_some();
        if let Some(port) = elsewhere
            && self.alternative.as_ref().is_none_or(|(known, _)| *known != port)
        {
            self.alternative = Some((port, KeepAlive::for_port(port)));
        }
    }

    /// What counts for the connection.
    pub fn current(&self) -> &KeepAlive {
        match &self.alternative {
            Some((_, alternative)) if self.is_at_alternative => alternative,
            _ => &self.origin.1,
        }
    }

    /// What counts for the connection.
    pub fn current_mut(&mut self) -> &mut KeepAlive {
        match &mut self.alternative {
            Some((_, alternative)) if self.is_at_alternative => alternative,
            _ => &mut self.origin.1,
        }
    }
}

impl KeepAlive {
    /// What is known of no path: the cautious interval of the port.
    pub fn for_port(port: u16) -> Self {
        let (interval, max) = match port {
            WEBPUSH_PORT => (KEEP_ALIVE_WEBPUSH_MS, KEEP_ALIVE_WEBPUSH_MS_MAX),
            _ => (KEEP_ALIVE_MS, KEEP_ALIVE_MS_MAX),
        };
        Self { interval: Duration::from_millis(interval), max: Duration::from_millis(max), proofs: 0, ceiling: None }
    }

    /// How long a connection may be silent before it is tested.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// A test after a full interval of silence was answered.
    pub fn proved(&mut self, now: Instant) {
        self.proofs += 1;
        if self.proofs < KEEP_ALIVE_PROOF_COUNT {
            return;
        }
        self.proofs = 0;
        self.ceiling = self.ceiling.filter(|(_, until)| now < *until);
        let max = self.ceiling.map_or(self.max, |(ceiling, _)| ceiling);
        self.interval = (self.interval + self.interval / 4).min(max).max(self.interval);
    }

    /// A test after a full interval of silence was not answered.
    pub fn disproved(&mut self, now: Instant) {
        self.proofs = 0;
        let shorter = self.interval - self.interval / 4;
        self.interval = shorter.max(Duration::from_millis(KEEP_ALIVE_MS_MIN)).min(self.interval);
        self.ceiling = Some((self.interval, now + Duration::from_secs(KEEP_ALIVE_CEILING_S)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A-UA-45: each port has its interval, and stays within its bounds whatever the path does.
    #[test]
    fn a_ua_45_the_interval_is_learned_within_the_bounds_of_the_port() {
        for (port, first, longest) in
            [(443, KEEP_ALIVE_MS, KEEP_ALIVE_MS_MAX), (WEBPUSH_PORT, KEEP_ALIVE_WEBPUSH_MS, KEEP_ALIVE_WEBPUSH_MS_MAX)]
        {
            let mut keep_alive = KeepAlive::for_port(port);
            assert_eq!(keep_alive.interval(), Duration::from_millis(first));
            for _ in 0..100 {
                keep_alive.proved(Instant::ZERO);
            }
            assert_eq!(keep_alive.interval(), Duration::from_millis(longest));
            for _ in 0..100 {
                keep_alive.disproved(Instant::ZERO);
            }
            assert_eq!(keep_alive.interval(), Duration::from_millis(KEEP_ALIVE_MS_MIN));
        }
    }

    /// A-UA-45: what was learned of a port is kept while the connection is at another one.
    #[test]
    fn a_ua_45_each_port_has_its_own_interval() {
        let mut known = KeepAlives::for_port(443);
        known.current_mut().disproved(Instant::ZERO);
        let short = known.current().interval();
        known.go_to(Some(WEBPUSH_PORT));
        assert_eq!(known.current().interval(), Duration::from_millis(KEEP_ALIVE_WEBPUSH_MS));
        known.current_mut().disproved(Instant::ZERO);
        let learned = known.current().interval();
        known.go_to(None);
        assert_eq!(known.current().interval(), short);
        known.go_to(Some(443));
        assert_eq!(known.current().interval(), short, "another host on the same port");
        known.go_to(Some(WEBPUSH_PORT));
        assert_eq!(known.current().interval(), learned);
        known.go_to(Some(8443));
        assert_eq!(known.current().interval(), Duration::from_millis(KEEP_ALIVE_MS));
    }

    #[test]
    fn one_answer_proves_little() {
        let mut keep_alive = KeepAlive::for_port(443);
        (1..KEEP_ALIVE_PROOF_COUNT).for_each(|_| keep_alive.proved(Instant::ZERO));
        assert_eq!(keep_alive.interval(), Duration::from_millis(KEEP_ALIVE_MS));
        keep_alive.proved(Instant::ZERO);
        assert_eq!(keep_alive.interval(), Duration::from_millis(KEEP_ALIVE_MS * 5 / 4));
    }

    /// What a path did not survive is not tried again soon, but it is one day: networks change.
    #[test]
    fn a_failed_interval_is_not_tried_again_for_a_while() {
        let mut keep_alive = KeepAlive::for_port(443);
        keep_alive.disproved(Instant::ZERO);
        let short = keep_alive.interval();
        assert!(short < Duration::from_millis(KEEP_ALIVE_MS));
        let prove = |keep_alive: &mut KeepAlive, at_s| {
            (0..KEEP_ALIVE_PROOF_COUNT).for_each(|_| keep_alive.proved(Instant::from_millis(at_s * 1_000)));
        };
        prove(&mut keep_alive, KEEP_ALIVE_CEILING_S - 1);
        assert_eq!(keep_alive.interval(), short);
        prove(&mut keep_alive, KEEP_ALIVE_CEILING_S);
        assert!(keep_alive.interval() > short);
    }
}
