//! What one session of a link has come to: nobody there, somebody who has not said who, the device, or a stranger.
//!
//! ```text
//!            Opened              Attach, right id
//!   Closed ---------> Unnamed ----------------------> Up
//!     ^                  |  anything else              |
//!     |                  v                             |
//!     +-------------- Refused       Restarted, Silent, connection gone
//!     +------------------------------------------------+
//! ```

use crate::wire::message::Profile;
use crate::wire::{DeviceId, ToGateway};

/// The session of one link. What it is told by the link, it turns into what is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    /// No session is open.
    Closed,
    /// A session is open, and the first message has not come.
    Unnamed {
        /// The boot id of the peer.
        boot_id: u32,
    },
    /// The device is there.
    Up {
        /// The number of the session.
        session: u32,
    },
    /// Somebody else is there: nothing of this session is passed on.
    Refused,
}

/// What a message means in the session it came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The device is who it should be.
    Attached {
        /// The boot id of the peer.
        boot_id: u32,
        /// What it says about itself.
        profile: Profile,
    },
    /// It is not.
    Stranger(Option<DeviceId>),
    /// To be passed on.
    Message {
        /// The number of the session.
        session: u32,
        /// What was said.
        message: ToGateway,
    },
    /// Nothing to do: undecodable, said by a stranger, or an Attach that changes nothing.
    Nothing,
}

impl Session {
    /// Looks at a message; `device` is the only id that may attach.
    pub fn hear(self, octets: &[u8], device: &DeviceId) -> Heard {
        let message = ToGateway::parse(octets).ok();
        match (self, message) {
            (Self::Unnamed { boot_id }, Some(ToGateway::Attach { device: id, profile })) if id == *device => {
                Heard::Attached { boot_id, profile }
            }
            (Self::Unnamed { .. }, Some(ToGateway::Attach { device: id, .. })) => Heard::Stranger(Some(id)),
            (Self::Unnamed { .. }, _) => Heard::Stranger(None),
            (Self::Up { .. }, Some(ToGateway::Attach { .. }) | None) => Heard::Nothing,
            (Self::Up { session }, Some(message)) => Heard::Message { session, message },
            (Self::Refused | Self::Closed, _) => Heard::Nothing,
        }
    }

    /// The number of the session, when the device is there.
    pub fn number(self) -> Option<u32> {
        match self {
            Self::Up { session } => Some(session),
            Self::Closed | Self::Unnamed { .. } | Self::Refused => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ChannelId, MessageId};

    const UNNAMED: Session = Session::Unnamed { boot_id: 3 };
    const PROFILE: Profile = Profile { message_bytes_max: 99, urgent_window: 0, memory: 16, traits: 0 };

    /// C-40: only the id that belongs to the link attaches, and only as the first message.
    #[test]
    fn c_40_the_first_message_is_an_attach_of_the_right_device() {
        assert_eq!(hear(UNNAMED, &attach("a")), Heard::Attached { boot_id: 3, profile: PROFILE });
        assert_eq!(hear(UNNAMED, &attach("b")), Heard::Stranger(Some(id("b"))));
        assert_eq!(hear(UNNAMED, &ToGateway::Ack { message: MessageId([0; 8]) }), Heard::Stranger(None));
        assert_eq!(UNNAMED.hear(b"\xff", &id("a")), Heard::Stranger(None));
    }

    #[test]
    fn a_stranger_is_not_listened_to_and_another_attach_changes_nothing() {
        let subscribe = ToGateway::Subscribe { channel: ChannelId(1) };
        assert_eq!(hear(Session::Refused, &attach("a")), Heard::Nothing);
        assert_eq!(hear(Session::Refused, &subscribe), Heard::Nothing);
        let up = Session::Up { session: 4 };
        assert_eq!(hear(up, &attach("b")), Heard::Nothing);
        assert_eq!(up.hear(b"\xff", &id("a")), Heard::Nothing);
        assert_eq!(hear(up, &subscribe), Heard::Message { session: 4, message: subscribe });
    }

    fn hear(session: Session, message: &ToGateway) -> Heard {
        let mut octets = [0; 64];
        let bytes = message.emit(&mut octets).expect("it fits");
        session.hear(&octets[..bytes], &id("a"))
    }

    fn attach(text: &str) -> ToGateway {
        ToGateway::Attach { device: id(text), profile: PROFILE }
    }

    fn id(text: &str) -> DeviceId {
        text.parse().expect("an id")
    }
}
