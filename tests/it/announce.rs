//! Application servers that are told where to post, over real connections and in real files.

use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use fieldgate::config::Announce;
use fieldgate::control::Request;
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio_rustls::TlsAcceptor;

use crate::process::{Site, await_true};
use crate::rig::{self, Rig};

/// A request as the application server saw it: its line, its `Authorization`, and its content.
type Seen = (String, String, Value);

/// An application server that shares no code with ours.
struct AppServer {
    url: String,
    folder: tempfile::TempDir,
    seen: Rc<RefCell<Vec<Seen>>>,
    /// Octets of requests that it saw, whatever they were.
    connections: Rc<RefCell<Vec<&'static str>>>,
}

impl AppServer {
    /// It answers with these status codes one after another, the last one for ever.
    async fn start(protocols: &[&str], answers: &'static [u16]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
        params.distinguished_name.push(rcgen::DnType::CommonName, "app");
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("written");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("TLS 1.2 and 1.3").with_no_client_auth();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = config.with_single_cert(vec![certificate.der().clone()], key).expect("they belong together");
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let url = format!("https://{}/devices?site=7", listener.local_addr().expect("an address"));
        let (seen, connections) = (Rc::<RefCell<Vec<Seen>>>::default(), Rc::<RefCell<Vec<&str>>>::default());
        let (noted, made, acceptor) = (Rc::clone(&seen), Rc::clone(&connections), TlsAcceptor::from(Arc::new(config)));
        spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let status = answers[noted.borrow().len().min(answers.len() - 1)];
                spawn_local(serve(tcp, acceptor.clone(), status, Rc::clone(&noted), Rc::clone(&made)));
            }
        });
        Self { url, folder, seen, connections }
    }

    fn announce(&self) -> Announce {
        let token = self.folder.path().join("token");
        std::fs::write(&token, "app-token").expect("written");
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
        let url = self.url.parse().expect("a URL");
        Announce::Post { url, ca_file: Some(self.folder.path().join("ca.pem")), credential_file: Some(token) }
    }

    fn count(&self) -> usize {
        self.seen.borrow().len()
    }

    fn last(&self) -> Seen {
        self.seen.borrow().last().expect("one was seen").clone()
    }
}

async fn serve(
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    status: u16,
    seen: Rc<RefCell<Vec<Seen>>>,
    connections: Rc<RefCell<Vec<&'static str>>>,
) {
    let Ok(mut tls) = acceptor.accept(tcp).await else { return connections.borrow_mut().push("refused") };
    connections.borrow_mut().push("accepted");
    if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
        let mut connection = h2::server::handshake(tls).await.expect("HTTP/2");
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let (head, mut body) = request.into_parts();
            let noted = Rc::clone(&seen);
            spawn_local(async move {
                let mut content = Vec::new();
                while let Some(Ok(octets)) = body.data().await {
                    content.extend_from_slice(&octets);
                }
                let line = format!("{} {}", head.method, head.uri.path_and_query().expect("a path"));
                let token = head.headers.get("authorization").map_or("-", |token| token.to_str().expect("text"));
                assert_eq!(head.headers["content-type"], "application/json");
                noted.borrow_mut().push((line, token.to_owned(), serde_json::from_slice(&content).expect("JSON")));
                let response = http::Response::builder().status(status).body(()).expect("a response");
                drop(respond.send_response(response, true).map(|_: h2::SendStream<Bytes>| ()));
            });
        }
        return;
    }
    let (mut octets, mut piece) = (Vec::new(), [0; 1_024]);
    let (head, content) = loop {
        let bytes = tls.read(&mut piece).await.expect("it goes on");
        octets.extend_from_slice(&piece[..bytes]);
        let text = String::from_utf8_lossy(&octets).into_owned();
        if let Some((head, content)) = text.split_once("\r\n\r\n")
            && let Ok(content) = serde_json::from_str::<Value>(content)
        {
            break (head.to_owned(), content);
        }
        assert!(bytes > 0, "half a request: {text}");
    };
    let lines: Vec<&str> = head.split("\r\n").collect();
    let field = |name: &str| {
        let of = |line: &&str| line.to_ascii_lowercase().starts_with(&format!("{name}: "));
        lines.iter().filter(|line| of(line)).map(|line| line.split_once(": ").expect("a field").1).collect::<Vec<_>>()
    };
    let length = head.len() + 4;
    assert_eq!(field("content-length"), [(octets.len() - length).to_string().as_str()]);
    assert!(field("host").len() == 1 && field("content-type") == ["application/json"]);
    let token = field("authorization").first().map_or("-".to_owned(), |token| (*token).to_owned());
    let line = lines[0].strip_suffix(" HTTP/1.1").expect("HTTP/1.1").to_owned();
    seen.borrow_mut().push((line, token, content));
    let answer = format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 {status} Yes\r\nContent-Length: 0\r\n\r\n");
    tls.write_all(answer.as_bytes()).await.expect("written");
    drop(tls.shutdown().await);
}

/// A-UA-08, D-8291-02: over HTTP/2 and HTTP/1.1, with the credential; a new subscription in the place of another, and the
/// end of one, are told as well; a restart tells nothing that is known.
#[tokio::test(flavor = "local")]
async fn a_ua_08_an_application_server_hears_of_every_change() {
    for protocols in [&["h2", "http/1.1"][..], &["http/1.1"], &[]] {
        let server = AppServer::start(protocols, &[201]).await;
        let mut rig = Rig::with_authority(None).await;
        rig.config.announce = Some(server.announce());
        rig.start_gateway();
        let subscription = rig.subscription(1).await;
        rig::await_true(|| server.count() == 1).await;
        let (line, token, document) = server.last();
        assert_eq!((line.as_str(), token.as_str()), ("POST /devices?site=7", "Bearer app-token"), "{protocols:?}");
        assert_eq!((&document["device"], &document["channel"]), (&"d1".into(), &1.into()));
        let told = fieldgate::webpush::subscription::PushSubscription::from_json(&document.to_string());
        assert_eq!(told.expect("a subscription"), subscription);

        rig.await_status(|status| status["announcements"]["accepted"] == 1).await;
        rig.stop_gateway().await;
        rig.start_gateway();
        rig.subscription(1).await;
        rig.ask(&Request::DeviceRotate { id: "d1".to_owned(), channel: None }).await.expect("it may be asked");
        rig::await_true(|| server.count() == 2).await;
        let rotated = server.last().2;
        assert_eq!(rotated["endpoint"], rig.subscription(1).await.endpoint.as_str());
        assert_ne!(rotated["endpoint"], document["endpoint"], "the restart told nothing");

        let mut config = rig.config.clone();
        config.devices.clear();
        rig.reload(Ok(config)).await;
        // The one that was replaced is the device's too: it is gone for good when both are.
        rig::await_true(|| server.count() == 3).await;
        assert_eq!((&server.last().2["endpoint"], &server.last().2["device"]), (&Value::Null, &"d1".into()));
        rig.stop_gateway().await;
    }
}

/// D-8291-02: a server that cannot be verified gets no octet of the request; one that refuses is asked again, and what it
/// does not want is shown.
#[tokio::test(flavor = "local")]
async fn d_8291_02_nothing_is_told_to_who_cannot_be_verified() {
    let server = AppServer::start(&["h2"], &[201]).await;
    let mut rig = Rig::with_authority(None).await;
    let Announce::Post { url, credential_file, .. } = server.announce() else { panic!("a POST") };
    rig.config.announce = Some(Announce::Post { url, ca_file: Some(rig.ca_file()), credential_file });
    rig.start_gateway();
    let status = rig.await_status(|status| status["announcement_error"].is_string()).await;
    assert!(status["announcement_error"].as_str().expect("text").contains("TLS failed"), "{status}");
    assert!(server.count() == 0 && server.connections.borrow().iter().all(|it| *it == "refused"));
    rig.stop_gateway().await;

    let refusing = AppServer::start(&["h2"], &[503, 429, 201]).await;
    rig.config.announce = Some(refusing.announce());
    rig.start_gateway();
    rig.await_status(|status| status["announcements"]["accepted"] == 1).await;
    assert_eq!(refusing.count(), 3);
    rig.stop_gateway().await;

    let unwilling = AppServer::start(&["http/1.1"], &[307]).await;
    rig.config.announce = Some(unwilling.announce());
    rig.start_gateway();
    let status = rig.await_status(|status| status["announcements"]["rejected"] == 1).await;
    assert_eq!(status["announcement_error"], "the answer was 307");
    assert_eq!(unwilling.count(), 1, "a redirect is not followed");
}

/// A-UA-08: a file that nobody but its owner can read, whole at every moment; it goes with the last channel.
#[tokio::test(flavor = "local")]
async fn a_ua_08_a_file_is_its_owners_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    // Others may look into the folder: the file itself is what is closed.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut rig = Rig::with_authority(None).await;
    rig.config.announce = Some(Announce::Folder(folder.path().into()));
    rig.config.devices[0].channels.push(fieldgate::wire::ChannelId(2));
    rig.start_gateway();
    let subscription = rig.subscription(2).await;
    let path = folder.path().join("d1.json");
    let read = || -> Vec<Value> {
        serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|_| b"[]".to_vec())).expect("whole")
    };
    rig::await_true(|| read().len() == 2).await;
    assert_eq!(read()[1]["endpoint"], subscription.endpoint.as_str());
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1, "nothing half-written");
    let open = folder.path().join("open");
    std::fs::write(&open, "for all").expect("written");
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    let can_read = |path: &Path| as_nobody(&["cat", path.to_str().expect("text")]);
    match can_read(&open).zip(can_read(&path)) {
        Some((can_look, can_read)) => assert!(can_look && !can_read, "another user can read it, or nothing"),
        None => println!("skipped: another user needs root and the command setpriv"),
    }
    let mut config = rig.config.clone();
    config.devices.clear();
    rig.reload(Ok(config)).await;
    rig::await_true(|| !path.exists()).await;
}

/// Whether a command works for another user; none where that cannot be tried.
fn as_nobody(command: &[&str]) -> Option<bool> {
    let setpriv = |command: &[&str]| {
        let identity = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        Command::new("setpriv").args(identity).args(command).output().map(|output| output.status.success())
    };
    setpriv(&["true"]).ok().filter(|works| *works)?;
    setpriv(command).ok()
}

/// A-UA-08: the control socket, which tells subscriptions as well, is closed to others by its own mode, wherever it is. What
/// the application server does not want is for a person to know.
#[test]
fn a_ua_08_the_control_socket_is_closed_to_others() {
    let (site, _service) = Site::with_service();
    site.configure(&[("d1", site.device_link("d1"))]);
    let (config, folder) = (site.path("fieldgate.toml"), tempfile::tempdir().expect("a folder"));
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let socket = folder.path().join("control.sock").display().to_string();
    let text = std::fs::read_to_string(&config).expect("readable");
    // The push service takes the request, and has nothing there.
    let (authority, ca) = (site.authority(), site.ca.display());
    let announce = format!("[announce]\nurl = \"https://{authority}/devices\"\nca_file = \"{ca}\"\n");
    std::fs::write(&config, format!("control = \"{socket}\"\n{text}{announce}")).expect("written");
    let _gateway = site.start_gateway();
    await_true("it is not wanted", || site.status()["announcements"]["rejected"] == 1);
    let told = String::from_utf8(site.command(&["status"]).stdout).expect("text");
    assert!(told.contains("attention     the application server does not want 1 of them"), "{told}");
    assert!(told.contains("the answer was 404") && !told.contains("devices?"), "{told}");

    let mode = |mode| std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(mode)).expect("it is ours");
    assert_eq!(std::fs::metadata(&socket).expect("there").permissions().mode() & 0o007, 0);
    let show = [env!("CARGO_BIN_EXE_fieldgate"), "device", "show", "d1", "--control", &socket];
    let closed = as_nobody(&show);
    mode(0o666);
    match closed.zip(as_nobody(&show)) {
        Some((closed, open)) => assert!(!closed && open, "it is the mode that keeps others out"),
        None => println!("skipped: another user needs root and the command setpriv"),
    }
}

/// A-UA-08: what is not https is refused before anything starts, and never repeated.
#[test]
fn a_ua_08_an_insecure_target_is_refused_at_start() {
    let (site, _service) = Site::with_service();
    site.configure(&[]);
    let config = site.path("fieldgate.toml");
    let text = std::fs::read_to_string(&config).expect("readable");
    for (table, told) in [
        ("url = \"http://app.example/secret\"", "announce.url: http:// is not encrypted and refused"),
        ("url = \"https://u:secret@app.example/\"", "announce.url: user name or password"),
        ("folder = \"relative\"", "announce.folder: the path is relative"),
        ("folder = \"/a\"\nurl = \"https://app.example/\"", "announce.folder: not beside url"),
        ("", "announce.url: not set"),
    ] {
        std::fs::write(&config, format!("{text}[announce]\n{table}\n")).expect("written");
        let refused = site.command(&["run"]);
        let line = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && line.contains(told) && !line.contains("secret"), "{line}");
    }
}
