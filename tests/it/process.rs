//! The real binary as processes: a service, a gateway and devices in one temporary folder.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fieldgate::webpush::subscription::PushSubscription;

/// The binary.
pub const BINARY: &str = env!("CARGO_BIN_EXE_fieldgate");

/// How long anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running process that is killed when this is dropped.
pub struct Process(Child);

impl Process {
    /// As `kill -9` does.
    pub fn kill(&mut self) {
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it was killed");
    }

    /// As `kill` does: it ends by itself, and well.
    pub fn terminate(&mut self) {
        self.signal("TERM");
        await_true("its end", || self.0.try_wait().expect("it is ours").is_some());
        let status = self.0.wait().expect("it has ended");
        assert_eq!(status.code(), Some(0), "a process that is told to end ends well");
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// As `kill -s` does.
    pub fn signal(&self, name: &str) {
        let number = self.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &number]).status().expect("kill runs");
        assert!(sent.success(), "{name} was sent");
    }
}

impl Process {
    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("it is ours").is_none()
    }

    /// Waits until it ends by itself, and returns its exit code.
    pub fn exit_code(&mut self) -> Option<i32> {
        await_true("its end", || !self.is_running());
        self.0.wait().expect("it has ended").code()
    }

    /// From now on its files can have only so many octets, or as many as they like again: what a full disk is to a
    /// process. False where there is no `prlimit`.
    pub fn limit_files(&self, bytes: Option<u64>) -> bool {
        let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        let number = self.0.id().to_string();
        let set = Command::new("prlimit").args(["--pid", &number, &format!("--fsize={limit}:")]).status();
        set.is_ok_and(|status| status.success())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A folder with everything that the processes use.
pub struct Site {
    folder: tempfile::TempDir,
    /// Where subscriptions are made.
    pub url: String,
    /// The certification authority of the service.
    pub ca: PathBuf,
    /// What all processes find in their environment.
    environment: &'static [(&'static str, &'static str)],
}

impl Site {
    /// Starts a service, and knows it from then on.
    pub fn with_service() -> (Self, Process) {
        Self::with_service_in(&[])
    }

    /// The same; this and all other processes have more in their environment.
    pub fn with_service_in(environment: &'static [(&'static str, &'static str)]) -> (Self, Process) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut site = Self { folder, url: String::new(), ca: PathBuf::new(), environment };
        let service = site.start_service("127.0.0.1:0");
        let line = site.line_of("service.out", "listening ");
        let (url, ca) = line.trim_start_matches("listening ").split_once(" ca=").expect("url and ca");
        site.url = url.to_owned();
        site.ca = ca.into();
        (site, service)
    }

    /// Starts the service again, where it was.
    pub fn restart_service(&self) -> Process {
        self.start_service(self.authority())
    }

    /// Waits until the service accepts connections.
    pub fn await_listening(&self) {
        await_true("the service listens", || std::net::TcpStream::connect(self.authority()).is_ok());
    }

    /// Where the service listens.
    pub fn authority(&self) -> &str {
        self.url.trim_start_matches("https://").trim_end_matches("/subscribe")
    }

    fn start_service(&self, address: &str) -> Process {
        let state = self.path("service");
        self.spawn("service", &["service", "--listen", address, "--state", &state])
    }

    /// Writes a gateway's configuration.
    pub fn configure(&self, devices: &[(&str, String)]) {
        self.configure_with(&self.url, devices);
    }

    /// Writes the configuration of a gateway that reaches the service at another address.
    pub fn configure_with(&self, url: &str, devices: &[(&str, String)]) {
        let sections: Vec<String> =
            devices.iter().map(|(id, link)| format!("[[device]]\nid = \"{id}\"\nlink = \"{link}\"\n")).collect();
        let text = format!(
            "state = \"{}\"\n[push_service]\nurl = \"{url}\"\nca_file = \"{}\"\n{}",
            self.path("gateway"),
            self.ca.display(),
            sections.join("")
        );
        fs::write(self.path("fieldgate.toml"), text).expect("written");
    }

    /// Starts the gateway.
    pub fn start_gateway(&self) -> Process {
        self.start_gateway_with(&[])
    }

    /// Starts the gateway with more in its environment.
    pub fn start_gateway_with(&self, environment: &[(&str, &str)]) -> Process {
        self.spawn_with("gateway", &["run", "--config", &self.path("fieldgate.toml")], environment)
    }

    /// Starts a device on a pseudo-terminal that keeps its path.
    pub fn start_device(&self, id: &str, more: &[&str]) -> Process {
        self.start_device_at(&format!("pty:{}", self.path(&format!("{id}.tty"))), id, more)
    }

    /// Starts a device somewhere.
    pub fn start_device_at(&self, place: &str, id: &str, more: &[&str]) -> Process {
        let name = format!("device-{id}");
        self.spawn(&name, &[&["simulate", place, "--id", id, "--json"], more].concat())
    }

    /// The link to such a device.
    pub fn device_link(&self, id: &str) -> String {
        format!("serial:{}", self.path(&format!("{id}.tty")))
    }

    /// What an application server needs to send to a device, as soon as there is a subscription.
    pub fn subscription(&self, id: &str) -> PushSubscription {
        await_true("a subscription", || self.command(&["status"]).status.success());
        let shown = self.command(&["device", "show", id, "--json", "--wait", "30"]);
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
        PushSubscription::from_json(&String::from_utf8_lossy(&shown.stdout)).expect("a subscription")
    }

    /// Sends a message as an application server does; it is accepted.
    pub fn send(&self, to: &PushSubscription, text: &str) {
        let sent = self.try_send(to, text);
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    }

    /// Sends a message as an application server does.
    pub fn try_send(&self, to: &PushSubscription, text: &str) -> Output {
        self.send_with(to, text, &[])
    }

    /// The same with more options.
    pub fn send_with(&self, to: &PushSubscription, text: &str, more: &[&str]) -> Output {
        let (file, ca) = (self.path("to.json"), self.ca.display().to_string());
        fs::write(&file, to.to_json().to_string()).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
        self.command_alone(&[&["send", "--to", &file, "--ca", &ca, "--ttl", "600"], more, &[text]].concat())
    }

    /// Runs a command that asks no gateway.
    pub fn command_alone(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(BINARY);
        command.args(arguments).envs(self.environment.iter().copied()).output().expect("it runs")
    }

    /// Waits until a device's application has a text.
    pub fn await_received(&self, id: &str, text: &str) {
        await_true(text, || self.received(id).iter().any(|received| received == text));
    }

    /// What the gateway says of itself.
    pub fn status(&self) -> serde_json::Value {
        serde_json::from_slice(&self.command(&["status", "--json"]).stdout).unwrap_or_default()
    }

    /// Runs a command that asks the gateway.
    pub fn command(&self, arguments: &[&str]) -> Output {
        self.command_of("fieldgate.toml", arguments)
    }

    /// Runs a command that asks the gateway with this configuration.
    pub fn command_of(&self, config: &str, arguments: &[&str]) -> Output {
        let (name, rest) = arguments.split_first().expect("a command");
        let config = self.path(config);
        let mut command = Command::new(BINARY);
        command.arg(name).args(["--config", &config]).args(rest).envs(self.environment.iter().copied());
        command.output().expect("it runs")
    }

    /// The lines that a process printed so far.
    pub fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(file)).unwrap_or_default();
        text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
    }

    /// The first line that begins so.
    pub fn line_of(&self, file: &str, start: &str) -> String {
        let find = || self.lines(file).into_iter().find(|line| line.starts_with(start));
        await_true(file, || find().is_some());
        find().expect("it was there")
    }

    /// The texts that a device's application received, in order.
    pub fn received(&self, id: &str) -> Vec<String> {
        self.received_in(&format!("device-{id}.out"))
    }

    /// The texts that were received, as the lines of a file tell.
    pub fn received_in(&self, file: &str) -> Vec<String> {
        let events = self.lines(file);
        let events = events.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let texts = events.filter(|event| event["event"] == "received");
        texts.map(|event| event["text"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    /// Starts the binary; what it prints is in files of this name.
    pub fn spawn(&self, name: &str, arguments: &[&str]) -> Process {
        self.spawn_with(name, arguments, &[])
    }

    fn spawn_with(&self, name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        self.spawn_program(name, BINARY, arguments, environment)
    }

    /// Starts any program that may become the binary.
    pub fn spawn_program(
        &self,
        name: &str,
        program: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Process {
        let open = |path: String| File::options().create(true).append(true).open(Path::new(&path)).expect("a file");
        let (out, err) = (open(self.path(&format!("{name}.out"))), open(self.path(&format!("{name}.err"))));
        // A write beyond a limit of file size fails then, and does not end the process.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", program]).args(arguments);
        command.envs(self.environment.iter().chain(environment).copied()).stdin(Stdio::null()).stdout(out).stderr(err);
        Process(command.spawn().expect("it starts"))
    }
}

/// Waits until something is true; real processes have clocks of their own.
pub fn await_true(what: &str, mut condition: impl FnMut() -> bool) {
    let start = now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "this never came true: {what}");
        pause(Duration::from_millis(20));
    }
}

/// The clock of real processes.
#[allow(clippy::disallowed_methods, reason = "real processes have clocks of their own")]
pub fn now() -> Instant {
    Instant::now()
}

/// Lets real processes go on.
#[allow(clippy::disallowed_methods, reason = "real processes have clocks of their own")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
