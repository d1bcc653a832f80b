//! `fieldgate status` and `fieldgate connections`: a running gateway at a glance.

use serde_json::Value;

use super::control::Socket;
use super::time::date;
use super::{Outcome, say};
use crate::control::Request;

/// Arguments of `fieldgate status` and `fieldgate connections`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  fieldgate status\n  fieldgate status --json | jq .counters")]
pub struct Args {
    #[command(flatten)]
    socket: Socket,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `fieldgate status`.
///
/// # Errors
/// The gateway cannot be asked.
pub fn run(args: Args) -> Outcome {
    let status = args.socket.ask(&Request::Status)?;
    if args.json {
        return say(status);
    }
    say(format_args!("push service  {} ({})", text(&status["service"]), text(&status["uplink"])))?;
    say_alternatives(&status["alternatives"])?;
    for other in status["others"].as_array().into_iter().flatten() {
        let whose = other["isolated"].as_str().map(|device| format!(", {device} alone")).unwrap_or_default();
        let moved = if other["is_configured"] == false { ", sent on to" } else { "" };
        say(format_args!("              {} ({}{whose}{moved})", text(&other["service"]), text(&other["uplink"])))?;
        say_alternatives(&other["alternatives"])?;
    }
    if status["needs_person"] == true {
        say(format_args!("attention     {} trouble: waiting will not mend it", text(&status["trouble"])))?;
    }
    for (key, label) in [("last_error", "last error"), ("state_warning", "state"), ("configuration", "configuration")] {
        if let Some(reason) = status[key].as_str() {
            say(format_args!("{label:<13} {reason}"))?;
        }
    }
    say_announcements(&status["announcements"], status["announcement_error"].as_str())?;
    if status["uplink"] == "displaced" {
        say("attention     another gateway has the identity of this one: stop one, and empty its state folder")?;
    }
    if status["time"]["synchronised"] == false {
        let at = date(&status["time"]["certificates"]);
        say(format_args!("clock         not synchronised: certificates are judged at {at}; see fieldgate time"))?;
    }
    let network = if status["metered"] == true { "metered" } else { "unmetered" };
    let (urgency, power) = (text(&status["urgency"]), text(&status["power"]));
    say(format_args!("urgency       {urgency} and more is wanted (power: {power}; network: {network})"))?;
    for flooded in status["flooded"].as_array().into_iter().flatten() {
        let (device, channel) = (text(&flooded[0]), &flooded[1]);
        let next = format!("fieldgate device rotate {device} --channel {channel}");
        say(format_args!("flood         {device}, channel {channel}, ended; to subscribe again: {next}"))?;
    }
    say(format_args!("running       {} s, {} messages in flight", status["uptime_s"], status["in_flight"]))?;
    for device in status["devices"].as_array().into_iter().flatten() {
        say(format_args!("device        {:<16} {}", text(&device["id"]), text(&device["presence"])))?;
    }
    let octets: Vec<String> = status["octets"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(cause, octets)| format!("{octets} for {}", cause.replace('_', " ")))
        .collect();
    say(format_args!("octets        {}", octets.join(", ")))?;
    say_flash(&status["flash"])?;
    for (name, count) in status["counters"].as_object().into_iter().flatten() {
        say(format_args!("{name:<13} {count}"))?;
    }
    Ok(())
}

/// Runs `fieldgate connections`.
///
/// # Errors
/// The gateway cannot be asked.
pub fn connections(args: Args) -> Outcome {
    let connections = args.socket.ask(&Request::Connections)?;
    if args.json {
        return say(connections);
    }
    let upstream = &connections["upstream"];
    let remotes: Vec<&str> = upstream["remotes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let remotes = if remotes.is_empty() { "-".to_owned() } else { remotes.join(", ") };
    say(format_args!(
        "{:<40} {:<14} {:<12} {remotes}",
        text(&upstream["service"]),
        text(&upstream["stack"]),
        text(&upstream["state"])
    ))?;
    say_alternatives(&upstream["alternatives"])?;
    for link in connections["links"].as_array().into_iter().flatten() {
        say(format_args!("{:<40} {:<14} {}", text(&link["endpoint"]), text(&link["device"]), text(&link["state"])))?;
    }
    Ok(())
}

/// The other places of the push service, and why one is not used.
fn say_alternatives(alternatives: &Value) -> Outcome {
    for alternative in alternatives.as_array().into_iter().flatten() {
        let why = alternative["trouble"].as_str().map(|trouble| format!(", {trouble}")).unwrap_or_default();
        say(format_args!("alternative   {} ({}{why})", text(&alternative["service"]), text(&alternative["state"])))?;
    }
    Ok(())
}

/// What an application server knows, and why it does not know more.
fn say_announcements(counts: &Value, error: Option<&str>) -> Outcome {
    let [due, accepted, rejected, forgotten] = ["due", "accepted", "rejected", "forgotten"].map(|key| &counts[key]);
    if *due != 0 || *accepted != 0 {
        say(format_args!("announced     {accepted} subscriptions are known to the application server, {due} are due"))?;
    }
    if let Some(error) = error {
        say(format_args!("              the last one was not accepted: {error}"))?;
    }
    if *rejected != 0 {
        say(format_args!("attention     the application server does not want {rejected} of them: ask who runs it"))?;
    }
    if *forgotten != 0 {
        say(format_args!(
            "attention     {forgotten} ends of subscriptions were never accepted: tell who runs the server"
        ))?;
    }
    Ok(())
}

/// What is written to flash, and what for.
fn say_flash(flash: &Value) -> Outcome {
    say(format_args!("flash         {} octets today, of {} a day", flash["today"], flash["per_day"]))?;
    for (cause, wear) in flash["causes"].as_object().into_iter().flatten() {
        say(format_args!("              {} for {cause}, in {} syncs", wear["octets"], wear["syncs"]))?;
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
