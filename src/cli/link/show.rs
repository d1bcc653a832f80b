//! One line for each thing that passed.
//!
//! Contents, push URIs and keys are secrets of others: they are shown only to who asks for them.

use std::fmt;

use super::decode::{Counts, Foreign, Passed};
use crate::cli::simulate::{content, uplink_name};
use crate::time::Duration;
use crate::webpush::base64url;
use crate::wire::frame::{Arrived, Frame, Hello, Stream};
use crate::wire::message::Profile;
use crate::wire::{Role, ToDevice, ToGateway};

/// Numbers that an ack names at most: the newest and the 16 before it.
const BEFORE_COUNT: u8 = 16;

/// The line of something that passed at a time since the start.
pub(super) fn line(at: Duration, passed: &Passed<'_>, payloads: bool) -> String {
    let direction = match passed {
        Passed::Frame { from, .. } | Passed::Message { from, .. } | Passed::MessagesLost { from, .. } => Some(*from),
        Passed::Foreign { from, .. } => *from,
    };
    let direction = match direction {
        Some(Role::Gateway) => "G>D",
        Some(Role::Device) => "D>G",
        None => "  ?",
    };
    format!("{:>4}.{:03} {direction} {}", at.as_secs(), at.subsec_millis(), text(passed, payloads))
}

/// The last line.
pub(super) fn total(counts: Counts) -> String {
    let Counts { frames, messages, checksums, foreign_bytes } = counts;
    format!("{frames} frames, {messages} messages, {checksums} wrong checksums, {foreign_bytes} foreign octets")
}

fn text(passed: &Passed<'_>, payloads: bool) -> String {
    match passed {
        Passed::Frame { frame, is_checked, is_echo, .. } => {
            let unchecked = if *is_checked { "" } else { " (unchecked: no HELLO of both sides yet)" };
            let echo = if *is_echo { " (an echo)" } else { "" };
            format!("{}{unchecked}{echo}", FrameText(frame))
        }
        Passed::Message { from: Role::Gateway, stream, octets } => match ToDevice::parse(octets) {
            Ok(message) => format!("  {}{}", urgent(*stream), to_device(&message, payloads)),
            Err(_) => unknown(octets),
        },
        Passed::Message { from: Role::Device, stream, octets } => match ToGateway::parse(octets) {
            Ok(message) => format!("  {}{}", urgent(*stream), to_gateway(&message)),
            Err(_) => unknown(octets),
        },
        Passed::MessagesLost { stream, .. } => {
            format!("  {}octets are missing: messages are shown again once one begins a frame", urgent(*stream))
        }
        Passed::Foreign { octets, why, .. } => {
            let shown = if payloads { format!(": {}", content(octets).1) } else { String::new() };
            format!("no frame: {} octets, {}{shown}", octets.len(), reason(*why))
        }
    }
}

fn reason(why: Foreign) -> &'static str {
    match why {
        Foreign::TooLong => "longer than any frame",
        Foreign::NotEncoded => "not encoded as a frame",
        Foreign::Checksum => "wrong checksum",
        Foreign::Kind => "unknown kind",
        Foreign::Malformed => "fields that do not fit",
    }
}

fn unknown(octets: &[u8]) -> String {
    let tag = octets.first().map_or_else(String::new, |tag| format!(" with tag {tag:02x}"));
    format!("  no message of version 1{tag}, {} octets", octets.len())
}

fn urgent(stream: Stream) -> &'static str {
    match stream {
        Stream::Ordered => "",
        Stream::Urgent => "urgent ",
    }
}

fn to_device(message: &ToDevice<'_>, payloads: bool) -> String {
    match *message {
        ToDevice::Status { uplink, waiting, time } => {
            let time = if time == 0 { "no time".to_owned() } else { format!("time {time} ms") };
            format!("Status {}, {waiting} waiting, {time}", uplink_name(uplink))
        }
        ToDevice::Push { message, channel, age, body } => {
            let age = age.seconds().map_or_else(|| "age unknown".to_owned(), |seconds| format!("age {seconds} s"));
            let body_text = if payloads { format!(": {}", content(body).1) } else { String::new() };
            format!("Push {message} channel {channel}, {age}, {} octets{body_text}", body.len())
        }
        ToDevice::Subscribed { channel, push, p256dh, auth } if payloads => {
            let push = printable(push);
            format!("Subscribed channel {channel}: {push} p256dh {} auth {}", base64url(p256dh), base64url(auth))
        }
        ToDevice::Subscribed { channel, push, .. } => {
            format!("Subscribed channel {channel}, push URI of {} octets", push.len())
        }
        ToDevice::Refused { channel, reason } => format!("Refused channel {channel}: {reason}"),
        ToDevice::Unsubscribed { channel } => format!("Unsubscribed channel {channel}"),
    }
}

/// Without what would disturb a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

fn to_gateway(message: &ToGateway) -> String {
    match message {
        ToGateway::Attach { device, profile } => {
            let Profile { message_bytes_max, urgent_window, memory, .. } = profile;
            let keeps = if profile.keeps_over_reset() { " over its reset" } else { "" };
            format!("Attach {device}, largest {message_bytes_max}, urgent {urgent_window}, keeps {memory} ids{keeps}")
        }
        ToGateway::Ack { message } => format!("Ack {message}"),
        ToGateway::Refuse { message, reason } => format!("Refuse {message}: {reason}"),
        ToGateway::Subscribe { channel } => format!("Subscribe channel {channel}"),
        ToGateway::Unsubscribe { channel } => format!("Unsubscribe channel {channel}"),
        ToGateway::Rotate { channel } => format!("Rotate channel {channel}"),
        ToGateway::Sleep { seconds } => format!("Sleep {seconds} s"),
        ToGateway::Awake => "Awake".to_owned(),
        ToGateway::Ask => "Ask".to_owned(),
    }
}

struct FrameText<'a>(&'a Frame<'a>);

impl fmt::Display for FrameText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self.0 {
            Frame::Hello(Hello { ask, boot_id, echo, mtu, window }) => {
                let ask = if ask { " ask" } else { "" };
                write!(f, "HELLO{ask} boot {boot_id:08x} echo {echo:08x} mtu {mtu} window {window}")
            }
            Frame::HelloOfVersion(version) => write!(f, "HELLO of version {version}"),
            Frame::Data { stream, number, offset, arrived, limit, payload } => {
                write!(f, "DATA {number} {}offset {offset} {} octets", urgent(stream), payload.len())?;
                if let Some(arrived) = arrived {
                    write!(f, " acks {}", Numbers(arrived))?;
                }
                limit.map_or(Ok(()), |limit| write!(f, " limit {limit}"))
            }
            Frame::Ack { arrived, stream, limit } => {
                write!(f, "ACK {} {}limit {limit}", Numbers(arrived), urgent(stream))
            }
            Frame::Probe { answer, token, padding } => {
                let answer = if answer { " answer" } else { "" };
                write!(f, "PROBE{answer} token {token} {} octets", padding.len())
            }
        }
    }
}

/// The numbers that an ack names, the newest first: `20-17,15`.
struct Numbers(Arrived);

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Arrived { newest, before } = self.0;
        let is_named = |back: u8| back == 0 || back <= BEFORE_COUNT && before >> (back - 1) & 1 != 0;
        let mut back = 0;
        while back <= BEFORE_COUNT {
            let end = (back..=BEFORE_COUNT).take_while(|back| is_named(*back)).last();
            if let Some(end) = end {
                let comma = if back > 0 { "," } else { "" };
                write!(f, "{comma}{}", newest.wrapping_sub(back))?;
                if end > back {
                    write!(f, "-{}", newest.wrapping_sub(end))?;
                }
            }
            back = end.unwrap_or(back) + 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ack_names_its_numbers_in_runs() {
        for (newest, before, text) in
            [(0, 0, "0"), (2, 0b11, "2-0"), (20, 0b10_0111, "20-17,14"), (1, 1 << 15 | 1 << 1, "1,255,241")]
        {
            assert_eq!(Numbers(Arrived { newest, before }).to_string(), text);
        }
        assert_eq!(Numbers(Arrived { newest: 16, before: u16::MAX }).to_string(), "16-0");
    }

    #[test]
    fn a_message_of_another_version_is_shown_by_its_tag() {
        let passed = Passed::Message { from: Role::Device, stream: Stream::Ordered, octets: &[0x77, 1] };
        let shown = line(Duration::from_millis(61_005), &passed, false);
        assert_eq!(shown, "  61.005 D>G   no message of version 1 with tag 77, 2 octets");
    }
}
