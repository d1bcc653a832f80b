//! A medium that takes no writes for a while, below a whole gateway: it serves on from memory, acknowledges what the chosen
//! mode allows, says so, and stores what it owes as soon as the medium works.

use std::fs;
use std::io::ErrorKind;
use std::process::Command;

use fieldgate::proto::device::{Options, PendingAcks};
use fieldgate::store::FlashError;
use fieldgate::webpush::subscription::PushSubscription;
use fieldgate::wire::ToGateway;
use tokio::net::UnixStream;
use tokio::task::spawn_local;

use crate::device::ScriptedDevice;
use crate::flash::{Fault, MemoryFlash, SharedFlash};
use crate::process::{BINARY, Site, await_true};
use crate::rig::{self, Rig};

const FAULTS: [Fault; 4] = [
    Fault::Writes(FlashError::NoSpace),
    Fault::Writes(FlashError::ReadOnly),
    Fault::Writes(FlashError::Io(ErrorKind::Other)),
    Fault::Syncs,
];

/// A gateway on a medium in memory, with a device for each mode of acknowledging.
struct Serving {
    rig: Rig,
    flash: SharedFlash,
    auto: (ScriptedDevice<UnixStream>, PushSubscription),
    actuator: (ScriptedDevice<UnixStream>, PushSubscription),
}

impl Serving {
    async fn start() -> Self {
        let flash = SharedFlash::new(MemoryFlash::new());
        let mut rig = Rig::with_authority(None).await;
        let options = Options { pending_acks: PendingAcks::Flash, ..Options::default() };
        let actuator = fieldgate::config::Device { options, ..rig.device("actuator") };
        rig.config.devices.push(actuator);
        rig.flash = Some(flash.clone());
        rig.start_gateway();
        let subscriptions = (rig.subscription(1).await, rig.subscription_of("actuator", 1).await);
        let auto = (rig.attach(1).await, subscriptions.0);
        let actuator = (rig.attach_at("actuator", "actuator", 1).await, subscriptions.1);
        Self { rig, flash, auto, actuator }
    }
}

/// With all of them side by side, since each takes the pauses between attempts to write.
async fn with_each_fault<F: Future<Output = ()> + 'static>(run: impl Fn(Fault) -> F) {
    let runs = FAULTS.map(|fault| spawn_local(run(fault)));
    for run in runs {
        run.await.expect("no panic");
    }
}

/// A-UA-27, A-UA-49: whatever the medium says, a message is acknowledged at once in the mode `auto`, and in the mode `flash`
/// not before the medium works; a restart brings none of them a second time.
#[tokio::test(flavor = "local")]
async fn a_ua_27_nothing_is_acknowledged_before_it_is_as_safe_as_was_asked() {
    with_each_fault(acknowledge).await;
}

async fn acknowledge(fault: Fault) {
    let Serving { mut rig, flash, auto: (mut device, to_device), actuator: (mut actuator, to_actuator) } =
        Serving::start().await;
    flash.lock().fault = fault;
    let owed = rig.send(&to_actuator, "open the valve").await;
    let id = actuator.hear_push("open the valve").await;
    actuator.say(&ToGateway::Ack { message: id }).await;
    let warning = "not written: ";
    let told = actuator.tend(rig.await_status(|status| status["state_warning"].is_string())).await;
    assert!(told["state_warning"].as_str().is_some_and(|it| it.starts_with(warning)), "{told}");
    actuator.tend(rig::await_true(|| rig.told().iter().any(|line| line.contains(warning)))).await;
    // Several attempts fail while others are served.
    for number in 0..3 {
        let text = format!("message {number}");
        let message = rig.send(&to_device, &text).await;
        let id = device.hear_push(&text).await;
        device.say(&ToGateway::Ack { message: id }).await;
        device.tend(rig.await_gone(&message)).await;
        assert!(rig.holds(&owed).await, "{fault:?}: it is not safe yet");
    }
    flash.lock().fault = Fault::None;
    actuator.tend(rig.await_gone(&owed)).await;
    rig.await_status(|status| status["state_warning"].is_null()).await;

    drop((device, actuator));
    rig.stop_gateway().await;
    rig.flash = Some(SharedFlash::new(flash.snapshot().restarted()));
    rig.start_gateway();
    assert_eq!((rig.subscription(1).await, rig.subscription_of("actuator", 1).await), (to_device, to_actuator.clone()));
    let mut actuator = rig.attach_at("actuator", "actuator", 2).await;
    rig.send(&to_actuator, "close it").await;
    actuator.hear_push("close it").await;
}

/// A-UA-49: a medium that takes no writes from the start on is read: what it holds is served, and what is new waits.
#[tokio::test(flavor = "local")]
async fn a_medium_that_takes_no_writes_is_read() {
    with_each_fault(read).await;
}

async fn read(fault: Fault) {
    let serving = Serving::start().await;
    let Serving { mut rig, flash, auto: (device, to_device), .. } = serving;
    drop(device);
    rig.stop_gateway().await;
    let flash = SharedFlash::new(flash.snapshot().restarted());
    flash.lock().fault = fault;
    rig.flash = Some(flash.clone());
    let third = rig.device("d3");
    rig.config.devices.push(third);
    rig.start_gateway();
    let mut device = rig.attach(2).await;
    let message = rig.send(&to_device, "from memory").await;
    let id = device.hear_push("from memory").await;
    device.say(&ToGateway::Ack { message: id }).await;
    device.tend(rig.await_gone(&message)).await;
    rig.await_status(|status| status["state_warning"].is_string()).await;
    let status = rig.await_status(|status| status["devices"].as_array().is_some_and(|them| them.len() == 3)).await;
    let d3 = status["devices"].as_array().and_then(|them| them.iter().find(|it| it["id"] == "d3")).expect("there");
    assert_eq!(d3["channels"][0]["state"], "wanted", "nothing is asked for that cannot be stored");
    flash.lock().fault = Fault::None;
    rig.subscription_of("d3", 1).await;
    rig.await_status(|status| status["state_warning"].is_null()).await;
}

/// A-UA-49: with the real binary and a file system that is mounted read-only: it is read, that is said from the start on, and
/// what is new is stored once it can be written again.
#[test]
fn a_read_only_file_system_is_served_from() {
    let (site, _service) = Site::with_service();
    site.configure(&[("d1", site.device_link("d1"))]);
    let config = site.path("fieldgate.toml");
    let text = fs::read_to_string(&config).expect("readable");
    fs::write(&config, format!("control = \"{}\"\n{text}", site.path("control.sock"))).expect("written");
    let _devices = [site.start_device("d1", &[]), site.start_device("d2", &[])];
    let mut gateway = site.start_gateway();
    let first = site.subscription("d1");
    gateway.terminate();

    let state = site.path("gateway");
    let Some(mut gateway) = start_read_only(&site, &state, &config) else {
        println!("skipped: a mount of one's own needs root");
        return;
    };
    await_true("an answer", || site.status().is_object());
    let told = String::from_utf8_lossy(&site.command(&["status"]).stdout).into_owned();
    assert!(told.contains("state         not written: the file system is read-only"), "{told}");
    assert_eq!(site.subscription("d1"), first);
    site.send(&first, "from memory");
    site.await_received("d1", "from memory");
    let added = site.command(&["device", "add", "d2", "--link", &site.device_link("d2")]);
    let told = String::from_utf8_lossy(&added.stderr).into_owned();
    assert!(added.status.code() == Some(1) && told.contains("d2 is served, but that is not on flash"), "{told}");
    site.send(&first, "and again");
    site.await_received("d1", "and again");
    assert_eq!(site.status()["devices"][1]["channels"][0]["state"], "wanted");

    assert!(remount(&gateway.id().to_string(), "rw", &state));
    let second = site.subscription("d2");
    await_true("no warning", || site.status()["state_warning"].is_null());
    gateway.terminate();
    let _gateway = site.start_gateway();
    for (id, subscription) in [("d1", first), ("d2", second)] {
        assert_eq!(site.subscription(id), subscription);
        site.send(&subscription, "stored after all");
        site.await_received(id, "stored after all");
    }
}

/// Starts a gateway for which alone a folder is read-only; none where that cannot be done.
fn start_read_only(site: &Site, folder: &str, config: &str) -> Option<crate::process::Process> {
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"";
    let can = Command::new("unshare").args(["-m", "sh", "-c", script, folder]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let script = format!("{script} && exec \"$@\"");
    Some(site.spawn_program(
        "gateway",
        "unshare",
        &["-m", "sh", "-c", &script, folder, BINARY, "run", "--config", config],
        &[],
    ))
}

/// Mounts a folder anew for one process.
fn remount(process: &str, how: &str, folder: &str) -> bool {
    let options = format!("remount,bind,{how}");
    let mut command = Command::new("nsenter");
    command.args(["-m", "-t", process, "mount", "-o", &options, folder]);
    command.status().is_ok_and(|status| status.success())
}
