//! The retransmission timer, from measured round trips.
//!
//! A round trip measured with a short frame says little of a long one on a slow line: the timer is never shorter than two
//! of the largest frames take there, as far as the measurements tell.
//!
//! Source: RFC 6298 in integer milliseconds. What is sent again is a new frame with its own number, so that each ack
//! can be measured.

use crate::limits::{
    LINK_RTO_MS_MAX, LINK_RTO_MS_MIN, LINK_RTO_MS_START, LINK_RTO_MS_START_PER_MTU_BYTE, LINK_RTO_MS_VARIATION_MIN,
};
use crate::time::Duration;

/// Smoothed round trip, its variation, and the timer that follows from them.
///
/// Units: milliseconds; the round trip is kept in eighths and the variation in quarters, as RFC 6298 weighs them.
pub(super) struct RetransmissionTimer {
    mtu: u32,
    smoothed_eighths: Option<u32>,
    variation_quarters: u32,
    /// The least time for each octet there and back of all measurements, in microseconds.
    octet_us: u32,
    timeout: u32,
}

impl RetransmissionTimer {
    pub fn new(mtu: usize) -> Self {
        // At most 1024.
        let mtu = mtu as u32;
        let timeout = LINK_RTO_MS_START.max(LINK_RTO_MS_START_PER_MTU_BYTE * mtu);
        Self { mtu, smoothed_eighths: None, variation_quarters: 0, octet_us: u32::MAX, timeout }
    }

    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout.into())
    }

    /// Takes a measured round trip of a frame and its ack, so many octets together (RFC 6298 §2.2, §2.3); this also ends a
    /// doubling.
    pub fn measured(&mut self, round_trip: Duration, bytes: u32) {
        let sample = u32::try_from(round_trip.as_millis()).unwrap_or(u32::MAX).min(LINK_RTO_MS_MAX);
        self.octet_us = self.octet_us.min(sample * 1000 / bytes.max(1));
        let smoothed_eighths = match self.smoothed_eighths {
            None => {
                self.variation_quarters = sample * 2;
                sample * 8
            }
            Some(smoothed) => {
                let deviation = (smoothed / 8).abs_diff(sample);
                self.variation_quarters = self.variation_quarters - self.variation_quarters / 4 + deviation;
                smoothed - smoothed / 8 + sample
            }
        };
        self.smoothed_eighths = Some(smoothed_eighths);
        let variation = self.variation_quarters.max(LINK_RTO_MS_VARIATION_MIN);
        let two_frames =
            (2 * self.mtu * self.octet_us.min(LINK_RTO_MS_MAX) / 1000).clamp(LINK_RTO_MS_MIN, LINK_RTO_MS_MAX);
        self.timeout = (smoothed_eighths / 8 + variation).clamp(two_frames, LINK_RTO_MS_MAX);
    }

    /// The timer ran out (RFC 6298 §5.5).
    pub fn double(&mut self) {
        self.timeout = (self.timeout * 2).min(LINK_RTO_MS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sample_sets_the_timer_to_three_round_trips() {
        let mut timer = RetransmissionTimer::new(20);
        assert_eq!(timer.timeout, LINK_RTO_MS_START);
        timer.measured(Duration::from_millis(200), 40);
        assert_eq!(timer.timeout, 600);
    }

    #[test]
    fn steady_samples_bring_it_down_to_its_floor_and_doubling_up_to_its_ceiling() {
        let mut timer = RetransmissionTimer::new(20);
        (0..100).for_each(|_| timer.measured(Duration::from_millis(2), 40));
        assert_eq!(timer.timeout, LINK_RTO_MS_MIN);
        timer.double();
        assert_eq!(timer.timeout, 2 * LINK_RTO_MS_MIN);
        (0..40).for_each(|_| timer.double());
        assert_eq!(timer.timeout, LINK_RTO_MS_MAX);
        timer.measured(Duration::from_millis(2), 40);
        assert!(timer.timeout < LINK_RTO_MS_MAX);
    }

    /// At 9600 baud, after short frames alone.
    #[test]
    fn it_is_never_shorter_than_two_of_the_largest_frames() {
        for mtu in [20, 256, 1024] {
            let mut timer = RetransmissionTimer::new(mtu);
            let two_frames = 2 * mtu as u32 * 10 * 1000 / 9600;
            assert!(timer.timeout >= two_frames, "{mtu}: {}", timer.timeout);
            (0..100).for_each(|_| timer.measured(Duration::from_millis(44), 40));
            assert!(timer.timeout >= two_frames, "{mtu}: {}", timer.timeout);
        }
    }

    #[test]
    fn an_absurd_sample_is_bounded() {
        let mut timer = RetransmissionTimer::new(20);
        (0..100).for_each(|_| timer.measured(Duration::MAX, 40));
        assert_eq!(timer.timeout, LINK_RTO_MS_MAX);
    }
}
