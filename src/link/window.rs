//! The numbers of frames in flight, and when to send them again.
//!
//! It counts frames and knows neither their octets nor messages.
//!
//! ```text
//!  acked_seq        + next           + used                 + limit
//!     |-- sent again --|-- sent before --|-- may be sent now --|
//! ```
//!
//! Source: RFC 3366 (advice to link designers on ARQ).

use crate::limits::{LINK_SILENCE_MS, LINK_WINDOW_BYTES, LINK_WINDOW_FRAMES, LINK_WINDOW_START_FRAMES};
use crate::time::{Duration, Instant};

use super::Silent;
use super::rto::RetransmissionTimer;

/// What a frame ack changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Acknowledged {
    /// Frames that arrived.
    pub count: u8,
    /// Whether the rest is to be sent again.
    pub go_back: bool,
}

pub(super) struct Window {
    acked_seq: u8,
    next: u8,
    used: u8,
    limit: u8,
    limit_max: u8,
    went_back_for_gap: bool,
    /// The frame whose round trip is being measured, and when it was sent.
    measured: Option<(u8, Instant)>,
    timer: RetransmissionTimer,
    /// When the timer runs out; none while no frame is in flight.
    resend_at: Option<Instant>,
    /// When a peer of which nothing was heard counts as silent; says nothing while no frame is in flight.
    silent_at: Instant,
}

impl Window {
    pub fn new(mtu: u16) -> Self {
        let frames = LINK_WINDOW_BYTES / usize::from(mtu);
        Self {
            acked_seq: 0,
            next: 0,
            used: 0,
            limit: LINK_WINDOW_START_FRAMES,
            limit_max: u8::try_from(frames).map_or(LINK_WINDOW_FRAMES, |frames| frames.min(LINK_WINDOW_FRAMES)),
            went_back_for_gap: false,
            measured: None,
            timer: RetransmissionTimer::new(mtu),
            resend_at: None,
            silent_at: Instant::ZERO,
        }
    }

    pub fn is_full(&self) -> bool {
        self.next >= self.limit
    }

    /// A frame is sent; returns its number.
    pub fn sent(&mut self, now: Instant) -> u8 {
        let seq = self.acked_seq.wrapping_add(self.next);
        self.next += 1;
        if self.next > self.used {
            self.used = self.next;
            self.measured = self.measured.or(Some((seq, now)));
        }
        if self.resend_at.is_none() {
            self.wait(now);
        }
        seq
    }

    /// Takes the number that the peer expects next.
    pub fn acknowledge(&mut self, ack: u8, gap: bool, now: Instant) -> Acknowledged {
        let count = ack.wrapping_sub(self.acked_seq);
        if count > self.used {
            return Acknowledged { count: 0, go_back: false };
        }
        if count > 0 {
            self.advance(count, now);
        }
        let go_back = gap && self.used > 0 && !self.went_back_for_gap;
        if go_back {
            self.went_back_for_gap = true;
            self.resend_at = Some(now + self.timer.timeout());
            self.go_back();
        }
        Acknowledged { count, go_back }
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.resend_at.map(|resend_at| resend_at.min(self.silent_at))
    }

    /// Whether the timer ran out, so that the oldest frame is to be sent again, and for now it alone.
    ///
    /// # Errors
    /// [`Silent`] when nothing has arrived for [`LINK_SILENCE_MS`].
    pub fn handle_timeout(&mut self, now: Instant) -> Result<bool, Silent> {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return Ok(false);
        }
        if self.silent_at <= now {
            return Err(Silent);
        }
        self.timer.double();
        // It runs again although nothing was sent yet: a port that takes no octets is silent as well.
        self.resend_at = Some(now + self.timer.timeout());
        self.limit = 1;
        self.go_back();
        Ok(true)
    }

    fn advance(&mut self, count: u8, now: Instant) {
        if let Some((seq, sent_at)) = self.measured
            && seq.wrapping_sub(self.acked_seq) < count
        {
            self.timer.measured(now.since(sent_at));
            self.measured = None;
        }
        self.acked_seq = self.acked_seq.wrapping_add(count);
        self.used -= count;
        self.next = self.next.saturating_sub(count);
        self.limit = self.limit.saturating_add(count).min(self.limit_max);
        self.went_back_for_gap = false;
        self.resend_at = None;
        if self.used > 0 {
            self.wait(now);
        }
    }

    /// Frames are in flight, and what is heard of them is new.
    fn wait(&mut self, now: Instant) {
        self.resend_at = Some(now + self.timer.timeout());
        self.silent_at = now + Duration::from_millis(LINK_SILENCE_MS);
    }

    fn go_back(&mut self) {
        self.next = 0;
        self.measured = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LINK_RTO_MS_START;
    use std::vec::Vec;

    const NOW: Instant = Instant::ZERO;
    const MTU: u16 = 64;

    #[test]
    fn the_window_is_never_exceeded_and_grows_with_each_frame_ack() {
        let mut window = Window::new(MTU);
        assert_eq!(fill(&mut window, NOW), [0, 1, 2, 3]);
        window.acknowledge(4, false, NOW);
        assert_eq!(fill(&mut window, NOW).len(), 8);
        window.acknowledge(12, false, NOW);
        assert_eq!(fill(&mut window, NOW).len(), usize::from(LINK_WINDOW_FRAMES));
        window.acknowledge(13, false, NOW);
        assert_eq!(fill(&mut window, NOW), [28]);
    }

    #[test]
    fn the_window_of_a_large_mtu_is_smaller() {
        for (mtu, frames) in [(20, 16), (256, 16), (512, 8), (1024, 4)] {
            let mut window = Window::new(mtu);
            for ack in 1..=100 {
                fill(&mut window, NOW);
                window.acknowledge(ack, false, NOW);
            }
            fill(&mut window, NOW);
            assert_eq!(window.used, frames, "{mtu}");
            assert!(usize::from(window.used) * usize::from(mtu) <= LINK_WINDOW_BYTES);
        }
    }

    #[test]
    fn numbers_go_round() {
        let mut window = Window::new(MTU);
        for round in 0..1000u32 {
            let seq = window.sent(NOW);
            assert_eq!(u32::from(seq), round % 256);
            assert_eq!(window.acknowledge(seq.wrapping_add(1), false, NOW).count, 1);
        }
    }

    #[test]
    fn a_gap_is_answered_once_for_each_number() {
        let mut window = Window::new(MTU);
        fill(&mut window, NOW);
        assert_eq!(window.acknowledge(1, true, NOW), Acknowledged { count: 1, go_back: true });
        assert_eq!(fill(&mut window, NOW), [1, 2, 3, 4, 5]);
        assert_eq!(window.acknowledge(1, true, NOW), Acknowledged { count: 0, go_back: false });
        assert_eq!(window.acknowledge(2, true, NOW), Acknowledged { count: 1, go_back: true });
        assert_eq!(fill(&mut window, NOW).first(), Some(&2));
    }

    #[test]
    fn going_back_for_a_gap_gives_the_frames_time_to_arrive() {
        let mut window = Window::new(MTU);
        fill(&mut window, NOW);
        let later = NOW + Duration::from_millis(900);
        window.acknowledge(0, true, later);
        assert_eq!(window.deadline(), Some(later + Duration::from_millis(LINK_RTO_MS_START.into())));
    }

    #[test]
    fn frame_acks_outside_the_window_are_ignored() {
        let mut window = Window::new(MTU);
        fill(&mut window, NOW);
        for ack in [5, 100, 255] {
            assert_eq!(window.acknowledge(ack, true, NOW), Acknowledged { count: 0, go_back: false });
        }
        assert_eq!(window.acknowledge(4, true, NOW), Acknowledged { count: 4, go_back: false });
    }

    #[test]
    fn a_late_frame_ack_after_going_back_skips_what_arrived() {
        let mut window = Window::new(MTU);
        fill(&mut window, NOW);
        let late = window.deadline().expect("frames are in flight");
        assert_eq!(window.handle_timeout(late), Ok(true));
        assert_eq!(fill(&mut window, late), [0], "one frame probes");
        assert_eq!(window.acknowledge(3, false, late).count, 3);
        assert_eq!(fill(&mut window, late), [3, 4, 5, 6]);
    }

    #[test]
    fn a_peer_of_which_nothing_is_heard_for_half_a_minute_is_silent() {
        let (mut window, mut now, mut sent_at) = (Window::new(MTU), NOW, Vec::new());
        loop {
            window.sent(now);
            sent_at.push(now.as_millis());
            assert_eq!(window.handle_timeout(now), Ok(false), "early calls are harmless");
            now = window.deadline().expect("a frame is in flight");
            match window.handle_timeout(now) {
                Ok(go_back) => assert!(go_back),
                Err(Silent) => break,
            }
        }
        assert_eq!(sent_at, [0, 1_000, 3_000, 7_000, 15_000, 23_000]);
        assert_eq!(now, NOW + Duration::from_millis(LINK_SILENCE_MS));
    }

    #[test]
    fn whatever_arrives_puts_silence_off() {
        let mut window = Window::new(MTU);
        fill(&mut window, NOW);
        let late = NOW + Duration::from_millis(LINK_SILENCE_MS - 1);
        window.acknowledge(1, false, late);
        let end = late + Duration::from_millis(LINK_SILENCE_MS);
        while let Some(deadline) = window.deadline().filter(|deadline| *deadline < end) {
            assert_eq!(window.handle_timeout(deadline), Ok(true));
        }
        assert_eq!(window.handle_timeout(end), Err(Silent));
    }

    #[test]
    fn a_port_that_takes_no_octets_is_silent_as_well() {
        let mut window = Window::new(MTU);
        window.sent(NOW);
        let mut end = NOW;
        while let Some(deadline) = window.deadline() {
            end = deadline;
            if window.handle_timeout(deadline).is_err() {
                break;
            }
        }
        assert_eq!(end, NOW + Duration::from_millis(LINK_SILENCE_MS));
    }

    #[test]
    fn a_frame_sent_twice_is_not_measured() {
        let mut window = Window::new(MTU);
        window.sent(NOW);
        let late = window.deadline().expect("in flight");
        window.handle_timeout(late).expect("not silent");
        window.sent(late);
        window.acknowledge(1, false, late + Duration::from_millis(1));
        assert_eq!(window.deadline(), None);
        window.sent(late);
        assert_eq!(window.deadline(), Some(late + Duration::from_millis(2 * u64::from(LINK_RTO_MS_START))));
    }

    fn fill(window: &mut Window, now: Instant) -> Vec<u8> {
        let mut numbers = Vec::new();
        while !window.is_full() {
            numbers.push(window.sent(now));
        }
        numbers
    }
}
