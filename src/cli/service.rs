//! `fieldgate service`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use sd_notify::NotifyState;

use super::manager::notify;
use super::{Failure, Outcome, block_on, say, terminated};
use crate::service::alternative::Alternative;
use crate::service::{PORT, Service, ServiceOptions};

/// Arguments of `fieldgate service`.
#[derive(clap::Args)]
pub struct Args {
    /// Address to listen on, with or without a port (443 if there is none)
    #[arg(long, value_name = "ADDR", default_value_t = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)), value_parser = address)]
    listen: SocketAddr,
    /// Listen there as well, and tell gateways so; without a value on port 1001, the one of Web Push
    #[arg(long, value_name = "[HOST:]PORT|webpush", num_args = 0..=1, default_missing_value = "webpush")]
    alternative: Option<Alternative>,
    /// Folder that holds subscriptions, messages and keys; created if needed
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Host name under which gateways and application servers reach the service
    #[arg(long, value_name = "HOST", value_parser = host_name)]
    name: Option<String>,
}

/// Runs a push service until it is told to stop.
///
/// # Errors
/// The service did not start, or standard output is closed.
pub fn run(args: Args) -> Outcome {
    block_on(async {
        let terminated = terminated()?;
        let Args { listen, alternative, state, name } = args;
        let options = ServiceOptions { name, alternative, ..ServiceOptions::new(listen, state) };
        let mut running = Service::start(options).await.map_err(Failure::failed)?;
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
        }
        Ok(())
    })
}

/// Reads a name that a certificate can carry: without port, scheme or path.
fn host_name(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        let allowed = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(is_label) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("not a host name, such as push.example.net; without port, scheme or path".to_owned())
    }
}

/// Reads an address with or without a port.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .or_else(|_| text.trim_matches(['[', ']']).parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT)))
        .map_err(|_| "not an IP address, with or without a port, such as 0.0.0.0 or [::]:8443".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_names_are_names() {
        for good in ["localhost", "push.example.net", "192.0.2.1", "a-b.c"] {
            assert_eq!(host_name(good).as_deref(), Ok(good));
        }
        for bad in ["", "push.example.net:8443", "https://a", "::1", "a b", "*.example", "a.", "-a", "a..b"] {
            assert!(host_name(bad).is_err(), "{bad}");
        }
    }

    /// A-ALL-09, A-PS-03: without a value the other place is port 1001; without the option there is none.
    #[test]
    fn a_all_09_the_other_place_is_port_1001_by_default() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let read = |more: &[&str]| {
            let line = ["service", "--state", "s"].iter().chain(more);
            <Line as clap::Parser>::try_parse_from(line).map(|line| line.args.alternative).map_err(|error| error.kind())
        };
        let at = |port| Ok(Some(Alternative { ip: None, port }));
        assert_eq!((read(&[]), read(&["--alternative"])), (Ok(None), at(1001)));
        assert_eq!((read(&["--alternative", "webpush"]), read(&["--alternative", ":8444"])), (at(1001), at(8444)));
        assert_eq!(read(&["--alternative", "web"]), Err(clap::error::ErrorKind::ValueValidation));
    }

    /// A-PS-02: without a port it is that of https.
    #[test]
    fn a_ps_02_addresses_without_a_port_get_443() {
        let at = |text| address(text).map(|address| address.to_string());
        assert_eq!(at("127.0.0.1"), Ok("127.0.0.1:443".to_owned()));
        assert_eq!(at("127.0.0.1:0"), Ok("127.0.0.1:0".to_owned()));
        assert_eq!(at("::1"), Ok("[::1]:443".to_owned()));
        assert_eq!(at("[::1]"), Ok("[::1]:443".to_owned()));
        assert_eq!(at("[::]:8443"), Ok("[::]:8443".to_owned()));
        assert!(address("localhost").is_err());
    }
}
