//! What a push service learns of a message by its length, and how a sender hides it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use fieldgate::random::SeededRandom;
use fieldgate::sender::Sender;
use fieldgate::transport::properties::Trust;
use fieldgate::webpush::ece::{self, Keys};
use fieldgate::webpush::headers::Ttl;
use fieldgate::webpush::resource::PushUri;
use fieldgate::webpush::subscription::PushSubscription;
use tokio::process::Command;

use crate::service::{Client, Rig};

/// D-8291-18, A-ALL-14: with padding to 512 octets all plaintexts of 1 to 400 are of one length at the service; without it
/// each length shows.
#[tokio::test(flavor = "local")]
async fn d_8291_18_padded_messages_have_one_length() {
    let mut stage = Stage::set().await;
    let trust = Trust::File(stage.rig.running.ca_file.clone());
    let mut sender = Sender::new(&stage.to, trust).expect("it can send");
    sender.pad_to(512);
    let mut lengths = BTreeSet::new();
    for bytes in 1..=400 {
        let text = vec![b'x'; bytes];
        let sent = sender.send(&stage.to, &text, Ttl::from_secs(600)).await.expect("accepted");
        let body = stage.client.request("GET", sent.accepted.message.uri().path(), &[], b"").await.body;
        lengths.insert(body.len());
        assert_eq!(ece::decode(&stage.keys, body.to_vec()).expect("it is for these keys"), text);
    }
    assert_eq!(lengths.len(), 1, "{lengths:?}");
    sender.pad_to(0);
    for bytes in [1, 2, 400] {
        let sent = sender.send(&stage.to, &vec![b'x'; bytes], Ttl::from_secs(600)).await.expect("accepted");
        let path = sent.accepted.message.uri().path().to_owned();
        lengths.insert(stage.client.request("GET", &path, &[], b"").await.body.len());
    }
    assert_eq!(lengths.len(), 4, "{lengths:?}");
}

/// D-8291-18: so does the command that sends, if it is asked to.
#[tokio::test(flavor = "local")]
async fn d_8291_18_the_command_pads() {
    let mut stage = Stage::set().await;
    let texts = ["a", "ten octets", "rather more than ten octets, though less than a hundred"];
    for text in texts {
        assert_eq!(stage.send(&["--pad", "512"], text).await.0, Some(0));
    }
    let (_, pushes) = stage.client.monitor(&stage.subscription, Some("wait=0")).finish().await;
    let lengths: BTreeSet<usize> = pushes.iter().map(|pushed| pushed.answer.body.len()).collect();
    let texts_of = |pushed: &crate::service::Pushed| {
        let text = ece::decode(&stage.keys, pushed.answer.body.to_vec()).expect("it is for these keys");
        String::from_utf8(text).expect("text")
    };
    assert_eq!(pushes.iter().map(texts_of).collect::<Vec<_>>(), texts);
    assert_eq!(lengths.len(), 1, "{lengths:?}");
    for wrong in ["0", "3994", "-1", "x"] {
        let (code, told) = stage.send(&["--pad", wrong], "x").await;
        assert_eq!(code, Some(2));
        assert!(told.contains("from 1 to 3993") || wrong == "-1", "{told}");
    }
}

/// A service, and a subscription whose keys are known.
struct Stage {
    rig: Rig,
    client: Client,
    keys: Keys,
    to: PushSubscription,
    /// Where its messages are received.
    subscription: String,
}

impl Stage {
    async fn set() -> Self {
        let rig = Rig::start().await;
        let mut client = rig.client().await;
        let subscribed = client.subscribe(None).await;
        let keys = Keys::generate(&mut SeededRandom::new(1));
        let endpoint = PushUri::parse(&format!("{}{}", client.origin, subscribed.push)).expect("a URI");
        let to = PushSubscription { endpoint, public: *keys.public(), auth: *keys.auth() };
        Self { rig, client, keys, to, subscription: subscribed.subscription }
    }

    /// Runs the command; its exit code, and what it says is wrong.
    async fn send(&self, options: &[&str], text: &str) -> (Option<i32>, String) {
        let file = self.rig.folder.path().join("to.json");
        fs::write(&file, self.to.to_json().to_string()).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
        let mut command = Command::new(env!("CARGO_BIN_EXE_fieldgate"));
        command.args(["send", "--ttl", "600", "--to"]).arg(file).arg("--ca").arg(&self.rig.running.ca_file);
        let output = command.args(options).arg(text).output().await.expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
