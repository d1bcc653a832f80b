//! Requests for what is not there: whoever makes very many of them may be guessing, and waits longer for each answer.
//!
//! A capability URL cannot be guessed in any number of tries that anybody can make; this keeps those who try from costing
//! much. What is there is never slowed down.
//!
//! Source: RFC 8030 §8.3.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::limits::{SERVICE_GUESS_COUNT_MAX, SERVICE_GUESS_DELAY_MS, SERVICE_GUESS_MS, SERVICE_GUESS_PEER_COUNT};
use crate::time::{Duration, Instant};

/// Who guessed wrong lately, and how often.
#[derive(Debug, Default)]
pub struct Guesses {
    peers: BTreeMap<IpAddr, Peer>,
}

#[derive(Debug)]
struct Peer {
    count: u32,
    since: Instant,
}

impl Guesses {
    /// Counts a wrong guess, and says how long its answer waits.
    ///
    /// Of IPv6 addresses the network counts: one host has as many as it likes.
    pub fn wrong(&mut self, address: IpAddr, now: Instant) -> Duration {
        let network = network(address);
        if !self.peers.contains_key(&network) {
            self.make_room();
        }
        let peer = self.peers.entry(network).or_insert(Peer { count: 0, since: now });
        if now.since(peer.since) >= Duration::from_millis(SERVICE_GUESS_MS) {
            *peer = Peer { count: 0, since: now };
        }
        peer.count = peer.count.saturating_add(1);
        let is_slowed = peer.count > SERVICE_GUESS_COUNT_MAX;
        if is_slowed { Duration::from_millis(SERVICE_GUESS_DELAY_MS) } else { Duration::ZERO }
    }

    /// The one that guessed least gives way.
    fn make_room(&mut self) {
        if self.peers.len() >= SERVICE_GUESS_PEER_COUNT
            && let Some(least) = self.peers.iter().min_by_key(|(_, peer)| peer.count).map(|(network, _)| *network)
        {
            self.peers.remove(&least);
        }
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_millis(SERVICE_GUESS_DELAY_MS);

    fn guess(guesses: &mut Guesses, address: &str, count: u32, now: Instant) -> Duration {
        let address: IpAddr = address.parse().expect("an address");
        (0..count).map(|_| guesses.wrong(address, now)).last().unwrap_or_default()
    }

    /// A-ALL-10: a thousand wrong guesses from one peer slow down the next ones, for a while, and nobody else's.
    #[test]
    fn a_all_10_a_thousand_wrong_guesses_slow_down_the_next() {
        let mut guesses = Guesses::default();
        let (start, later) = (Instant::ZERO, Instant::from_millis(SERVICE_GUESS_MS));
        assert_eq!(guess(&mut guesses, "192.0.2.1", SERVICE_GUESS_COUNT_MAX, start), Duration::ZERO);
        assert_eq!(guess(&mut guesses, "192.0.2.1", 1, start), SLOW);
        assert_eq!(guess(&mut guesses, "::ffff:192.0.2.1", 1, start), SLOW);
        assert_eq!(guess(&mut guesses, "192.0.2.2", 1, start), Duration::ZERO);
        assert_eq!(guess(&mut guesses, "192.0.2.1", 1, later), Duration::ZERO);
        guess(&mut guesses, "2001:db8::1", SERVICE_GUESS_COUNT_MAX, start);
        assert_eq!(guess(&mut guesses, "2001:db8::ffff:2", 1, start), SLOW);
        assert_eq!(guess(&mut guesses, "2001:db8:0:1::1", 1, start), Duration::ZERO);
    }

    #[test]
    fn peers_are_bounded_and_the_worst_are_remembered() {
        let mut guesses = Guesses::default();
        guess(&mut guesses, "192.0.2.1", SERVICE_GUESS_COUNT_MAX, Instant::ZERO);
        for number in 0..2 * SERVICE_GUESS_PEER_COUNT as u32 {
            guesses.wrong(IpAddr::from((0x0a00_0000 + number).to_be_bytes()), Instant::ZERO);
        }
        assert_eq!(guesses.peers.len(), SERVICE_GUESS_PEER_COUNT);
        assert_eq!(guess(&mut guesses, "192.0.2.1", 1, Instant::ZERO), SLOW);
    }
}
