//! `fieldgate service`.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use sd_notify::NotifyState;

use super::manager::notify;
use super::{Failure, Outcome, block_on, check, say, terminated};
use crate::config::service::{ServiceConfig, address, host_name};
use crate::service::alternative::Alternative;
use crate::service::{PORT, Service, ServiceOptions};
use crate::transport::credential::Credential;

mod expire;

/// Arguments of `fieldgate service`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Say what is wrong with a configuration of the push service
    Check(CheckArgs),
    Expire(expire::Args),
}

#[derive(clap::Args)]
struct CheckArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(clap::Args)]
struct Options {
    /// Configuration file; what is said here counts more
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on, with or without a port (443 if there is none) [default: [::]:443]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    listen: Option<SocketAddr>,
    /// Listen there as well, and tell gateways so; without a value on port 1001, the one of Web Push
    #[arg(long, value_name = "[HOST:]PORT|webpush", num_args = 0..=1, default_missing_value = "webpush")]
    alternative: Option<Alternative>,
    /// Folder that holds subscriptions, messages and keys; created if needed
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Host name under which gateways and application servers reach the service
    #[arg(long, value_name = "HOST", value_parser = host_name)]
    name: Option<String>,
}

/// Runs a push service until it is told to stop, or does what the subcommand says.
///
/// # Errors
/// The service did not start, standard output is closed, or what the subcommand says.
pub fn run(args: Args) -> Outcome {
    match args.command {
        None => serve(args.options),
        Some(Command::Check(args)) => check_configuration(&args.config),
        Some(Command::Expire(args)) => expire::run(args),
    }
}

fn serve(options: Options) -> Outcome {
    let options = service_options(options)?;
    block_on(async {
        let terminated = terminated()?;
        let folder = options.state.clone();
        let mut running = Service::start(options).await.map_err(Failure::failed)?;
        let (control, operator) = (expire::listen(&folder), running.operator());
        say(format_args!("listening {} ca={}", running.url, running.ca_file.display()))?;
        if let Some(address) = running.alternative {
            say(format_args!("alternative {address}"))?;
        }
        notify(&[NotifyState::Ready]);
        tokio::select! {
            () = terminated => running.stop().await,
            () = running.failed() => {
                return Err(Failure::failed("the store failed, see above; start the service again"));
            }
            () = expire::obey(control, operator) => {}
        }
        Ok(())
    })
}

/// What the command line says, and otherwise the configuration.
fn service_options(options: Options) -> Result<ServiceOptions, Failure> {
    let config = configuration(options.config.as_deref())?;
    let state = state_folder(options.state, config.state)?;
    let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
    let listen = options.listen.or(config.listen).unwrap_or(everywhere);
    Ok(ServiceOptions {
        alternative: options.alternative.or(config.alternative),
        name: options.name.or(config.name),
        policy: config.policy,
        rules: config.rules,
        subscribe_token_file: config.subscribe_token_file,
        ..ServiceOptions::new(listen, state)
    })
}

fn configuration(path: Option<&Path>) -> Result<ServiceConfig, Failure> {
    path.map_or_else(|| Ok(ServiceConfig::default()), |path| check::load_with(path, ServiceConfig::parse))
}

fn state_folder(said: Option<PathBuf>, configured: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let missing = "no folder for the state; name one with --state <DIR>, or with state in the file of --config";
    said.or(configured).ok_or_else(|| Failure::usage(missing))
}

fn check_configuration(path: &Path) -> Outcome {
    let config = configuration(Some(path))?;
    let state = config.state.as_deref().map_or(Ok(()), check::check_state);
    let token = config.subscribe_token_file.as_deref().map_or(Ok(()), |file| Credential::read(file).map(drop));
    let checks = [("state", state), ("subscribe_token_file", token.map_err(|error| error.to_string()))];
    let told = |(key, checked): (&str, Result<(), String>)| {
        checked.err().map(|error| format!("{}: {error}", check::place(path, key)))
    };
    let errors: Vec<String> = checks.into_iter().filter_map(told).collect();
    if errors.is_empty() { say("ok") } else { Err(check::unusable(&errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A-ALL-09, A-PS-03: without a value the other place is port 1001; without the option there is none.
    #[test]
    fn a_all_09_the_other_place_is_port_1001_by_default() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            options: Options,
        }
        let read = |more: &[&str]| {
            let line = ["service", "--state", "s"].iter().chain(more);
            let line = <Line as clap::Parser>::try_parse_from(line);
            line.map(|line| line.options.alternative).map_err(|error| error.kind())
        };
        let at = |port| Ok(Some(Alternative { ip: None, port }));
        assert_eq!((read(&[]), read(&["--alternative"])), (Ok(None), at(1001)));
        assert_eq!((read(&["--alternative", "webpush"]), read(&["--alternative", ":8444"])), (at(1001), at(8444)));
        assert_eq!(read(&["--alternative", "web"]), Err(clap::error::ErrorKind::ValueValidation));
    }

    /// A-PS-02: where nothing says otherwise, it is the port of https; a file counts, and the command line counts more.
    #[test]
    fn the_command_line_counts_more_than_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("service.toml");
        std::fs::write(&file, "listen = \"127.0.0.1\"\nname = \"a.example\"\nstate = \"/file\"\n").expect("written");
        let of = |config: Option<&Path>, listen: Option<&str>, state: Option<&str>| {
            let listen = listen.map(|text| address(text).expect("an address"));
            let config = config.map(Path::to_owned);
            let state = state.map(PathBuf::from);
            let options = service_options(Options { config, listen, alternative: None, state, name: None });
            options.map(|options| (options.listen.to_string(), options.name, options.state))
        };
        let name = Some("a.example".to_owned());
        assert_eq!(of(None, None, Some("s")).expect("it is enough"), ("[::]:443".to_owned(), None, "s".into()));
        let from_file = of(Some(&file), None, None).expect("it is enough");
        assert_eq!(from_file, ("127.0.0.1:443".to_owned(), name.clone(), "/file".into()));
        let said = of(Some(&file), Some("127.0.0.2:1"), Some("s")).expect("it is enough");
        assert_eq!(said, ("127.0.0.2:1".to_owned(), name, "s".into()));
        assert_eq!(of(None, None, None).expect_err("no folder").code, 2);
    }
}
