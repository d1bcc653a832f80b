//! `fieldgate init`: a configuration to start from, every key explained, and the state folder.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::check::CONFIG_FILE;
use super::{Failure, Outcome, say};
use crate::config::{Config, push_service_url};
use crate::store::file::create_folder;

const STATE_FOLDER: &str = "/var/lib/fieldgate";

/// Arguments of `fieldgate init`.
#[derive(clap::Args)]
pub struct Args {
    /// Configuration file to write
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    config: PathBuf,
    /// Folder for what outlives power
    #[arg(long, value_name = "DIR", default_value = STATE_FOLDER)]
    state: PathBuf,
    /// URL of the push service, https only
    #[arg(long, value_name = "URL")]
    push_service: Option<String>,
    /// Certificates to verify the push service with, in PEM
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Overwrite the configuration file
    #[arg(long)]
    force: bool,
}

/// Runs the command.
///
/// # Errors
/// The file exists, an argument cannot be used, or the file system says no.
pub fn run(args: Args) -> Outcome {
    if let Some(url) = &args.push_service {
        push_service_url(url).map_err(|error| Failure::usage(format_args!("--push-service: {error}")))?;
    }
    let text = text(&toml_path(&args.state)?, args.push_service.as_deref(), args.ca_file.as_deref())?;
    if !args.force && args.config.exists() {
        return Err(exists(&args.config));
    }
    create_folder(&args.state).map_err(|error| {
        let folder = args.state.display();
        Failure::failed(format_args!("cannot make the folder {folder}: {error}; name another one with --state"))
    })?;
    write(&args.config, &text, args.force)?;
    let file = args.config.display();
    say(format_args!("wrote {file}"))?;
    match Config::parse(&text) {
        Ok(_) => say(format_args!("next: add devices to it, then run: fieldgate check --config {file}")),
        Err(_) => say("next: set the url of the push service in it, and add devices"),
    }
}

fn exists(path: &Path) -> Failure {
    Failure::failed(format_args!("{} exists; overwrite it with --force, or name another with --config", path.display()))
}

/// Writes the whole file or nothing: what was there stays until the new text is safe.
fn write(path: &Path, text: &str, replace: bool) -> Outcome {
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::AlreadyExists if !replace => exists(path),
        _ => {
            let file = path.display();
            Failure::failed(format_args!("cannot write {file}: {error}; name another file with --config"))
        }
    };
    let mut target = path.to_owned();
    if replace {
        target.as_mut_os_string().push(".new");
    }
    let mut options = OpenOptions::new();
    options.write(true).create(replace).truncate(replace).create_new(!replace);
    let mut file = options.open(&target).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    if replace { fs::rename(&target, path).map_err(failed) } else { Ok(()) }
}

/// The configuration of an installed gateway, with every key explained; values are put in its place.
const TEMPLATE: &str = include_str!("../../boards/debian/fieldgate.toml");

fn text(state: &str, url: Option<&str>, ca_file: Option<&Path>) -> Result<String, Failure> {
    let url = url.map(toml_text);
    let ca_file = ca_file.map(toml_path).transpose()?;
    let mut table = "";
    let mut text = String::new();
    for line in TEMPLATE.lines() {
        let plain = line.trim_start_matches("# ");
        if plain.starts_with('[') {
            table = plain;
        }
        text += &match (table, plain.split_once(" = ")) {
            ("", Some(("state", _))) => format!("state = {state}\n"),
            // Its default is in the state folder, which is there.
            ("", Some(("control", socket))) => format!("# control = {socket}\n"),
            ("[push_service]", Some(("url", example))) => setting("url", url.as_deref(), example),
            ("[push_service]", Some(("ca_file", example))) => setting("ca_file", ca_file.as_deref(), example),
            _ => format!("{line}\n"),
        };
    }
    Ok(text)
}

/// A setting, or an example of it that is commented out.
fn setting(key: &str, value: Option<&str>, example: &str) -> String {
    value.map_or_else(|| format!("# {key} = {example}\n"), |value| format!("{key} = {value}\n"))
}

fn toml_path(path: &Path) -> Result<String, Failure> {
    let absolute = std::path::absolute(path)
        .map_err(|error| Failure::usage(format_args!("the path {} cannot be used: {error}", path.display())))?;
    let text = absolute
        .to_str()
        .ok_or_else(|| Failure::usage(format_args!("the path {} is not UTF-8; name another", path.display())))?;
    Ok(toml_text(text))
}

/// A basic string of TOML.
fn toml_text(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if control.is_control() => out.push_str(&format!("\\U{:08X}", u32::from(control))),
            plain => out.push(plain),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read_back() {
        let url = "https://push.example.net/subscribe";
        for path in ["/var/lib/fieldgate", "/with \"quotes\" and \\", "/with\ttab and\u{1}", "/ü"] {
            let text = text(&toml_text(path), Some(url), Some(Path::new(path))).unwrap();
            let config = Config::parse(&text).expect(path);
            assert_eq!(config.state, Path::new(path));
            assert_eq!(config.push_service.ca_file.as_deref(), Some(Path::new(path)));
            assert_eq!(config.push_service.url, url);
        }
    }

    #[test]
    fn what_is_commented_out_works_when_it_is_not() {
        let text = text(&toml_text("/s"), None, None).unwrap();
        let keys = |line: &str| line.contains(" = ") || line.starts_with('[');
        let uncommented: String = text
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(setting) if keys(setting) => format!("{setting}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let config = Config::parse(&uncommented).expect("every example is right");
        assert!(config.devices.len() == 1 && config.push_service.ca_file.is_some());
    }
}
