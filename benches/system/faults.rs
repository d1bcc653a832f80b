//! What becomes of messages when something stands still, dies, or is cut off.

use std::process::Command;
use std::time::Duration;

use fieldgate::webpush::headers::Ttl;
use tokio::time::sleep;

use crate::ours::{self, Ours, settle};
use crate::process::now;
use crate::sections::{CONTENT, CONTENT_MAX, Options, ms};
use crate::table::Goal::Most;
use crate::table::{Row, Table, median, percentile};

const DAY: Ttl = Ttl::from_secs(86_400);
const TWO: ours::Shape = ours::Shape { devices: 2, channels: 1, counted: false };
const COUNTED: ours::Shape = ours::Shape { devices: 1, channels: 1, counted: true };
/// An address that means nothing (RFC 5737), to have the kernel tell of a change of the network.
const ADDRESS: &str = "198.51.100.78/32";

/// A device beside one that stands still with all that it may hold.
pub async fn stalled(options: Options, table: &mut Table) {
    let count = options.count(300, 40);
    let mut ours = Ours::start(TWO).await;
    let alone = neighbour(&mut ours, count).await;
    ours.signal_device(0, "STOP");
    let large = ours.parcels(CONTENT_MAX);
    ours.poster.post_all(&large[..1], 200).await;
    settle().await;
    let beside = neighbour(&mut ours, count).await;
    let row = |name: &str, percent, figures: &[f64]| {
        Row::new(format!("{name}: p{percent}"), "ms", percentile(figures, percent))
    };
    table.row(row("a device alone", 50, &alone));
    table.row(row("a device alone", 99, &alone));
    table.row(row("beside one that stands still", 50, &beside));
    table.row(row("beside one that stands still", 99, &beside));
    let ratio = percentile(&beside, 99) / percentile(&alone, 99);
    table.row(Row::new("p99 beside it, to alone", "", ratio).goal(Most(1.5)));
    ours.signal_device(0, "CONT");
    let later = ours.received_until_quiet(Duration::from_secs(3)).await;
    table.row(Row::new("of the 200 for it, lost", "", 200.0 - later as f64).goal(Most(0.0)).bound(0.0));
    table.note(
        "200 messages of 3,993 octets wait for the one that stands still; a relay in one loop delivers none meanwhile",
    );
}

/// Units: milliseconds from POST to the application, one message after another.
async fn neighbour(ours: &mut Ours, count: usize) -> Vec<f64> {
    let parcels = ours.parcels(CONTENT);
    let mut times = Vec::new();
    for _ in 0..count {
        sleep(Duration::from_millis(5)).await;
        let start = now();
        ours.poster.post(&parcels[1], DAY).await;
        loop {
            let (device, at) = ours.next_received_by().await;
            if device == 1 {
                times.push(ms(at - start));
                break;
            }
        }
    }
    times
}

/// Gateway, device or service die while messages are sent.
pub async fn killed(options: Options, table: &mut Table) {
    let count = options.count(500, 60);
    for victim in ["gateway", "device", "service"] {
        let mut ours = Ours::start(COUNTED).await;
        let state = ours.site.path("device.state");
        let keeps = ["--state", state.as_str()];
        // The first message is done with: this device knows nothing of it.
        while ours.counter("acknowledged") == 0 {
            settle().await;
        }
        ours.restart_device(0, &keeps);
        settle().await;
        let parcels = ours.parcels(CONTENT);
        let third = count / 3;
        for number in 0..count {
            if number == third || number == 2 * third {
                match victim {
                    "gateway" => {
                        ours.gateway.kill();
                        ours.gateway = ours.site.start_gateway();
                    }
                    "device" => ours.restart_device(0, &keeps),
                    _ => {
                        ours.service.kill();
                        ours.service = ours.site.restart_service();
                        ours.site.await_listening();
                        ours.reconnect().await;
                    }
                }
            }
            ours.poster.post(&parcels[0], DAY).await;
            sleep(Duration::from_millis(2)).await;
        }
        ours.received_until_quiet(Duration::from_secs(20)).await;
        // What a device that dies wrote to its journal it may not have printed any more.
        let journal = std::fs::read_to_string(&state).expect("the device wrote it");
        let received = journal.lines().count() as f64;
        let lost = (count as f64 - received).max(0.0);
        table.row(
            Row::new(format!("{count} messages, {victim} killed twice: lost"), "", lost).goal(Most(0.0)).bound(0.0),
        );
        let twice = (received - count as f64).max(0.0);
        table.row(
            Row::new(format!("{count} messages, {victim} killed twice: doubled"), "", twice).goal(Most(0.0)).bound(0.0),
        );
    }
    table.note(
        "kill -9 after a third and two thirds, started again at once; the device keeps its message ids in a file",
    );
    table.note("a relay of mosquitto_sub and a pty loses 122 to 248 of 500 when relay, device or broker is killed");
}

/// The link to the service is lost for a while.
pub async fn link(options: Options, table: &mut Table) {
    let mut ours = Ours::start(COUNTED).await;
    let parcels = ours.parcels(CONTENT);
    let can_tell = address("add") && address("delete");
    let (mut told, mut untold, mut octets) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.count(20, 3) as u64 {
        for is_told in [true, false].into_iter().filter(|is_told| can_tell || !is_told) {
            let proxy = ours.proxy.as_ref().expect("it counts");
            proxy.cut();
            ours.poster.post(&parcels[0], DAY).await;
            sleep(Duration::from_millis(500 + 250 * (round % 15))).await;
            let (before, start) = (proxy.count(), now());
            proxy.mend();
            if is_told {
                address("add");
            }
            let after = ms(ours.next_received().await - start);
            settle().await;
            if is_told {
                address("delete");
                told.push(after);
            } else {
                untold.push(after);
            }
            let proxy = ours.proxy.as_ref().expect("it counts");
            octets.push((proxy.count() - before).octets());
            sleep(Duration::from_millis(options.count(12_000, 500) as u64)).await;
        }
    }
    if can_tell {
        table.row(Row::new("link back, the kernel tells: p50", "ms", median(&told)).goal(Most(2_000.0)));
        table.row(Row::new("link back, the kernel tells: worst", "ms", percentile(&told, 100)));
    }
    table.row(Row::new("link back, nobody tells: p50", "ms", median(&untold)));
    table.row(Row::new("octets until the message is acknowledged: p50", "octets", median(&octets)));
    table.note("links are lost for 0.5 to 4 s; a message that was sent meanwhile has arrived, so the set is monitored");
    table.note("octets: TLS with resumption where the service allows it, HTTP/2, monitor, message, acknowledgement");
}

/// Adds an address to the loopback interface or deletes it. Only root may.
fn address(action: &str) -> bool {
    let arguments = ["address", action, ADDRESS, "dev", "lo"];
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}
