//! The state of the push service: what survives, and what is said when it cannot be used.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use fieldgate::service::{Service, ServiceOptions, StartError};

use crate::service::{PATIENCE, Rig};

/// A-GAP-10, A-PS-66, A-PS-92: subscriptions, sets and messages survive a restart; what was acknowledged stays gone.
#[tokio::test(flavor = "local")]
async fn a_gap_10_state_survives_a_restart() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let one = client.subscribe(None).await;
    let two = client.subscribe(Some(&one.set)).await;
    let removed = client.subscribe(None).await;
    let kept = client.message(&one.push, "600", &[0; 4_096]).await;
    let acknowledged = client.message(&two.push, "600", b"m").await;
    assert_eq!(client.acknowledge(&acknowledged).await, 204);
    client.message(&removed.push, "600", b"m").await;
    assert_eq!(client.request("DELETE", &removed.subscription, &[], b"").await.status, 204);
    let authority = std::fs::read(&rig.running.ca_file).expect("readable");

    let rig = rig.restart().await;
    assert_eq!(std::fs::read(&rig.running.ca_file).expect("readable"), authority);
    let mut client = rig.client().await;
    let mut monitor = client.monitor(&two.set, None);
    let pushed = monitor.next().await;
    assert_eq!((pushed.path(), pushed.answer.body.len()), (&*kept, 4_096));
    assert!(pushed.answer.fields.contains_key("last-modified"));
    assert_eq!(client.request("POST", &removed.push, &[("ttl", "5")], b"").await.status, 404);
    assert_eq!(client.subscribe(Some(&one.set)).await.set, one.set);
    assert_eq!(client.acknowledge(&kept).await, 204);

    let rig = rig.restart().await;
    let mut client = rig.client().await;
    assert_eq!(client.monitor(&one.set, Some("wait=0")).end().await, 204);
}

/// What others could read, because a person or a backup changed a mode, is closed to them at the next start.
#[tokio::test(flavor = "local")]
async fn state_is_for_its_owner_alone() {
    let rig = Rig::start().await;
    for file in ["ca.key", "service.key", "service.redb"] {
        let path = rig.running.ca_file.with_file_name(file);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    }
    let rig = rig.restart().await;
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    let folder = rig.running.ca_file.parent().expect("a folder");
    assert_eq!(mode(folder), 0o700);
    for (file, expected) in [("ca.pem", 0o644), ("ca.key", 0o600), ("service.key", 0o600), ("service.redb", 0o600)] {
        assert_eq!(mode(&folder.join(file)), expected, "{file}");
    }
}

/// A folder of others is never closed to them: it may be the system's.
#[tokio::test(flavor = "local")]
async fn a_folder_with_other_things_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("lib");
    std::fs::create_dir(&state).expect("made");
    std::fs::write(state.join("other"), "").expect("written");
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).expect("set");
    let started = Service::start(ServiceOptions::new(([127, 0, 0, 1], 0).into(), &state)).await;
    assert!(matches!(started, Err(StartError::Exposed(path)) if path == state));
    assert_eq!(std::fs::metadata(&state).expect("there").permissions().mode() & 0o777, 0o755);
    std::fs::remove_file(state.join("other")).expect("removed");
    let started = Service::start(ServiceOptions::new(([127, 0, 0, 1], 0).into(), &state)).await;
    assert!(started.is_ok(), "an empty folder is closed");
    assert_eq!(std::fs::metadata(&state).expect("there").permissions().mode() & 0o777, 0o700);
}

#[tokio::test(flavor = "local")]
async fn what_prevents_a_start_is_said_with_the_next_step() {
    let rig = Rig::start().await;
    let state = rig.folder.path().join("state");
    let start = async |listen: &str, state: &Path| {
        let error = Service::start(ServiceOptions::new(listen.parse().expect("an address"), state)).await;
        error.map(drop).expect_err("it cannot start")
    };
    let error = start("127.0.0.1:0", &state).await;
    assert!(matches!(error, StartError::Store(..)) && error.to_string().contains("another service"), "{error}");

    let free = rig.folder.path().join("free");
    let error = start(&rig.authority(), &free).await;
    assert!(error.to_string().contains("--listen"), "{error}");

    let file = rig.folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    assert!(start("127.0.0.1:0", &file).await.to_string().contains("--state"));

    for file in ["service.redb", "service.redb.damaged"] {
        std::fs::write(free.join(file), vec![1; 10_000]).expect("written");
    }
    let error = start("127.0.0.1:0", &free).await;
    assert!(error.to_string().contains("damaged"), "{error}");
    std::fs::write(free.join("ca.key"), "").expect("written");
    assert!(start("127.0.0.1:0", &free).await.to_string().contains("ca.key"));
}

/// A-GAP-10: a damaged store is set aside once, as it was, and a new one begun; nothing of it is served.
#[tokio::test(flavor = "local")]
async fn a_damaged_store_is_set_aside() {
    let rig = Rig::start().await;
    let made = rig.client().await.subscribe(None).await;
    let Rig { running, folder } = rig;
    running.stop().await;
    let path = folder.path().join("state/service.redb");
    let damaged = vec![7; 100_000];
    std::fs::write(&path, &damaged).expect("written");
    let rig = Rig::start_in(folder).await;
    assert_eq!(std::fs::read(path.with_extension("redb.damaged")).expect("set aside"), damaged);
    let mut client = rig.client().await;
    assert_eq!(client.request("POST", &made.push, &[("ttl", "60")], b"").await.status, 404);
    let made = client.subscribe(None).await;
    client.message(&made.push, "60", b"m").await;
}

#[tokio::test(flavor = "local")]
async fn connections_beyond_the_bound_wait_until_one_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = ServiceOptions::new("127.0.0.1:0".parse().expect("an address"), folder.path().join("state"));
    options.connection_count_max = 2;
    let running = Service::start(options).await.expect("it starts");
    let rig = Rig { running, folder };
    let first = rig.tls(&["h2"]).await;
    let mut second = rig.client().await;
    let mut third = Box::pin(rig.client());
    tokio::select! {
        biased;
        _ = &mut third => panic!("it is beyond the bound"),
        made = second.subscribe(None) => drop(made),
    }
    drop(first);
    third.await.subscribe(None).await;
}

/// The service as a process.
struct Process {
    child: Child,
    line: String,
    _log: ChildStderr,
}

impl Process {
    fn start(state: &Path, listen: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fieldgate"))
            .args(["service", "--listen", listen, "--state"])
            .arg(state)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary is there");
        let mut line = String::new();
        let output = child.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("it says that it is ready");
        let log = child.stderr.take().expect("piped");
        Self { child, line, _log: log }
    }

    fn address(&self) -> String {
        let rest = self.line.strip_prefix("listening https://").expect("the line is as promised");
        rest.split_once("/subscribe ca=").expect("and whole").0.to_owned()
    }

    fn ca_file(&self) -> &str {
        self.line.trim_end().split_once(" ca=").expect("whole").1
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(name).arg(self.child.id().to_string()).status().expect("kill is there");
        assert!(sent.success());
    }

    async fn exit_code(mut self) -> Option<i32> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                return status.code();
            }
            assert!(tokio::time::Instant::now() < deadline, "it does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Sends one HTTP/1.1 request to the process.
async fn request(process: &Process, request: &str, body: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let config = crate::service::client_config(Path::new(process.ca_file()), &["http/1.1"]);
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let stream = tokio::net::TcpStream::connect(process.address()).await.expect("it listens");
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let mut stream = connector.connect(name, stream).await.expect("the certificate is good");
    let text = format!(
        "{request}\r\nHost: localhost\r\nConnection: close\r\nTTL: 600\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

fn location(answer: &str) -> String {
    let line = answer.lines().find_map(|line| line.strip_prefix("location: "));
    line.expect("it was accepted").to_owned()
}

/// A-GAP-10: a 201 promises what is on the disk, and a 204 what is no more, also when the process is killed at once.
#[tokio::test(flavor = "local")]
async fn a_gap_10_what_was_answered_survives_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(folder.path(), "127.0.0.1:0");
    assert!(Path::new(process.ca_file()).is_absolute());
    let made = request(&process, "POST /subscribe HTTP/1.1", "").await;
    let push = made.split("link: <").nth(1).and_then(|rest| rest.split('>').next()).expect("a push link").to_owned();
    let mut messages = Vec::new();
    for number in 0..5 {
        messages.push(location(&request(&process, &format!("POST {push} HTTP/1.1"), &format!("{number}")).await));
    }
    let gone = messages.remove(0);
    assert!(request(&process, &format!("DELETE {gone} HTTP/1.1"), "").await.starts_with("HTTP/1.1 204"));
    process.signal("-KILL");
    assert_eq!(process.exit_code().await, None);

    let process = Process::start(folder.path(), "127.0.0.1:0");
    for (number, message) in messages.iter().enumerate() {
        let answer = request(&process, &format!("GET {message} HTTP/1.1"), "").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(&format!("{}", number + 1)), "{answer}");
    }
    assert!(request(&process, &format!("GET {gone} HTTP/1.1"), "").await.starts_with("HTTP/1.1 404"));
    process.signal("-TERM");
    assert_eq!(process.exit_code().await, Some(0));
}

#[tokio::test(flavor = "local")]
async fn both_signals_end_the_process_with_success() {
    for signal in ["-TERM", "-INT"] {
        let folder = tempfile::tempdir().expect("a folder");
        let process = Process::start(folder.path(), "127.0.0.1:0");
        process.signal(signal);
        assert_eq!(process.exit_code().await, Some(0), "{signal}");
    }
}
