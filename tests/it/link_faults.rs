//! Trouble on some links, with the real binary: a clear line, and the others are served as if nothing were.

use std::io::Write as _;
use std::os::unix::net;
use std::time::Duration;

use fieldgate::limits::LINK_MTU_BYTES_MAX;
use fieldgate::random::{Random as _, SeededRandom};
use fieldgate::wire::cobs;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::device::ScriptedDevice;
use crate::process::{PATIENCE, Site, await_true};

/// C-20, C-40, A-UA-25: garbage, cut and oversized frames, a stranger, and a port that vanishes in the middle of a message
/// concern their own link alone, and each is said once it matters.
#[test]
fn trouble_on_some_links_is_said_and_delays_no_other() {
    let (site, _service) = Site::with_service();
    let socket = |id: &str| format!("unix:{}", site.path(&format!("{id}.sock")));
    site.configure(&[
        ("good", site.device_link("good")),
        ("noisy", socket("noisy")),
        ("port", site.device_link("port")),
        ("missing", format!("serial:{}", site.path("never-plugged-in"))),
    ]);
    let mut gateway = site.start_gateway();
    let _good = site.start_device("good", &[]);
    let mut port = site.start_device("port", &[]);
    let (good, noisy, vanishing) = (site.subscription("good"), site.subscription("noisy"), site.subscription("port"));

    let long = vec![0x55; 4 * LINK_MTU_BYTES_MAX];
    for (number, octets) in
        [&[0xff; 5_000][..], &long, b"\0\x03\x11\x22", &[0; 3_000], b"GET / HTTP/1.1\r\n\r\n"].iter().enumerate()
    {
        let mut stream = net::UnixStream::connect(site.path("noisy.sock")).expect("the gateway listens");
        // It may hang up on what cannot be a device.
        drop(stream.write_all(octets));
        let text = format!("after garbage {number}");
        site.send(&good, &text);
        site.await_received("good", &text);
    }
    let stranger = site.start_device_at(&socket("noisy"), "stranger", &[]);
    await_true("the stranger is named", || {
        site.lines("gateway.err").iter().any(|line| line.contains("noisy") && line.contains("stranger"))
    });
    drop(stranger);
    site.send(&vanishing, "cut off");
    port.kill();
    await_true("the lost port is said", || {
        site.lines("gateway.err").iter().any(|line| line.contains("device gone") && line.contains("port"))
    });
    assert!(site.lines("gateway.err").iter().any(|line| line.contains("missing") && line.contains("cannot be opened")));
    site.send(&good, "still here");
    site.await_received("good", "still here");

    // All of them come to their senses.
    let _port = site.start_device("port", &[]);
    site.await_received("port", "cut off");
    let _noisy = site.start_device_at(&socket("noisy"), "noisy", &[]);
    site.send(&noisy, "in the end");
    site.await_received("noisy", "in the end");
    await_true("each is acknowledged", || site.status()["counters"]["acknowledged"] == 8);
    assert!(gateway.is_running());
}

/// C-20, C-32: garbage, cut frames, frames that are too long and ones of every kind, before a session and in the middle of it.
#[tokio::test(flavor = "local")]
async fn c_20_no_frame_before_or_in_a_session_costs_anybody_a_message() {
    let (site, _service) = Site::with_service();
    let noisy = site.path("noisy.sock");
    site.configure(&[("good", site.device_link("good")), ("noisy", format!("unix:{noisy}"))]);
    let _good = site.start_device("good", &[]);
    let mut gateway = site.start_gateway();
    let [good, subscription] = ["good", "noisy"].map(|id| site.subscription(id));

    let mut stream = connect(&noisy).await;
    for octets in hostile() {
        write(&mut stream, &octets).await;
    }
    site.send(&good, "beside the noise");
    site.await_received("good", "beside the noise");
    let mut device = ScriptedDevice::attached(stream, 7, "noisy").await;
    device.idle(Duration::from_millis(200)).await;
    let mut stream = device.into_stream();
    for octets in hostile() {
        write(&mut stream, &octets).await;
    }
    site.send(&good, "beside more noise");
    site.await_received("good", "beside more noise");
    drop(stream);

    let _noisy = site.start_device_at(&format!("unix:{noisy}"), "noisy", &[]);
    site.send(&subscription, "after the noise");
    site.await_received("noisy", "after the noise");
    assert!(gateway.is_running());
}

/// What no device says.
fn hostile() -> Vec<Vec<u8>> {
    let mut random = vec![0; 50_000];
    SeededRandom::new(1).fill(&mut random);
    let whole = frame(&[0x10, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    vec![
        random,
        // Never a delimiter, then an endless run of them.
        vec![0xaa; 50_000],
        vec![0; 50_000],
        // Longer than any frame, with a right checksum.
        (0..4).flat_map(|_| frame(&[0x10; LINK_MTU_BYTES_MAX + 1])).collect(),
        // Cut at each octet.
        (0..whole.len()).flat_map(|end| [&whole[..end], &[0]].concat()).collect(),
        // Every kind and version, with a right checksum and without content.
        (0..=255).flat_map(|kind| frame(&[kind])).collect(),
    ]
}

/// A frame with a right checksum, whatever is in it.
fn frame(body: &[u8]) -> Vec<u8> {
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(body).to_le_bytes();
    let mut octets = vec![0; 2 * LINK_MTU_BYTES_MAX];
    let bytes = cobs::encode(&[body, &crc], &mut octets).expect("there is room");
    octets.truncate(bytes);
    octets
}

async fn connect(path: &str) -> UnixStream {
    let connect = async {
        loop {
            match UnixStream::connect(path).await {
                Ok(stream) => return stream,
                Err(_) => sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(PATIENCE, connect).await.expect("the gateway listens")
}

async fn write(stream: &mut UnixStream, octets: &[u8]) {
    timeout(PATIENCE, stream.write_all(octets)).await.expect("it is read").expect("and not closed");
}
