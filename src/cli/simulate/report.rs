//! What a simulated device reports: one line each, for a person or as JSON.

use std::fmt;

use serde_json::{Value, json};

use crate::webpush::base64url;
use crate::wire::message::Uplink;
use crate::wire::{ChannelId, MessageId, Refusal};

/// Something that happened at the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report<'a> {
    /// The device is ready; comes first and once.
    Link {
        /// What others open, or what the device connects to.
        place: &'a str,
    },
    /// A session with a gateway is open.
    Up {
        /// Octets of its largest frame.
        mtu: usize,
    },
    /// The session is over.
    Down,
    /// The link could not be opened and is tried again; comes once for each change of the reason.
    Retrying {
        /// For a person.
        reason: &'a str,
    },
    /// A message is received; comes once for each id.
    Received {
        /// Its id.
        message: MessageId,
        /// The channel it was pushed to.
        channel: ChannelId,
        /// How many seconds ago it was sent, if that is known.
        age_s: Option<u32>,
        /// Its content.
        body: &'a [u8],
        /// When it was received, in milliseconds since 1970.
        at_unix_ms: u64,
    },
    /// A copy of a received message came and was acknowledged again.
    Duplicate {
        /// Its id.
        message: MessageId,
    },
    /// A message was refused; it may come again.
    MessageRefused {
        /// Its id.
        message: MessageId,
        /// The channel it was pushed to.
        channel: ChannelId,
        /// The reason that was given.
        reason: Refusal,
    },
    /// The gateway has a subscription for the device.
    Subscribed {
        /// The device's label for it.
        channel: ChannelId,
        /// Where an application server pushes.
        push: &'a str,
        /// The public key to encrypt for.
        p256dh: &'a [u8],
        /// The authentication secret to encrypt with.
        auth: &'a [u8],
    },
    /// The gateway refused what the device asked for.
    Refused {
        /// The channel; 0 when the device itself was refused.
        channel: ChannelId,
        /// Why.
        reason: Refusal,
    },
    /// How the gateway is.
    Status {
        /// Whether it reaches its push service.
        uplink: Uplink,
        /// Messages that wait.
        waiting: u8,
        /// Its time, in milliseconds since 1970; 0 if it does not know.
        time: u64,
    },
    /// A subscription is no more.
    Unsubscribed {
        /// The device's label for it.
        channel: ChannelId,
    },
    /// Another subscription was asked for in place of one.
    Rotating {
        /// The device's label for it.
        channel: ChannelId,
    },
    /// The gateway knows that the device sleeps, and the device hears nothing.
    Asleep,
    /// The device hears again, and has said so.
    Awake,
    /// The device started anew, with another boot id.
    Reset,
    /// The gateway speaks another version of the link protocol.
    VersionRefused {
        /// Which.
        version: u8,
    },
}

impl Report<'_> {
    /// The report as an object of one line.
    pub fn to_json(&self) -> Value {
        match *self {
            Self::Link { place } => json!({ "event": "link", "link": place }),
            Self::Up { mtu } => json!({ "event": "up", "mtu": mtu }),
            Self::Down => json!({ "event": "down" }),
            Self::Retrying { reason } => json!({ "event": "retrying", "reason": reason }),
            Self::Status { uplink, waiting, time } => {
                json!({ "event": "status", "uplink": uplink_name(uplink), "waiting": waiting, "time_unix_ms": time })
            }
            Self::Received { message, channel, age_s, body, at_unix_ms } => {
                let (form, content) = content(body);
                json!({
                    "event": "received", "message": message.to_string(), "channel": channel.0, "octets": body.len(),
                    form: content, "age_s": age_s, "at_unix_ms": at_unix_ms,
                })
            }
            Self::Duplicate { message } => json!({ "event": "duplicate", "message": message.to_string() }),
            Self::Subscribed { channel, push, p256dh, auth } => {
                let keys = json!({ "p256dh": base64url(p256dh), "auth": base64url(auth) });
                let subscription = json!({ "endpoint": push, "keys": keys });
                json!({ "event": "subscribed", "channel": channel.0, "subscription": subscription })
            }
            Self::Refused { channel, reason } => {
                json!({ "event": "refused", "channel": channel.0, "reason": reason.to_string() })
            }
            Self::Unsubscribed { channel } => json!({ "event": "unsubscribed", "channel": channel.0 }),
            Self::MessageRefused { message, channel, reason } => json!({
                "event": "message-refused", "message": message.to_string(), "channel": channel.0,
                "reason": reason.to_string(),
            }),
            Self::Rotating { channel } => json!({ "event": "rotating", "channel": channel.0 }),
            Self::Asleep => json!({ "event": "asleep" }),
            Self::Awake => json!({ "event": "awake" }),
            Self::Reset => json!({ "event": "reset" }),
            Self::VersionRefused { version } => json!({ "event": "version-refused", "version": version }),
        }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Link { place } => write!(f, "link {place}"),
            Self::Up { mtu } => write!(f, "up with frames of {mtu} octets"),
            Self::Down => f.write_str("down"),
            Self::Retrying { reason } => write!(f, "retrying: {reason}"),
            Self::Received { message, channel, body, .. } => {
                let (_, content) = content(body);
                write!(f, "received channel {channel} message {message} {} octets: {content}", body.len())
            }
            Self::Duplicate { message } => write!(f, "duplicate message {message}"),
            Self::Subscribed { channel, push, .. } => write!(f, "subscribed channel {channel}: {push}"),
            Self::Status { uplink, waiting, .. } => {
                write!(f, "gateway {}, {waiting} messages wait", uplink_name(uplink))
            }
            Self::Refused { channel, reason } => write!(f, "refused channel {channel}: {reason}"),
            Self::Unsubscribed { channel } => write!(f, "unsubscribed channel {channel}"),
            Self::MessageRefused { message, channel, reason } => {
                write!(f, "message {message} of channel {channel} refused: {reason}")
            }
            Self::Rotating { channel } => write!(f, "rotating channel {channel}"),
            Self::Asleep => f.write_str("asleep"),
            Self::Awake => f.write_str("awake"),
            Self::Reset => f.write_str("reset"),
            Self::VersionRefused { version } => write!(f, "the gateway speaks version {version} of the link protocol"),
        }
    }
}

pub(crate) fn uplink_name(uplink: Uplink) -> &'static str {
    match uplink {
        Uplink::Down => "not connected",
        Uplink::Connected => "connected",
        Uplink::NeedsPerson => "in need of a person",
    }
}

/// Content as text, if it is one and would not disturb a line or a terminal, else as hexadecimal digits.
pub(crate) fn content(body: &[u8]) -> (&'static str, String) {
    match std::str::from_utf8(body) {
        Ok(text) if !text.chars().any(char::is_control) => ("text", text.to_owned()),
        Ok(_) | Err(_) => ("hex", body.iter().map(|octet| format!("{octet:02x}")).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shown_as_text_and_anything_else_in_hexadecimal() {
        let received = |body| Report::Received {
            message: MessageId([1; 8]),
            channel: ChannelId(3),
            age_s: None,
            body,
            at_unix_ms: 5,
        };
        let line = received("grün".as_bytes()).to_string();
        assert_eq!(line, "received channel 3 message 0101010101010101 5 octets: grün");
        assert_eq!(received(b"").to_string(), "received channel 3 message 0101010101010101 0 octets: ");
        for body in [&b"a\nb"[..], b"\x1b[2J", b"\xff"] {
            let json = received(body).to_json();
            assert_eq!(json["hex"].as_str().map(str::len), Some(2 * body.len()));
            assert_eq!(json.get("text"), None);
        }
        assert_eq!(received(b"hi").to_json()["text"], "hi");
    }
}
