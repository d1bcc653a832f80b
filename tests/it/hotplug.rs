//! Serial devices that are unplugged and plugged in again: terminals that hang up, and come back under the same name.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::future::pending;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use fieldgate::cli::simulate::{self, Failed, Options, Report};
use fieldgate::downstream::{DownReason, Downstream, Entry, Event};
use fieldgate::limits::{LINK_REOPEN_MS_MAX, LINK_REOPEN_MS_MIN};
use fieldgate::transport::stack::serial::Pty;
use fieldgate::wire::message::Age;
use fieldgate::wire::{ChannelId, DeviceId, MessageId, ToDevice, ToGateway};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_serial::SerialStream;

use crate::clock::StoppedClock;
use crate::device::ScriptedDevice;
use crate::rig::Rig;

const CYCLE_COUNT: u32 = 1_000;
/// A message is sent in one of so many cycles.
const CYCLES_PER_MESSAGE: u32 = 10;
const REOPEN_MIN: Duration = Duration::from_millis(LINK_REOPEN_MS_MIN);
const REOPEN_MAX: Duration = Duration::from_millis(LINK_REOPEN_MS_MAX);
/// Passes only where the clock runs.
const PATIENCE: Duration = Duration::from_secs(300);

/// C-20, A-UA-26: whenever its device is unplugged, and however it comes back, a message is taken once by the application of
/// the device and acknowledged in the end. Each time plugged in is one session; nothing waits longer than the first pause.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_thousand_replugs_lose_no_message_and_repeat_none() {
    let mut stage = Stage::set();
    let mut outbox = Outbox::default();
    let mut application = Application::default();
    let mut kept: Option<ScriptedDevice<()>> = None;
    let mut pause = Duration::ZERO;
    for cycle in 0..CYCLE_COUNT {
        let mut port = Pty::new(Some(&stage.path)).expect("a terminal");
        stage.clock.advance(pause).await;
        // A device with its own power keeps its link; one that is powered by its port starts anew.
        let mut device = match kept.take().filter(|_| cycle % 3 > 0) {
            Some(device) => device.moved_to(port.near()),
            None => ScriptedDevice::new(port.near(), 1_000_000 + cycle, 256),
        };
        device.attach("a").await;
        let session = stage.up().await;
        assert_eq!(session, cycle + 1, "one session each time");
        if cycle % CYCLES_PER_MESSAGE == 0 {
            outbox.add(cycle);
        }
        outbox.push_all(&stage.links, session);
        match cycle / CYCLES_PER_MESSAGE % 4 * u32::from(cycle % CYCLES_PER_MESSAGE == 0) {
            // Unplugged with the message on its way.
            1 => {}
            // Unplugged with the message in the application and not acknowledged.
            2 => application.hear_all(&mut device, outbox.len()).await.clear(),
            // Unplugged with the device ack on its way.
            3 => {
                for message in application.hear_all(&mut device, outbox.len()).await {
                    device.say(&ToGateway::Ack { message }).await;
                }
            }
            _ => {
                for message in application.hear_all(&mut device, outbox.len()).await {
                    device.say(&ToGateway::Ack { message }).await;
                    outbox.acknowledged(&mut stage, message).await;
                }
            }
        }
        kept = Some(device.moved_to(()));
        drop(port);
        outbox.gone(&mut stage).await;
        // Now and then nothing is there for a while, or what is left of the name leads nowhere.
        pause = match cycle % 7 {
            3 => stage.find_nothing().await,
            5 => {
                symlink("/dev/pts/no-such", &stage.path).expect("the device took its link with it");
                stage.find_nothing().await
            }
            _ => REOPEN_MIN,
        };
    }
    assert_eq!(application.taken.len(), (CYCLE_COUNT / CYCLES_PER_MESSAGE) as usize, "nothing is lost");
    assert!(application.copies > 0, "some came again, and were known");
    assert!(outbox.waiting.is_empty(), "{:?}", outbox.waiting);
    assert!(stage.clock.stood_still(), "nothing waited for a timer");
}

/// C-20: a port is tried again after pauses that double up to the longest, and after the shortest once a device was there.
/// That a port can be opened is no success: one that hangs up at once is tried as seldom as one that is missing.
#[tokio::test(flavor = "local", start_paused = true)]
async fn reopening_backs_off_to_its_bound_and_starts_anew_after_success() {
    let mut stage = Stage::set();
    for hangs_up in [false, true] {
        let mut pause = REOPEN_MIN;
        for _ in 0..10 {
            if hangs_up {
                let port = Pty::new(Some(&stage.path)).expect("a terminal");
                stage.is_opened_after(&port, pause).await;
            } else {
                stage.clock.advance(pause).await;
            }
            pause = (pause * 2).min(REOPEN_MAX);
        }
        assert_eq!(pause, REOPEN_MAX);
        let mut port = Pty::new(Some(&stage.path)).expect("a terminal");
        stage.is_opened_after(&port, pause).await;
        let device = ScriptedDevice::attached(port.near(), 7, "a").await;
        stage.up().await;
        drop(device);
        drop(port);
        stage.down().await;
    }
    let port = Pty::new(Some(&stage.path)).expect("a terminal");
    stage.is_opened_after(&port, REOPEN_MIN).await;
    assert!(stage.clock.stood_still());
}

/// Waiting costs nothing: for a port that is missing, at one with nobody behind it, and with a device that has nothing to say.
#[tokio::test(flavor = "local", start_paused = true)]
async fn nothing_runs_while_nothing_happens() {
    let mut stage = Stage::set();
    stage.is_idle("it is missing").await;
    let mut port = Pty::new(Some(&stage.path)).expect("a terminal");
    stage.clock.advance(REOPEN_MIN).await;
    stage.is_idle("nobody is there").await;
    let mut device = ScriptedDevice::attached(port.near(), 7, "a").await;
    stage.up().await;
    device.say(&ToGateway::Ask).await;
    assert!(matches!(stage.next().await, Event::Message { message: ToGateway::Ask, .. }));
    stage.is_idle("all is said").await;
    drop(device);
    drop(port);
    stage.down().await;
    stage.is_idle("it was unplugged").await;
}

/// C-40: a device that was reset without being unplugged shows it by its boot id; its session ends, and the next one opens on
/// the same port, which stays open.
#[tokio::test(flavor = "local", start_paused = true)]
async fn a_reset_is_noticed_by_the_boot_id_alone() {
    let mut stage = Stage::set();
    let mut port = Pty::new(Some(&stage.path)).expect("a terminal");
    stage.clock.advance(REOPEN_MIN).await;
    let mut last = None;
    for boot_id in 1..=100 {
        let mut device = ScriptedDevice::attached(port.near(), boot_id, "a").await;
        if let Some(session) = last {
            let ended = Event::Down { device: id(), session, reason: DownReason::Restarted };
            assert_eq!(stage.next().await, ended);
        }
        let Event::Up { session, boot_id: stated, .. } = stage.next().await else { panic!("up") };
        assert_eq!(stated, boot_id);
        stage.links.send(&id(), session, &push(boot_id)).expect("room");
        assert_eq!(device.hear().await.message(), push(boot_id));
        last = Some(session);
    }
    assert!(stage.clock.stood_still(), "it was not opened again");
}

/// C-20, A-UA-25, A-UA-26: the same through service, gateway and a device that keeps its journal, each cut off anywhere: the
/// journal has each message once, and the service has none in the end.
#[tokio::test(flavor = "local")]
async fn a_device_that_is_unplugged_again_and_again_journals_each_message_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, journal) = (folder.path().join("usb-meter"), folder.path().join("journal"));
    let mut rig = Rig::with_authority(None).await;
    rig.config.devices[0].link = format!("serial:{}", path.display()).parse().expect("an endpoint");
    rig.start_gateway();
    let subscription = rig.subscription(1).await;
    let (mut messages, copies) = (Vec::new(), Rc::new(Cell::new(0)));
    for cycle in 0..30 {
        let device = spawn_simulated(&path, &journal, Some(Rc::clone(&copies)).filter(|_| cycle % 2 == 0));
        // The gateway opens the port when its pause is over; then the message comes earlier or later.
        sleep(Duration::from_millis(cycle * 37 % 170)).await;
        messages.push(rig.send(&subscription, &format!("message {cycle}")).await);
        sleep(Duration::from_millis(cycle * 11 % 14)).await;
        device.abort();
        device.await.or_else(|ended| if ended.is_cancelled() { Ok(()) } else { Err(ended) }).expect("no panic");
    }
    let cut_off = journal_of(&journal).len();
    let device = spawn_simulated(&path, &journal, Some(Rc::clone(&copies)));
    for message in &messages {
        rig.await_gone(message).await;
    }
    device.abort();
    let all = journal_of(&journal);
    let mut once = all.clone();
    once.sort();
    once.dedup();
    assert_eq!((all.len(), once.len()), (messages.len(), messages.len()), "{all:?}");
    assert!(0 < cut_off && cut_off < messages.len(), "some while it came and went, some later: {cut_off}");
    assert!(copies.get() > 0, "some came again, and were known");
}

/// A gateway whose device `a` has a port of a stable name.
struct Stage {
    links: Downstream,
    path: PathBuf,
    clock: StoppedClock,
    _folder: tempfile::TempDir,
}

impl Stage {
    /// The port is missing.
    fn set() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("usb-meter");
        let mut links = Downstream::new(tokio::time::Instant::now());
        let endpoint = format!("serial:{}", path.display()).parse().expect("an endpoint");
        links.attach(Entry { device: id(), endpoint, mtu: 256 }).expect("room");
        Self { links, path, clock: StoppedClock::new(), _folder: folder }
    }

    async fn next(&mut self) -> Event {
        timeout(PATIENCE, self.links.next()).await.expect("an event in time")
    }

    /// The device is there; the number of its session.
    async fn up(&mut self) -> u32 {
        loop {
            match self.next().await {
                Event::Up { session, .. } => return session,
                Event::Retrying { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn down(&mut self) {
        let Event::Down { reason, .. } = self.next().await else { panic!("unplugged") };
        assert!(matches!(reason, DownReason::Closed | DownReason::Failed(_)), "{reason}");
    }

    /// The port is missing when it is tried again, twice; returns the next pause.
    async fn find_nothing(&mut self) -> Duration {
        self.clock.advance(REOPEN_MIN).await;
        assert!(matches!(self.next().await, Event::Retrying { .. }), "missing");
        self.clock.advance(2 * REOPEN_MIN).await;
        4 * REOPEN_MIN
    }

    /// The port is opened after exactly this pause.
    async fn is_opened_after(&mut self, port: &Pty, pause: Duration) {
        self.clock.advance(pause - Duration::from_millis(1)).await;
        assert!(!is_open(port.path()), "before {pause:?}");
        self.clock.advance(Duration::from_millis(1)).await;
        assert!(is_open(port.path()), "after {pause:?}");
    }

    /// In a fifth of a real second this thread computes less than a tenth of it.
    async fn is_idle(&mut self, when: &str) {
        const WAIT: Duration = Duration::from_millis(200);
        self.clock.advance(Duration::ZERO).await;
        let before = thread_time();
        self.clock.stand(WAIT).await;
        let computed = thread_time() - before;
        assert!(computed < WAIT / 10, "{when}: {computed:?}");
    }
}

/// What a gateway does about messages, in short: each is handed over in every session until it is acknowledged.
#[derive(Default)]
struct Outbox {
    waiting: BTreeSet<u32>,
}

impl Outbox {
    fn add(&mut self, number: u32) {
        self.waiting.insert(number);
    }

    fn len(&self) -> usize {
        self.waiting.len()
    }

    fn push_all(&self, links: &Downstream, session: u32) {
        for number in &self.waiting {
            links.send(&id(), session, &push(*number)).expect("room");
        }
    }

    /// The next thing to come is this device ack.
    async fn acknowledged(&mut self, stage: &mut Stage, message: MessageId) {
        let Event::Message { message: said, .. } = stage.next().await else { panic!("a device ack") };
        assert_eq!(said, ToGateway::Ack { message });
        assert!(self.waiting.remove(&number_of(message)));
    }

    /// The device was unplugged; acks that were on their way count.
    async fn gone(&mut self, stage: &mut Stage) {
        loop {
            match stage.next().await {
                Event::Message { message: ToGateway::Ack { message }, .. } => {
                    self.waiting.remove(&number_of(message));
                }
                Event::Down { reason: DownReason::Closed | DownReason::Failed(_), .. } => return,
                other => panic!("{other:?}"),
            }
        }
    }
}

/// What is behind a device, and keeps the ids of what it took.
#[derive(Default)]
struct Application {
    taken: BTreeSet<u32>,
    copies: usize,
}

impl Application {
    /// Takes so many messages; all of them can be acknowledged then, copies too.
    async fn hear_all(&mut self, device: &mut ScriptedDevice<&mut SerialStream>, count: usize) -> Vec<MessageId> {
        let mut all = Vec::new();
        for _ in 0..count {
            let heard = device.hear().await;
            let ToDevice::Push { message, .. } = heard.message() else { panic!("{heard:?}") };
            assert_eq!(heard.message(), push(number_of(message)));
            self.copies += usize::from(!self.taken.insert(number_of(message)));
            all.push(message);
        }
        all
    }
}

/// A simulated device at a terminal of its own, for the time it is plugged in. One that does not count copies is cut off when
/// its first message is in the journal and not yet acknowledged.
fn spawn_simulated(path: &Path, journal: &Path, copies: Option<Rc<Cell<usize>>>) -> JoinHandle<()> {
    let place = format!("pty:{}", path.display()).parse().expect("a place");
    let options = Options { state: Some(journal.to_owned()), ..Options::new(place, "d1".parse().expect("an id")) };
    let report = move |report: &Report<'_>| {
        match (report, &copies) {
            (Report::Received { .. }, None) => return Err(io::ErrorKind::BrokenPipe.into()),
            (Report::Duplicate { .. }, Some(copies)) => copies.set(copies.get() + 1),
            _ => {}
        }
        Ok(())
    };
    tokio::task::spawn_local(async {
        let ended = simulate::device(options, report, pending()).await.expect_err("it runs until it is cut off");
        assert!(matches!(ended, Failed::Report(_)), "{ended}");
    })
}

/// The texts in a journal.
fn journal_of(path: &Path) -> Vec<String> {
    let lines = fs::read_to_string(path).expect("a journal");
    let text = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["text"].to_string();
    lines.lines().map(text).collect()
}

fn id() -> DeviceId {
    "a".parse().expect("an id")
}

fn push(number: u32) -> ToDevice<'static> {
    let message = MessageId(u64::from(number).to_le_bytes());
    ToDevice::Push { message, channel: ChannelId(1), age: Age::UNKNOWN, body: b"a message that takes some octets" }
}

fn number_of(message: MessageId) -> u32 {
    u32::try_from(u64::from_le_bytes(message.0)).expect("one of ours")
}

/// Whether somebody in this process besides the terminal itself has its far end open.
fn is_open(far: &Path) -> bool {
    let files = fs::read_dir("/proc/self/fd").expect("Linux").flatten();
    files.filter(|file| fs::read_link(file.path()).is_ok_and(|target| target == far)).count() > 1
}

/// What this thread has computed so far.
fn thread_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    Duration::from_nanos(text.split(' ').next().and_then(|number| number.parse().ok()).expect("a number"))
}
