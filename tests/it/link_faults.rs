//! Trouble on some links, with the real binary: a clear line, and the others are served as if nothing were.

use std::io::Write as _;
use std::os::unix::net::UnixStream;

use fieldgate::limits::LINK_MTU_BYTES_MAX;

use crate::process::{Site, await_true};

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
        let mut stream = UnixStream::connect(site.path("noisy.sock")).expect("the gateway listens");
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
