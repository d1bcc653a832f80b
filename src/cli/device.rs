//! `fieldgate device`: the devices of a running gateway.

use std::time::Duration;

use clap::Subcommand;
use serde_json::Value;

use super::control::Socket;
use super::{Failure, Outcome, say};
use crate::config::{self, MTU_DEFAULT};
use crate::control::Request;
use crate::limits::HOLD_FOR_SLEEP_DEFAULT;
use crate::proto::device::{Isolation, LinkOptions, Options, PendingAcks, Undeliverable};
use crate::webpush::vapid::ApplicationServerKey;
use crate::wire::ChannelId;

/// Arguments of `fieldgate device`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    fieldgate device add meter-7 --link 'serial:/dev/ttyUSB0?baud=115200'\n  \
    fieldgate device show meter-7 --json > meter-7.json\n  \
    fieldgate device list\n  \
    fieldgate device remove meter-7")]
pub struct Args {
    #[command(flatten)]
    socket: Socket,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Take up a device for good
    Add {
        /// Its id: 1 to 32 characters of A-Z a-z 0-9 . _ -
        id: String,
        /// Its link: serial:/dev/PORT?baud=N, unix:/PATH or tcp:127.0.0.1:PORT
        #[arg(long)]
        link: String,
        /// A channel, a subscription of its own; may be given several times
        #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
        channel: Vec<u16>,
        /// Octets of the largest frame on its link
        #[arg(long, value_name = "OCTETS", default_value_t = MTU_DEFAULT)]
        mtu: u16,
        /// The name of the push service for it, instead of the first one
        #[arg(long, value_name = "NAME")]
        push_service: Option<String>,
        /// Keep its subscriptions apart: in a set of their own, or on a connection of their own
        #[arg(long, value_name = "set|connection", value_parser = config::isolation)]
        isolated: Option<Isolation>,
        /// The VAPID public key of the one application server that may send to it
        #[arg(long, value_name = "KEY")]
        application_server_key: Option<ApplicationServerKey>,
        /// When what it has acknowledged is written to flash: when the push service does not answer, or always first
        #[arg(long, value_name = "auto|flash", value_parser = config::pending_acks, default_value = "auto")]
        pending_acks: PendingAcks,
        /// Messages a minute beyond which a subscription is ended; no limit if none is named
        #[arg(long, value_name = "N")]
        flood_per_minute: Option<u32>,
        /// What is done about a message that cannot be decrypted or is too long for the device
        #[arg(long, value_name = "keep|acknowledge", value_parser = config::undeliverable, default_value = "keep")]
        undeliverable: Undeliverable,
        /// Messages that are kept for it while it sleeps
        #[arg(long, value_name = "N", default_value_t = HOLD_FOR_SLEEP_DEFAULT)]
        hold_for_sleep: u8,
        /// A channel whose messages overtake others; may be given several times
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        urgent_channel: Vec<u16>,
    },
    /// List the devices
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what an application server needs to send to a device: a capability, keep it secret
    Show {
        /// The id of the device
        id: String,
        /// The channel; its lowest one if none is named
        #[arg(long, value_name = "N")]
        channel: Option<u16>,
        /// Print the PushSubscription as JSON, for Web Push libraries
        #[arg(long)]
        json: bool,
        /// Wait so many seconds for a subscription that is yet to be made
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        wait: u64,
    },
    /// Remove a device and its subscriptions
    Remove {
        /// The id of the device
        id: String,
    },
    /// Ask the push service for what it stores for a device
    Fetch {
        /// The id of the device
        id: String,
    },
    /// Give a device other push URIs and keys; the old ones work for a minute more
    Rotate {
        /// The id of the device
        id: String,
        /// This channel only
        #[arg(long, value_name = "N")]
        channel: Option<u16>,
    },
}

/// Runs the command.
///
/// # Errors
/// What the gateway says, or that it cannot be asked.
pub fn run(args: Args) -> Outcome {
    let Args { socket, action } = args;
    match action {
        Action::Add {
            id,
            link,
            channel,
            mtu,
            push_service,
            isolated,
            application_server_key,
            pending_acks,
            flood_per_minute,
            undeliverable,
            hold_for_sleep,
            urgent_channel,
        } => {
            let urgent_channels = urgent_channel.into_iter().map(ChannelId).collect();
            let link_options = LinkOptions { hold_for_sleep, urgent_channels };
            let channels = channel.iter().copied().map(ChannelId).collect();
            let options = Options {
                push_service,
                isolated: isolated.unwrap_or_default(),
                application_server_key,
                pending_acks,
                flood_per_minute,
                link: link_options.clone(),
                undeliverable,
            };
            config::device(&id, &link, channels, mtu, options.clone())
                .map_err(|(key, problem)| Failure::usage(format_args!("{}: {problem}", argument(key))))?;
            socket.ask(&Request::DeviceAdd { id: id.clone(), link, channels: channel, mtu, options, link_options })?;
            say(format_args!("added {id}"))?;
        }
        Action::List { json } => list(&socket.ask(&Request::DeviceList)?, json)?,
        Action::Show { id, channel, json, wait } => {
            let subscription = show(&socket, &id, channel, Duration::from_secs(wait))?;
            if json {
                say(subscription)?;
            } else {
                say(format_args!("endpoint  {}", text(&subscription["endpoint"])))?;
                say(format_args!("p256dh    {}", text(&subscription["keys"]["p256dh"])))?;
                say(format_args!("auth      {}", text(&subscription["keys"]["auth"])))?;
            }
        }
        Action::Remove { id } => {
            socket.ask(&Request::DeviceRemove { id: id.clone() })?;
            say(format_args!("removed {id}"))?;
        }
        Action::Fetch { id } => {
            socket.ask(&Request::DeviceFetch { id })?;
        }
        Action::Rotate { id, channel } => {
            socket.ask(&Request::DeviceRotate { id: id.clone(), channel })?;
            say(format_args!("{id} gets other push URIs; see fieldgate device show {id}"))?;
        }
    }
    Ok(())
}

/// How the command line names a setting of a device.
fn argument(key: &'static str) -> &'static str {
    match key {
        "link" => "--link",
        "channels" => "--channel",
        "mtu" => "--mtu",
        "flood_per_minute" => "--flood-per-minute",
        "hold_for_sleep" => "--hold-for-sleep",
        "urgent_channels" => "--urgent-channel",
        other => other,
    }
}

fn show(socket: &Socket, id: &str, channel: Option<u16>, wait: Duration) -> Result<Value, Failure> {
    let subscription = socket.ask_until(&Request::DeviceShow { id: id.to_owned(), channel }, wait)?;
    if subscription.is_null() {
        let advice = "see fieldgate status, or wait with --wait SECONDS";
        return Err(Failure::failed(format_args!("{id} has no subscription yet; {advice}")));
    }
    Ok(subscription)
}

fn list(devices: &Value, json: bool) -> Outcome {
    if json {
        return say(devices);
    }
    for device in devices.as_array().into_iter().flatten() {
        let channels: Vec<String> = device["channels"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|channel| {
                let (number, state) = (&channel["channel"], text(&channel["state"]));
                channel["push"].as_str().map_or(format!("{number} {state}"), |push| format!("{number} {state} {push}"))
            })
            .collect();
        let (id, presence, link) = (text(&device["id"]), text(&device["presence"]), text(&device["link"]));
        say(format_args!("{id:<16} {presence:<8} {link:<40} {}", channels.join(", ")))?;
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
