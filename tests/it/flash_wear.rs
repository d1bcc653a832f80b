//! What a gateway writes to flash is counted, shown, and said before it is too much.

use std::fs;

use crate::process::{Site, await_true};

/// With the real binary: a subscription is a cause, messages are none, and a small budget is told of once.
#[test]
fn what_is_written_to_flash_is_shown_and_told() {
    let (site, _service) = Site::with_service();
    site.configure(&[("d1", site.device_link("d1"))]);
    let config = site.path("fieldgate.toml");
    let text = fs::read_to_string(&config).expect("readable");
    fs::write(&config, format!("flash_bytes_per_day = 4096\n{text}")).expect("written");
    let mut gateway = site.start_gateway();
    let _device = site.start_device("d1", &[]);
    let subscription = site.subscription("d1");
    let subscribed = site.status()["flash"].clone();
    assert_eq!(subscribed["per_day"], 4_096);
    let octets = |flash: &serde_json::Value, cause: &str| flash["causes"][cause]["octets"].as_u64().unwrap_or(0);
    let made = octets(&subscribed, "subscription");
    assert!(made >= 4_096 && made % 4_096 == 0, "{subscribed}");
    let causes = subscribed["causes"].as_object().expect("causes").keys();
    let but_for_the_start = causes.filter(|cause| *cause != "other").map(|cause| octets(&subscribed, cause));
    assert_eq!(subscribed["today"].as_u64(), Some(but_for_the_start.sum()), "nothing is counted twice or forgotten");
    assert!(octets(&subscribed, "other") > 1024 * 1024, "a new state takes all of its room");
    for number in 0..3 {
        site.send(&subscription, &format!("message {number}"));
    }
    site.await_received("d1", "message 2");
    await_true("all is acknowledged", || site.status()["in_flight"] == 0);
    let after = site.status()["flash"].clone();
    assert_eq!((octets(&after, "subscription"), octets(&after, "acknowledgement")), (made, 0), "{after}");
    let shown = String::from_utf8(site.command(&["status"]).stdout).expect("text");
    assert!(shown.contains(&format!("{made} for subscription, in ")) && shown.contains("of 4096 a day"), "{shown}");
    gateway.terminate();
    let told = site.lines("gateway.err").iter().filter(|line| line.contains("flash_bytes_per_day is 4096")).count();
    assert_eq!(told, 1);
}
