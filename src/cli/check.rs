//! `fieldgate check`: says what is wrong with a configuration, and with the files it names, before anything starts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Failure, Outcome, complain, say};
use crate::config::{self, Announce, Config, ConfigError, Problem};
use crate::limits::CONFIG_BYTES_MAX;
use crate::store::file;
use crate::transport::credential::Credential;
use crate::transport::endpoint::LinkEndpoint;
use crate::transport::properties::Trust;
use crate::transport::trust;

/// The configuration file in the working folder, which comes first when none is named.
pub const CONFIG_FILE: &str = "fieldgate.toml";
/// The configuration file of the system, which comes next.
pub const SYSTEM_CONFIG_FILE: &str = "/etc/fieldgate/fieldgate.toml";

/// Arguments of `fieldgate check`.
#[derive(clap::Args)]
pub struct Args {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value_os_t = config_file())]
    config: PathBuf,
}

/// The configuration file when none is named.
pub fn config_file() -> PathBuf {
    let is_installed = !Path::new(CONFIG_FILE).exists() && Path::new(SYSTEM_CONFIG_FILE).exists();
    PathBuf::from(if is_installed { SYSTEM_CONFIG_FILE } else { CONFIG_FILE })
}

/// Runs the command.
///
/// # Errors
/// The configuration or a file that it names cannot be used.
pub fn run(args: Args) -> Outcome {
    let config = load(&args.config)?;
    let place = |key: &str| place(&args.config, key);
    for (key, warning) in warnings(&config) {
        complain(format_args!("warning: {}: {warning}", place(&key)));
    }
    let errors: Vec<String> =
        file_errors(&config).into_iter().map(|(key, error)| format!("{}: {error}", place(&key))).collect();
    if !errors.is_empty() {
        return Err(unusable(&errors));
    }
    say("ok")
}

/// Reads and checks a configuration file.
///
/// # Errors
/// It cannot be read, or something in it is wrong; everything that is, with its line.
pub fn load(path: &Path) -> Result<Config, Failure> {
    load_with(path, Config::parse)
}

/// Where a setting is, as errors name it: file, line and key.
pub fn place(path: &Path, key: &str) -> String {
    // The file was readable a moment ago; without it the key alone has to do.
    let line = read_text(path).map_or(1, |text| config::line_of(&text, key));
    format!("{}:{line}: {key}", path.display())
}

/// Reads and checks a configuration file by whoever knows what is to be in it.
///
/// # Errors
/// It cannot be read, or something in it is wrong; everything that is, with its line.
pub fn load_with<T>(path: &Path, parse: impl FnOnce(&str) -> Result<T, Vec<ConfigError>>) -> Result<T, Failure> {
    let place = |error: &ConfigError| format!("{}:{error}", path.display());
    parse(&read_text(path)?).map_err(|errors| unusable(&errors.iter().map(place).collect::<Vec<_>>()))
}

/// What is said of a configuration with errors.
pub fn unusable(errors: &[String]) -> Failure {
    let count = if errors.len() == 1 { "an error".to_owned() } else { format!("{} errors", errors.len()) };
    Failure::usage(format_args!("the configuration has {count}\n{}", errors.join("\n")))
}

fn read_text(path: &Path) -> Result<String, Failure> {
    let octets = read_bounded(path, CONFIG_BYTES_MAX).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "name another file with --config, or make one with: fieldgate init",
            io::ErrorKind::PermissionDenied => "let this user read it",
            _ => "it must be a file that this user may read",
        };
        Failure::usage(format_args!("cannot read the configuration {}: {error}; {advice}", path.display()))
    })?;
    String::from_utf8(octets).map_err(|error| {
        let line =
            1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|&&octet| octet == b'\n').count();
        let problem = Problem::Syntax("octets that are not UTF-8".to_owned());
        unusable(&[format!("{}:{}", path.display(), ConfigError { line, key: String::new(), problem })])
    })
}

/// Reads a file, or one octet more than `bytes_max` of it, which whoever parses it then refuses.
///
/// # Errors
/// What the file system says.
pub fn read_bounded(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    File::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut octets)?;
    Ok(octets)
}

fn file_errors(config: &Config) -> Vec<(String, String)> {
    let mut errors = Vec::new();
    if let Err(error) = check_state(&config.state) {
        errors.push(("state".to_owned(), error));
    }
    for (index, service) in config.push_services().enumerate() {
        let mut refuse = |key, error| errors.push((config.push_service_key(index, key), error));
        if let Err((key, error)) = check_files(service.ca_file.as_deref(), service.crl_file.as_deref()) {
            refuse(key, error);
        }
        if let Some(Err(error)) = service.credential_file.as_deref().map(Credential::read) {
            refuse("credential_file", error.to_string());
        }
    }
    errors.extend(config.announce.as_ref().and_then(|announce| check_announce(announce).err()));
    errors
}

fn check_announce(announce: &Announce) -> Result<(), (String, String)> {
    let refuse = |key: &str, error: String| Err((format!("announce.{key}"), error));
    match announce {
        // Its files are closed to others, whoever may look into it.
        Announce::Folder(folder) => check_folder(folder).or_else(|error| refuse("folder", error)),
        Announce::Post { ca_file, credential_file, .. } => {
            if let Err((key, error)) = check_files(ca_file.as_deref(), None) {
                return refuse(key, error);
            }
            match credential_file.as_deref().map(Credential::read) {
                Some(Err(error)) => refuse("credential_file", error.to_string()),
                _ => Ok(()),
            }
        }
    }
}

/// The state folder must be closed to others as well, if it is there.
pub fn check_state(folder: &Path) -> Result<(), String> {
    check_folder(folder)?;
    if !folder.exists() {
        return Ok(());
    }
    let unusable = |error| not_usable(folder, &error);
    let mode = file::mode(folder).map_err(unusable)?;
    if !file::may_close(folder).map_err(unusable)? && mode & file::OTHERS != 0 {
        return Err(format!("{} has mode {mode:04o} and would hold secrets; run: chmod 700 {0}", folder.display()));
    }
    Ok(())
}

/// A folder that is missing will be made; one that is there must be writable.
fn check_folder(folder: &Path) -> Result<(), String> {
    if !folder.exists() {
        return Ok(());
    }
    if !folder.is_dir() {
        return Err(format!("{} is no folder; name another one", folder.display()));
    }
    let unusable = |error| not_usable(folder, &error);
    let probe = folder.join(".fieldgate-check");
    OpenOptions::new().write(true).create(true).truncate(true).open(&probe).map_err(unusable)?;
    fs::remove_file(&probe).map_err(unusable)
}

fn not_usable(folder: &Path, error: &io::Error) -> String {
    format!("{} cannot be used: {error}; let this user write there", folder.display())
}

/// Reads the files that say whom to trust. The system's authorities may still be installed before the start.
fn check_files(ca_file: Option<&Path>, crl_file: Option<&Path>) -> Result<(), (&'static str, String)> {
    if ca_file.is_none() && crl_file.is_none() {
        return Ok(());
    }
    let trust = ca_file.map_or(Trust::System, |file| Trust::File(file.to_owned()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = trust::verifier(&trust, crl_file, provider);
    verifier.map(drop).map_err(|error| {
        let key = if error.is_of_revocations() { "crl_file" } else { "ca_file" };
        (key, error.to_string())
    })
}

/// What may well be right later: devices come and go.
fn warnings(config: &Config) -> Vec<(String, String)> {
    let missing = config.devices.iter().enumerate().filter_map(|(index, device)| match &device.link {
        LinkEndpoint::Serial { path, .. } if !path.exists() => {
            Some((format!("device[{index}].link"), format!("there is no {} now; is it plugged in?", path.display())))
        }
        _ => None,
    });
    missing.collect()
}
