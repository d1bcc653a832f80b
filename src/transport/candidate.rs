//! Candidates: the ways to reach a remote endpoint, in the order in which they are tried (RFC 9623 §4.2).

use std::net::SocketAddr;

use crate::limits::CANDIDATE_COUNT_MAX;

/// Sorts what a name resolved to: families alternate, beginning with the first one given, at most
/// [`CANDIDATE_COUNT_MAX`] in all.
///
/// Source: RFC 8305 §4 (interleaving; the resolver's order within a family is kept).
pub fn gather(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = addresses.into_iter().take(4 * CANDIDATE_COUNT_MAX).collect();
    addresses.dedup();
    let Some(first) = addresses.first().map(SocketAddr::is_ipv6) else { return addresses };
    let (preferred, other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == first);
    let rounds = preferred.len().max(other.len());
    let alternating = (0..rounds).flat_map(|at| [preferred.get(at), other.get(at)]).flatten();
    alternating.copied().take(CANDIDATE_COUNT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D-8305-05: families alternate.
    #[test]
    fn families_alternate() {
        let given = ["[::1]:1", "[::2]:1", "[::3]:1", "127.0.0.1:1", "127.0.0.2:1", "127.0.0.3:1"];
        let order = ["[::1]:1", "127.0.0.1:1", "[::2]:1", "127.0.0.2:1", "[::3]:1", "127.0.0.3:1"];
        assert_eq!(gather(addresses(&given)), addresses(&order));
    }

    #[test]
    fn candidates_are_bounded_and_distinct() {
        let many = (0..=255).map(|number| SocketAddr::from(([127, 0, 0, number], 1)));
        assert_eq!(gather(many).len(), CANDIDATE_COUNT_MAX);
        assert_eq!(gather(addresses(&["127.0.0.1:1", "127.0.0.1:1"])).len(), 1);
        assert!(gather([]).is_empty());
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }
}
