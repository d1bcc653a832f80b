//! Changes of the network, as the kernel tells them: an address or a default route comes or goes.
//!
//! ```text
//! nlmsghdr   length(4) type(2) flags(2) sequence(4) port(4)          in the byte order of the machine, padded to 4
//! ifaddrmsg  family(1) prefix(1) flags(1) scope(1) index(4)          then attributes: length(2) type(2) value, padded
//! rtmsg      family(1) dst_len(1) src_len(1) tos(1) table(1) protocol(1) scope(1) type(1) flags(4)
//! ```
//!
//! An address that is only refreshed, as IPv6 routers do every few minutes, is no change.
//!
//! Source: RFC 9622 §8.1.9, §8.3.1 (path changes as events); netlink(7), rtnetlink(7).

use std::collections::BTreeSet;
use std::io;

use netlink_sys::constants::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use tokio::io::unix::AsyncFd;

use crate::limits::{PATH_ADDRESS_COUNT_MAX, PATH_MESSAGE_BYTES_MAX};

const GROUP_IPV4_ADDRESS: u32 = 0x10;
const GROUP_IPV4_ROUTE: u32 = 0x40;
const GROUP_IPV6_ADDRESS: u32 = 0x100;
const GROUP_IPV6_ROUTE: u32 = 0x400;
const NEW_ADDRESS: u16 = 20;
const DELETED_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const DELETED_ROUTE: u16 = 25;
const HEADER_BYTES: usize = 16;
const IFADDRMSG_BYTES: usize = 8;
const TENTATIVE: u8 = 0x40;
const SCOPE_LINK: u8 = 253;
const ATTRIBUTE_ADDRESS: u16 = 1;

/// The kernel's news of the network.
#[derive(Debug)]
pub struct PathMonitor {
    socket: AsyncFd<Socket>,
    known: Known,
    buffer: Vec<u8>,
}

/// The addresses that are there, as far as they were told of: those at the start are told when they change.
#[derive(Debug, Default)]
struct Known {
    addresses: BTreeSet<Vec<u8>>,
}

impl PathMonitor {
    /// Listens to the kernel.
    ///
    /// # Errors
    /// The sandbox of the process may not allow it.
    pub fn new() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        let groups = GROUP_IPV4_ADDRESS | GROUP_IPV4_ROUTE | GROUP_IPV6_ADDRESS | GROUP_IPV6_ROUTE;
        socket.bind(&SocketAddr::new(0, groups))?;
        socket.set_non_blocking(true)?;
        let buffer = Vec::with_capacity(PATH_MESSAGE_BYTES_MAX);
        #[allow(
            deprecated,
            reason = "its replacement is unsafe; a netlink socket keeps its descriptor until it is dropped"
        )]
        let socket = AsyncFd::new(socket)?;
        Ok(Self { socket, known: Known::default(), buffer })
    }

    /// Waits until the network has changed.
    ///
    /// Cancel safety: a change is taken and told in one step.
    ///
    /// # Errors
    /// The kernel tells no more.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            self.buffer.clear();
            let buffer = &mut self.buffer;
            match ready.try_io(|socket| socket.get_ref().recv_from(buffer, 0)) {
                // Anyone on the machine may send; the kernel's port is 0.
                Ok(Ok((_, from))) if from.port_number() != 0 => {}
                Ok(Ok(_)) if self.known.has_changed(&self.buffer) => return Ok(()),
                // More happened than the socket holds: something has changed.
                Ok(Err(error)) if error.raw_os_error() == Some(ENOBUFS) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Ok(Ok(_)) | Err(_) => {}
            }
        }
    }
}

const ENOBUFS: i32 = 105;

impl Known {
    /// Whether any of the messages tells of a change.
    fn has_changed(&mut self, mut octets: &[u8]) -> bool {
        let mut changed = false;
        while let Some((kind, body, rest)) = message(octets) {
            changed |= match kind {
                NEW_ADDRESS | DELETED_ADDRESS => self.address(kind == NEW_ADDRESS, body),
                NEW_ROUTE | DELETED_ROUTE => is_default(body),
                _ => false,
            };
            octets = rest;
        }
        changed
    }

    fn address(&mut self, is_new: bool, body: &[u8]) -> bool {
        let Some((&[family, _, flags, scope, ..], attributes)) = body.split_first_chunk::<IFADDRMSG_BYTES>() else {
            return false;
        };
        let Some(address) = attribute(attributes, ATTRIBUTE_ADDRESS) else { return false };
        if scope >= SCOPE_LINK || flags & TENTATIVE != 0 {
            return false;
        }
        let mut key = vec![family];
        key.extend_from_slice(&body[4..IFADDRMSG_BYTES]);
        key.extend_from_slice(address);
        if !is_new {
            self.addresses.remove(&key);
            return true;
        }
        // What is beyond the bound counts as new each time: rather a test too many than an outage.
        if self.addresses.len() == PATH_ADDRESS_COUNT_MAX && !self.addresses.contains(&key) {
            return true;
        }
        self.addresses.insert(key)
    }
}

/// The first message, and what follows it.
fn message(octets: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*octets.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*octets.get(4..6)?.first_chunk()?);
    let body = octets.get(HEADER_BYTES..length)?;
    Some((kind, body, octets.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The value of the first attribute of that type.
fn attribute(mut octets: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*octets.first_chunk()?));
        let kind = u16::from_ne_bytes(*octets.get(2..4)?.first_chunk()?);
        let value = octets.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        octets = octets.get(length.next_multiple_of(4)..)?;
    }
}

/// Whether a route leads everywhere, by the main table.
fn is_default(body: &[u8]) -> bool {
    const MAIN: u8 = 254;
    const UNICAST: u8 = 1;
    matches!(body, [_, 0, _, _, MAIN, _, _, UNICAST, ..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GLOBAL: u8 = 0;

    #[test]
    fn an_address_that_comes_or_goes_is_a_change_and_one_that_is_refreshed_is_none() {
        let mut known = Known::default();
        let new = address(NEW_ADDRESS, 0, GLOBAL, &[192, 0, 2, 7]);
        assert!(known.has_changed(&new) && !known.has_changed(&new));
        assert!(known.has_changed(&address(NEW_ADDRESS, 0, GLOBAL, &[192, 0, 2, 8])));
        let gone = address(DELETED_ADDRESS, 0, GLOBAL, &[192, 0, 2, 7]);
        assert!(known.has_changed(&gone) && known.has_changed(&new));
    }

    #[test]
    fn addresses_of_the_machine_or_not_yet_in_use_are_none() {
        let mut known = Known::default();
        for scope in [SCOPE_LINK, 254] {
            assert!(!known.has_changed(&address(NEW_ADDRESS, 0, scope, &[127, 0, 0, 9])));
        }
        let last = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        assert!(!known.has_changed(&address(NEW_ADDRESS, TENTATIVE, GLOBAL, &last)));
        assert!(known.has_changed(&address(NEW_ADDRESS, 0, GLOBAL, &last)));
    }

    #[test]
    fn only_default_routes_of_the_main_table_count() {
        let route = |bits, table, kind| message_of(NEW_ROUTE, &[2, bits, 0, 0, table, 3, 0, kind, 0, 0, 0, 0]);
        let mut known = Known::default();
        assert!(known.has_changed(&route(0, 254, 1)));
        for other in [route(24, 254, 1), route(0, 255, 1), route(0, 254, 7)] {
            assert!(!known.has_changed(&other));
        }
    }

    #[test]
    fn several_messages_come_together_and_the_memory_is_bounded() {
        let mut known = Known::default();
        let one = |number: u16| address(NEW_ADDRESS, 0, GLOBAL, &[10, 0, (number >> 8) as u8, number as u8]);
        let all: Vec<u8> = (0..2 * PATH_ADDRESS_COUNT_MAX as u16).flat_map(one).collect();
        assert!(known.has_changed(&all));
        assert_eq!(known.addresses.len(), PATH_ADDRESS_COUNT_MAX);
        assert!(!known.has_changed(&one(0)) && known.has_changed(&one(2 * PATH_ADDRESS_COUNT_MAX as u16 - 1)));
    }

    proptest! {
        #[test]
        fn hostile_octets_never_panic(octets in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..40) {
            let mut known = Known::default();
            known.has_changed(&octets);
            let whole = address(NEW_ADDRESS, 0, GLOBAL, &[192, 0, 2, 7]);
            known.has_changed(&whole[..cut.min(whole.len())]);
        }
    }

    /// The kernel itself tells of an address. Only root may add one.
    #[tokio::test]
    async fn the_kernel_is_heard() {
        let mut monitor = PathMonitor::new().expect("any process may listen");
        let ip = |action| {
            let arguments = ["address", action, "198.51.100.77/32", "dev", "lo"];
            std::process::Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
        };
        if !ip("add") {
            eprintln!("skipped: adding an address needs root and the command ip");
            return;
        }
        let heard = tokio::time::timeout(std::time::Duration::from_secs(60), monitor.changed()).await;
        assert!(ip("delete"));
        heard.expect("in time").expect("heard");
    }

    fn address(kind: u16, flags: u8, scope: u8, octets: &[u8]) -> Vec<u8> {
        let family = if octets.len() == 4 { 2 } else { 10 };
        let mut body = vec![family, 24, flags, scope, 3, 0, 0, 0];
        // Another attribute comes first.
        for (kind, value) in [(2_u16, &[1, 2, 3][..]), (ATTRIBUTE_ADDRESS, octets)] {
            body.extend((value.len() as u16 + 4).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        message_of(kind, &body)
    }

    fn message_of(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut octets = ((HEADER_BYTES + body.len()) as u32).to_ne_bytes().to_vec();
        octets.extend(kind.to_ne_bytes());
        octets.resize(HEADER_BYTES, 0);
        octets.extend(body);
        octets
    }
}
