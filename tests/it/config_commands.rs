//! `fieldgate init` and `fieldgate check`, as a person runs them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use fieldgate::limits::{CA_FILE_BYTES_MAX, CONFIG_BYTES_MAX, CRL_FILE_BYTES_MAX};
use fieldgate::store::Store;

const URL: &str = "https://push.example.net/subscribe";

/// A-UA-43: the state folder is made for its owner alone.
#[test]
fn init_then_check_says_ok() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = fieldgate(folder.path(), &["init", "--state", "state", "--push-service", URL]);
    assert_eq!((made.code, made.err.as_str()), (0, ""));
    assert!(made.out.contains("wrote fieldgate.toml"), "{}", made.out);
    let state = fs::metadata(folder.path().join("state")).expect("it was made");
    assert_eq!(state.permissions().mode() & 0o777, 0o700);
    let checked = fieldgate(folder.path(), &["check"]);
    assert_eq!((checked.code, checked.out.as_str(), checked.err.as_str()), (0, "ok\n", ""));
}

#[test]
fn init_overwrites_only_by_force() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("fieldgate.toml");
    fs::write(&config, "precious").expect("it is ours");
    let init = ["init", "--state", "state", "--push-service", URL];
    let refused = fieldgate(folder.path(), &init);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("--force"), "{}", refused.err);
    assert!(!folder.path().join("state").exists(), "a refusal does nothing");
    assert_eq!(fs::read(&config).expect("it is there"), b"precious");
    assert_eq!(fieldgate(folder.path(), &[&init[..], &["--force"]].concat()).code, 0);
    assert!(fs::read_to_string(&config).expect("it is there").contains(URL));
    assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 2, "no other file is left behind");
}

/// A-UA-01, A-UA-38: without a URL the next command names the setting; `http://` is not even written.
#[test]
fn a_ua_01_init_without_a_url_leaves_a_configuration_that_names_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = fieldgate(folder.path(), &["init", "--state", "state"]);
    assert!(made.code == 0 && made.out.contains("set the url"), "{}", made.out);
    let checked = fieldgate(folder.path(), &["check"]);
    assert_eq!(checked.code, 2);
    assert!(checked.err.contains("fieldgate.toml:13: push_service.url: not set"), "{}", checked.err);
    let http = fieldgate(folder.path(), &["init", "--force", "--push-service", "http://push.example.net/"]);
    assert!(http.code == 2 && http.err.contains("http:// is not encrypted"), "{}", http.err);
}

#[test]
fn a_missing_file_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let checked = fieldgate(folder.path(), &["check", "--config", "absent.toml"]);
    assert_eq!(checked.code, 2);
    assert!(checked.err.contains("absent.toml") && checked.err.contains("fieldgate init"), "{}", checked.err);
    let checked = fieldgate(folder.path(), &["check", "--config", "."]);
    assert!(checked.code == 2 && checked.err.contains("cannot read the configuration .:"), "{}", checked.err);
}

#[test]
fn each_error_has_a_line_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.toml"), "stat = 1\n[push_service]\nurl = 2\n").expect("it is ours");
    let checked = fieldgate(folder.path(), &["check", "--config", "a.toml"]);
    assert_eq!((checked.code, checked.out.as_str()), (2, ""));
    let lines: Vec<&str> = checked.err.lines().collect();
    assert_eq!(lines[0], "fieldgate: the configuration has 3 errors");
    assert!(lines[1].starts_with("a.toml:1: stat: unknown key"), "{}", lines[1]);
    assert!(lines[3].starts_with("a.toml:3: push_service.url: this is"), "{}", lines[3]);
    fs::write(folder.path().join("b.toml"), b"# fine\n# \xff\n").expect("it is ours");
    let checked = fieldgate(folder.path(), &["check", "--config", "b.toml"]);
    assert!(checked.code == 2 && checked.err.contains("b.toml:2: not valid TOML"), "{}", checked.err);
    fs::write(folder.path().join("c.toml"), vec![b'#'; CONFIG_BYTES_MAX + 1]).expect("it is ours");
    let checked = fieldgate(folder.path(), &["check", "--config", "c.toml"]);
    assert!(checked.code == 2 && checked.err.contains("c.toml:1: longer than"), "{}", checked.err);
}

#[test]
fn the_certificates_must_be_certificates() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(["ca.test".to_owned()]).expect("a name").self_signed(&key);
    let pem = certificate.expect("a certificate").pem();
    let ca_file = folder.path().join("ca.pem");
    let init = ["init", "--force", "--state", "state", "--push-service", URL, "--ca-file", "ca.pem"];
    assert_eq!(fieldgate(folder.path(), &init).code, 0);
    let line = 1 + config(folder.path()).lines().position(|line| line.starts_with("ca_file")).expect("it is set");
    let told = |content: Option<&[u8]>| {
        if let Some(content) = content {
            fs::write(&ca_file, content).expect("it is ours");
        }
        let checked = fieldgate(folder.path(), &["check"]);
        assert_eq!(checked.code, 2, "{}", checked.out);
        assert!(checked.err.contains(&format!("fieldgate.toml:{line}: push_service.ca_file: ")), "{}", checked.err);
        checked.err
    };
    assert!(told(None).contains("cannot be read"));
    assert!(told(Some(b"")).contains("holds no certificate"));
    assert!(told(Some(key.serialize_pem().as_bytes())).contains("holds no certificate"));
    assert!(told(Some(pem.replacen("MII", "MI!", 1).as_bytes())).contains("is damaged"));
    let empty_certificate = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    assert!(told(Some(empty_certificate)).contains("no certificate"));
    assert!(told(Some(&vec![b'\n'; CA_FILE_BYTES_MAX + 1])).contains("is larger than"));
    fs::write(&ca_file, pem).expect("it is ours");
    assert_eq!(fieldgate(folder.path(), &["check"]).out, "ok\n");
}

/// D-9325-12: revocation lists must be lists, and are said to be wrong where they are named.
#[test]
fn d_9325_12_the_revocation_lists_must_be_lists() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut params = rcgen::CertificateParams::new(["ca.test".to_owned()]).expect("a name");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    fs::write(folder.path().join("ca.pem"), params.self_signed(&key).expect("a certificate").pem()).expect("written");
    let crl_file = folder.path().join("crl.pem");
    let line = format!("crl_file = \"{}\"", crl_file.display());
    let init = ["init", "--force", "--state", "state", "--push-service", URL, "--ca-file", "ca.pem"];
    assert_eq!(fieldgate(folder.path(), &init).code, 0);
    let text: Vec<String> = config(folder.path())
        .lines()
        .map(|it| if it.starts_with("# crl_file = ") { line.clone() } else { it.to_owned() })
        .collect();
    let place = format!(":{}: push_service.crl_file: ", 1 + text.iter().position(|it| *it == line).expect("it is set"));
    fs::write(folder.path().join("fieldgate.toml"), text.join("\n")).expect("written");
    for (content, told) in [
        (None, "cannot be read"),
        (Some(&b""[..]), "holds no revocation list"),
        (Some(b"-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"), "is damaged"),
        (Some(&vec![b'\n'; CRL_FILE_BYTES_MAX + 1]), "is larger than"),
    ] {
        if let Some(content) = content {
            fs::write(&crl_file, content).expect("it is ours");
        }
        for command in ["check", "run"] {
            let ran = fieldgate(folder.path(), &[command]);
            assert!(ran.code == 2 && ran.err.contains(&place) && ran.err.contains(told), "{command}: {}", ran.err);
        }
    }
    let issuer = rcgen::Issuer::new(params, key);
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2024, 1, 1),
        next_update: rcgen::date_time_ymd(2024, 2, 1),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: vec![],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    fs::write(&crl_file, list.signed_by(&issuer).expect("a list").pem().expect("PEM")).expect("it is ours");
    assert_eq!(fieldgate(folder.path(), &["check"]).out, "ok\n");
}

/// A-UA-43: a state folder that others may enter is an error, unless opening it puts that right.
#[test]
fn the_state_folder_must_be_usable() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    assert_eq!(fieldgate(folder.path(), &["init", "--state", "state", "--push-service", URL]).code, 0);
    let _gateway = Store::open(&state).expect("a running gateway is no obstacle");
    assert_eq!(fieldgate(folder.path(), &["check"]).out, "ok\n");
    let other = folder.path().join("other");
    fs::create_dir(&other).expect("it is ours");
    fs::write(other.join("thing"), "").expect("it is ours");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).expect("it is ours");
    for (name, told) in [("other", "chmod 700"), ("fieldgate.toml", "is no folder")] {
        let text = config(folder.path())
            .replace(&format!("{}\"", state.display()), &format!("{}\"", folder.path().join(name).display()));
        fs::write(folder.path().join("other.toml"), text).expect("it is ours");
        let checked = fieldgate(folder.path(), &["check", "--config", "other.toml"]);
        assert!(checked.code == 2 && checked.err.contains("other.toml:4: state: "), "{}", checked.err);
        assert!(checked.err.contains(told), "{}", checked.err);
    }
}

/// What announcements need is looked at where it is named: certificates, a credential that others cannot read, a folder.
#[test]
fn what_announcements_need_must_be_usable() {
    let folder = tempfile::tempdir().expect("a folder");
    let init = ["init", "--force", "--state", "state", "--push-service", URL];
    assert_eq!(fieldgate(folder.path(), &init).code, 0);
    let plain = config(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (name, mode) in [("token", 0o600), ("open-token", 0o644), ("file", 0o600)] {
        fs::write(path(name), "token").expect("written");
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).expect("it is ours");
    }
    fs::create_dir(path("app")).expect("made");
    fs::set_permissions(path("app"), fs::Permissions::from_mode(0o755)).expect("it is ours");
    fs::write(path("app/d1.json"), "[]").expect("written");
    let url = "url = \"https://app.example/\"";
    for (table, told) in [
        (format!("{url}\nca_file = \"{}\"", path("none.pem")), Some("announce.ca_file: ")),
        (format!("{url}\nca_file = \"{}\"", path("token")), Some("announce.ca_file: ")),
        (format!("{url}\ncredential_file = \"{}\"", path("none")), Some("announce.credential_file: ")),
        (format!("{url}\ncredential_file = \"{}\"", path("open-token")), Some("announce.credential_file: ")),
        (format!("folder = \"{}\"", path("file")), Some("announce.folder: ")),
        (format!("{url}\ncredential_file = \"{}\"", path("token")), None),
        (format!("folder = \"{}\"", path("app")), None),
    ] {
        fs::write(path("fieldgate.toml"), format!("{plain}\n[announce]\n{table}\n")).expect("written");
        let checked = fieldgate(folder.path(), &["check"]);
        match told {
            Some(told) => assert!(checked.code == 2 && checked.err.contains(told), "{table}: {}", checked.err),
            None => assert_eq!((checked.code, checked.out.as_str()), (0, "ok\n"), "{table}: {}", checked.err),
        }
    }
}

#[test]
fn a_serial_port_that_is_missing_is_only_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(fieldgate(folder.path(), &["init", "--state", "state", "--push-service", URL]).code, 0);
    let text = config(folder.path()) + "[[device]]\nid = \"a\"\nlink = \"serial:/dev/fieldgate-test-absent\"\n";
    let line = text.lines().count();
    fs::write(folder.path().join("fieldgate.toml"), text).expect("it is ours");
    let checked = fieldgate(folder.path(), &["check"]);
    assert_eq!((checked.code, checked.out.as_str()), (0, "ok\n"));
    let expected =
        format!("warning: fieldgate.toml:{line}: device[0].link: there is no /dev/fieldgate-test-absent now");
    assert!(checked.err.starts_with(&expected), "{}", checked.err);
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn fieldgate(folder: &Path, args: &[&str]) -> Ran {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_fieldgate")).args(args).current_dir(folder).output().expect("it runs");
    let text = |octets| String::from_utf8(octets).expect("text");
    Ran { code: status.code().expect("it ended by itself"), out: text(stdout), err: text(stderr) }
}

fn config(folder: &Path) -> String {
    fs::read_to_string(folder.join("fieldgate.toml")).expect("it is there")
}
