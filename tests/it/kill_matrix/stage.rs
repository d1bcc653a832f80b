//! The processes of a cell, how its moment is brought about, and what has to be true afterwards.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::thread::{Scope, ScopedJoinHandle};

use fieldgate::limits::DELIVERY_PER_DEVICE_MAX;

use super::ledger::{Ledger, Tally};
use super::line::Line;
use super::{Blow, Moment, Victim};
use crate::process::{Process, Site, await_true};

/// The file with what d1's application received, if it keeps one.
const JOURNAL: &str = "d1.journal";
const SMALL_BYTES: usize = 40;
const LARGE_BYTES: usize = 3_900;
/// A place in the middle of a large message, and of a frame of 256 octets.
const MIDDLE_BYTES: u64 = 2_003;
const BURST_SENDER_COUNT: usize = 6;
const BURST_PER_SENDER: usize = 8;

/// All of a cell but its processes.
pub struct Stage {
    victim: Victim,
    /// The folder of its processes.
    pub site: Site,
    uplink: Line,
    link: Line,
    d1: Ledger,
    d2: Ledger,
}

impl Stage {
    /// Starts everything; returns the victim and the other processes too.
    pub fn set(victim: Victim) -> (Self, Process, Vec<Process>) {
        let (site, service) = Site::with_service();
        let (uplink, address) = Line::tcp(site.authority().parse().expect("an address"));
        let link = Line::unix(site.path("d1").into(), site.path("d1.gateway").into());
        let url = site.url.replacen(site.authority(), &address.to_string(), 1);
        let links = [("d1", format!("unix:{}", site.path("d1.gateway"))), ("d2", site.device_link("d2"))];
        site.configure_with(&url, &links);
        let d2 = site.start_device("d2", &[]);
        site.line_of("device-d2.out", "{");
        let gateway = Victim::Gateway.start(&site);
        let (is_forgetful, file) = match victim {
            Victim::ForgetfulDevice => (true, "device-d1.out"),
            _ => (false, JOURNAL),
        };
        let d1 = if is_forgetful { Victim::ForgetfulDevice } else { Victim::Device }.start(&site);
        let ledgers = (Ledger::new(&site, "d1", file), Ledger::new(&site, "d2", "device-d2.out"));
        let stage = Self { victim, site, uplink, link, d1: ledgers.0, d2: ledgers.1 };
        match victim {
            Victim::Gateway => (stage, gateway, vec![service, d1, d2]),
            Victim::Service => (stage, service, vec![gateway, d1, d2]),
            Victim::Device | Victim::ForgetfulDevice => (stage, d1, vec![service, gateway, d2]),
        }
    }

    /// Messages pass both ways of all lines.
    pub fn warm_up(&self) {
        self.d1.post(1, LARGE_BYTES);
        self.d2.post(1, SMALL_BYTES);
        [&self.d1, &self.d2].into_iter().for_each(|ledger| ledger.settle(&self.site));
    }

    /// Brings about the moment; what is still being posted then is returned.
    pub fn await_moment<'s>(&'s self, scope: &'s Scope<'s, '_>, moment: Moment) -> Vec<ScopedJoinHandle<'s, ()>> {
        match moment {
            Moment::Idle => {}
            Moment::MidFrame => {
                let line = if self.victim == Victim::Service { &self.uplink } else { &self.link };
                line.down().hold_after(MIDDLE_BYTES);
                self.d1.post(3, LARGE_BYTES);
                line.down().await_held();
            }
            Moment::BeforeDeviceAck => {
                self.link.up().hold_after(0);
                self.post_a_window();
                await_true("a message at the application", || self.d1.is_any_received(&self.site));
                self.link.up().await_held();
            }
            Moment::BeforeDelete | Moment::BeforeAnswer => {
                self.uplink.up().hold_after(0);
                self.post_a_window();
                await_true("all messages at the application", || self.d1.is_received(&self.site));
                await_true("all device acks at the gateway", || self.status()["devices"][0]["in_flight"] == 0);
                self.uplink.up().await_held();
                if moment == Moment::BeforeAnswer {
                    self.uplink.down().hold_after(0);
                    self.uplink.up().open();
                    self.d1.settle(&self.site);
                }
            }
            Moment::Burst => {
                let start = self.d1.accepted.load(Ordering::Relaxed);
                let send = || self.d1.post(BURST_PER_SENDER, SMALL_BYTES);
                let senders = (0..BURST_SENDER_COUNT).map(|_| scope.spawn(send)).collect();
                let enough = start + BURST_SENDER_COUNT;
                await_true("a burst", || self.d1.accepted.load(Ordering::Relaxed) > enough);
                return senders;
            }
        }
        Vec::new()
    }

    /// As many messages as may be unacknowledged at once, and none is gone at the service. How many of them a link brings
    /// that hears nothing in return is its own affair.
    fn post_a_window(&self) {
        self.d1.post(DELIVERY_PER_DEVICE_MAX, SMALL_BYTES);
        assert_eq!(self.d1.held(&self.site), DELIVERY_PER_DEVICE_MAX, "a device ack or a DELETE has passed");
    }

    pub fn strike(&self, victim: &mut Process, blow: Blow) {
        match blow {
            Blow::Kill => {
                victim.kill();
                // What was on its way from or to it is lost.
                if matches!(self.victim, Victim::Gateway | Victim::Service) {
                    self.uplink.cut();
                }
                if self.victim != Victim::Service {
                    self.link.cut();
                }
            }
            Blow::Terminate => victim.terminate(),
            Blow::Stop => victim.signal("STOP"),
        }
        [&self.uplink, &self.link].into_iter().for_each(Line::open);
    }

    /// What does not need the victim goes on without it.
    pub fn others_serve(&self) {
        match self.victim {
            Victim::Gateway => {
                self.d1.post(2, SMALL_BYTES);
                self.d2.post(2, SMALL_BYTES);
            }
            Victim::Service => assert_eq!(self.status()["devices"][1]["presence"], "ready"),
            Victim::Device | Victim::ForgetfulDevice => {
                self.d1.post(2, SMALL_BYTES);
                self.d2.post(4, SMALL_BYTES);
                self.d2.settle(&self.site);
            }
        }
    }

    /// Everything arrives and is acknowledged, what was posted before and what is posted now.
    pub fn serves_again(&self) {
        for ledger in [&self.d1, &self.d2] {
            ledger.post(2, SMALL_BYTES);
            ledger.post(1, LARGE_BYTES);
            ledger.settle(&self.site);
            // Behind this one nothing is left on the link.
            ledger.post(1, SMALL_BYTES);
            ledger.settle(&self.site);
        }
        await_true("nothing is left in flight", || self.status()["in_flight"] == 0);
    }

    pub fn tallies(&self) -> (Tally, Tally) {
        let printed: Vec<String> = self.site.received("d1");
        let distinct: BTreeSet<&String> = printed.iter().collect();
        assert!(self.victim == Victim::ForgetfulDevice || printed.len() == distinct.len(), "nothing is printed twice");
        (self.d1.tally(&self.site), self.d2.tally(&self.site))
    }

    fn status(&self) -> serde_json::Value {
        let output = self.site.command(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }
}

impl Victim {
    /// Starts it, the first time or again.
    pub fn start(self, site: &Site) -> Process {
        let (place, journal) = (format!("unix:{}", site.path("d1")), site.path(JOURNAL));
        match self {
            Self::Gateway => site.start_gateway(),
            Self::Service => site.restart_service(),
            Self::Device => site.start_device_at(&place, "d1", &["--state", &journal]),
            Self::ForgetfulDevice => site.start_device_at(&place, "d1", &[]),
        }
    }
}
