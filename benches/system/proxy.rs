//! A TCP proxy that counts octets and TLS records.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Sub;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What went through, one way.
#[derive(Debug, Default)]
struct Lane {
    octets: AtomicU64,
    records: AtomicU64,
}

/// What went through until now, both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub up_octets: u64,
    pub up_records: u64,
    pub down_octets: u64,
    pub down_records: u64,
}

/// A proxy in front of one address; its threads end with their connections.
#[derive(Debug)]
pub struct Proxy {
    pub address: SocketAddr,
    lanes: Arc<[Lane; 2]>,
    link: Arc<Link>,
}

/// What it passes on, and whether it does.
#[derive(Debug, Default)]
struct Link {
    is_cut: AtomicBool,
    sockets: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Listens on loopback, and passes each connection on.
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it listens");
        let lanes = Arc::<[Lane; 2]>::default();
        let (counted, link) = (Arc::clone(&lanes), Arc::<Link>::default());
        let linked = Arc::clone(&link);
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if linked.is_cut.load(Ordering::Relaxed) {
                    continue;
                }
                // A service that is gone refuses; its client sees the end.
                if let Ok(far) = TcpStream::connect(target) {
                    let both = [&near, &far].map(|socket| socket.try_clone().expect("a socket"));
                    linked.sockets.lock().expect("nobody panics").extend(both);
                    join(&near, &far, &counted, 0);
                    join(&far, &near, &counted, 1);
                }
            }
        });
        Self { address, lanes, link }
    }

    /// The link is lost: what is there ends, and what is tried fails at once.
    pub fn cut(&self) {
        self.link.is_cut.store(true, Ordering::Relaxed);
        for socket in self.link.sockets.lock().expect("nobody panics").drain(..) {
            // It may have ended by itself.
            socket.shutdown(Shutdown::Both).ok();
        }
    }

    /// The link is back.
    pub fn mend(&self) {
        self.link.is_cut.store(false, Ordering::Relaxed);
    }

    pub fn count(&self) -> Count {
        let [up, down] = &*self.lanes;
        Count {
            up_octets: up.octets.load(Ordering::Relaxed),
            up_records: up.records.load(Ordering::Relaxed),
            down_octets: down.octets.load(Ordering::Relaxed),
            down_records: down.records.load(Ordering::Relaxed),
        }
    }
}

impl Count {
    pub fn octets(self) -> f64 {
        (self.up_octets + self.down_octets) as f64
    }
}

impl Sub for Count {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            up_octets: self.up_octets - earlier.up_octets,
            up_records: self.up_records - earlier.up_records,
            down_octets: self.down_octets - earlier.down_octets,
            down_records: self.down_records - earlier.down_records,
        }
    }
}

/// Passes octets on in a thread until either side ends.
fn join(from: &TcpStream, to: &TcpStream, lanes: &Arc<[Lane; 2]>, lane: usize) {
    let (mut from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
    to.set_nodelay(true).expect("a socket");
    let lanes = Arc::clone(lanes);
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        let mut records = Records::default();
        while let Ok(bytes @ 1..) = from.read(&mut buffer) {
            lanes[lane].octets.fetch_add(bytes as u64, Ordering::Relaxed);
            lanes[lane].records.fetch_add(records.starts_in(&buffer[..bytes]), Ordering::Relaxed);
            if to.write_all(&buffer[..bytes]).is_err() {
                break;
            }
        }
        // The other side may be gone already.
        to.shutdown(Shutdown::Both).ok();
        from.shutdown(Shutdown::Both).ok();
    });
}

/// Where in a stream of TLS records the reader is: type, version (2), length (2), then so many octets.
#[derive(Debug, Default)]
struct Records {
    header: [u8; 5],
    header_bytes: usize,
    rest: usize,
}

impl Records {
    /// How many records have their last header octet in this piece.
    fn starts_in(&mut self, mut octets: &[u8]) -> u64 {
        let mut count = 0;
        while !octets.is_empty() {
            let skipped = self.rest.min(octets.len());
            (self.rest, octets) = (self.rest - skipped, &octets[skipped..]);
            if self.rest == 0 && !octets.is_empty() {
                self.header[self.header_bytes] = octets[0];
                (self.header_bytes, octets) = (self.header_bytes + 1, &octets[1..]);
                if self.header_bytes == self.header.len() {
                    self.rest = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                    self.header_bytes = 0;
                    count += 1;
                }
            }
        }
        count
    }
}
