//! What passes on a line: frames, the messages in them, and octets that are neither.
//!
//! It takes part in nothing. The checksums of DATA and ACK cover both boot ids, which it learns from HELLO; before that
//! it shows their fields unchecked.

use super::reassembly::{Next, Reassembly};
use crate::limits::{LINK_MONITOR_BOOT_COUNT, LINK_MONITOR_FOREIGN_BYTES_MAX, LINK_MTU_BYTES_MAX};
use crate::wire::cobs::{DELIMITER, Deframer};
use crate::wire::frame::{Frame, Hello, InvalidFrame, SessionSeed, Stream};
use crate::wire::{Role, ToDevice, ToGateway};

/// Something that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Passed<'a> {
    /// A frame.
    Frame {
        /// Who sent it, as it says itself.
        from: Role,
        /// What it is.
        frame: Frame<'a>,
        /// Whether its checksum was looked at.
        is_checked: bool,
        /// Whether it came from the other side of the line.
        is_echo: bool,
    },
    /// A message whose last octet was in the frame before it.
    Message {
        /// Who sent it.
        from: Role,
        /// In which stream.
        stream: Stream,
        /// The message, encoded.
        octets: &'a [u8],
    },
    /// Messages of this stream cannot be shown until one begins a frame.
    MessagesLost {
        /// Who sent them.
        from: Role,
        /// In which stream.
        stream: Stream,
    },
    /// Octets that are no frame.
    Foreign {
        /// From where, if the line tells.
        from: Option<Role>,
        /// The octets, without the delimiter.
        octets: &'a [u8],
        /// What is wrong with them.
        why: Foreign,
    },
}

/// Why octets are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// No delimiter within the largest frame.
    TooLong,
    /// Not encoded as frames are.
    NotEncoded,
    /// A damaged frame.
    Checksum,
    /// A kind that version 1 does not know.
    Kind,
    /// Fields that do not fit the kind.
    Malformed,
}

/// How much passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Frames.
    pub frames: u64,
    /// Messages.
    pub messages: u64,
    /// Frames with a wrong checksum.
    pub checksums: u64,
    /// Octets that are no frame, those of wrong checksums too.
    pub foreign_bytes: u64,
}

/// The decoder of one line.
pub(super) struct Decoder {
    gateway: Cutter,
    device: Cutter,
    session: Session,
    counts: Counts,
}

impl Decoder {
    pub fn new() -> Self {
        Self {
            gateway: Cutter::default(),
            device: Cutter::default(),
            session: Session::new(),
            counts: Counts::default(),
        }
    }

    /// How much passed.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes octets that came from one side, or from a place where both are heard, and shows what is whole.
    pub fn feed<E>(
        &mut self,
        side: Option<Role>,
        octets: &[u8],
        mut show: impl FnMut(&Passed<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self { gateway, device, session, counts } = self;
        let cutter = match side {
            Some(Role::Gateway) => gateway,
            Some(Role::Device) | None => device,
        };
        let mut show = |passed: &Passed<'_>| {
            counts.count(passed);
            show(passed)
        };
        for &octet in octets {
            match cutter.take(octet) {
                Cut::Nothing => {}
                Cut::Foreign(octets) => show(&Passed::Foreign { from: side, octets: &octets, why: Foreign::TooLong })?,
                Cut::Whole(octets) => session.take(side, &octets, &mut show)?,
            }
        }
        Ok(())
    }

    /// The connection of the line ended: halves of frames are gone.
    pub fn cut(&mut self) {
        (self.gateway, self.device) = (Cutter::default(), Cutter::default());
    }
}

impl Counts {
    fn count(&mut self, passed: &Passed<'_>) {
        match passed {
            Passed::Frame { .. } => self.frames += 1,
            Passed::Message { .. } => self.messages += 1,
            Passed::MessagesLost { .. } => {}
            Passed::Foreign { octets, why, .. } => {
                self.foreign_bytes += octets.len() as u64;
                self.checksums += u64::from(*why == Foreign::Checksum);
            }
        }
    }
}

/// Cuts octets at delimiters.
#[derive(Default)]
struct Cutter {
    octets: Vec<u8>,
    /// Whether the octets before these were too many for a frame.
    is_too_long: bool,
}

enum Cut {
    Nothing,
    Whole(Vec<u8>),
    Foreign(Vec<u8>),
}

impl Cutter {
    fn take(&mut self, octet: u8) -> Cut {
        let ends = octet == DELIMITER;
        if !ends {
            self.octets.push(octet);
        }
        if !ends && self.octets.len() < LINK_MONITOR_FOREIGN_BYTES_MAX || self.octets.is_empty() {
            self.is_too_long &= !ends;
            return Cut::Nothing;
        }
        let octets = std::mem::take(&mut self.octets);
        let is_foreign = self.is_too_long || octets.len() >= LINK_MTU_BYTES_MAX;
        self.is_too_long = !ends;
        if is_foreign { Cut::Foreign(octets) } else { Cut::Whole(octets) }
    }
}

/// The session on the line, as far as it is known.
struct Session {
    /// The boot ids of each side, the last one first.
    gateway: Vec<u32>,
    device: Vec<u32>,
    /// The boot ids of the session whose messages are put together.
    followed: Option<(u32, u32)>,
    /// From the gateway, from the device; ordered, urgent.
    streams: [[Reassembly; 2]; 2],
}

impl Session {
    fn new() -> Self {
        let streams = std::array::from_fn(|_| std::array::from_fn(|_| Reassembly::joined()));
        Self { gateway: Vec::new(), device: Vec::new(), followed: None, streams }
    }

    /// Shows what the octets between two delimiters are.
    fn take<E>(
        &mut self,
        side: Option<Role>,
        encoded: &[u8],
        show: &mut impl FnMut(&Passed<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut deframer = Deframer::<LINK_MTU_BYTES_MAX>::new(LINK_MTU_BYTES_MAX);
        let (_, is_open) = deframer.feed(encoded);
        let (_, is_whole) = deframer.feed(&[DELIMITER]);
        let foreign = |why| Passed::Foreign { from: side, octets: encoded, why };
        let octets = deframer.frame();
        let Some(from) = Frame::sender(octets).filter(|_| !is_open && is_whole) else {
            return show(&foreign(Foreign::NotEncoded));
        };
        let (frame, session) = match self.parse(octets, from) {
            Ok(parsed) => parsed,
            Err(InvalidFrame::Checksum | InvalidFrame::Echo) => return show(&foreign(Foreign::Checksum)),
            Err(InvalidFrame::Kind) => return show(&foreign(Foreign::Kind)),
            Err(InvalidFrame::Malformed) => return show(&foreign(Foreign::Malformed)),
        };
        let is_checked = session.is_some() || !Frame::needs_session(octets);
        let is_echo = side.is_some_and(|side| side != from);
        show(&Passed::Frame { from, frame, is_checked, is_echo })?;
        match frame {
            Frame::Hello(hello) if !is_echo => self.learn(from, hello),
            Frame::Data { stream, offset, payload, .. } if !is_echo && self.follows(session) => {
                return self.follow(from, stream, offset, payload, show);
            }
            _ => {}
        }
        Ok(())
    }

    /// The frame, and the boot ids that its checksum was found right with.
    fn parse<'a>(&self, octets: &'a [u8], from: Role) -> Result<(Frame<'a>, Option<(u32, u32)>), InvalidFrame> {
        if !Frame::needs_session(octets) {
            return Frame::parse(octets, from, None).map(|frame| (frame, None));
        }
        let pairs = || self.gateway.iter().flat_map(|gateway| self.device.iter().map(|device| (*gateway, *device)));
        for (gateway, device) in pairs() {
            match Frame::parse(octets, from, Some(SessionSeed::new(gateway, device))) {
                Ok(frame) => return Ok((frame, Some((gateway, device)))),
                Err(InvalidFrame::Checksum) => {}
                Err(other) => return Err(other),
            }
        }
        if pairs().next().is_some() { Err(InvalidFrame::Checksum) } else { Ok((Frame::parse_unchecked(octets)?, None)) }
    }

    fn learn(&mut self, from: Role, hello: Hello) {
        let (own, peer) = match from {
            Role::Gateway => (&mut self.gateway, &mut self.device),
            Role::Device => (&mut self.device, &mut self.gateway),
        };
        note(own, hello.boot_id);
        // Where one direction alone is heard, this is all there is to know of the other one.
        if hello.echo != 0 && !peer.contains(&hello.echo) {
            note(peer, hello.echo);
        }
    }

    /// Whether the messages of this session are put together; those of an earlier one are not.
    fn follows(&mut self, session: Option<(u32, u32)>) -> bool {
        if session == self.followed {
            return true;
        }
        let newest = self.gateway.first().copied().zip(self.device.first().copied());
        if session != newest {
            return false;
        }
        // Whoever heard nothing before has not seen the beginning of the first one for sure, but of all others.
        self.followed = session;
        self.streams = std::array::from_fn(|_| std::array::from_fn(|_| Reassembly::from_start()));
        true
    }

    fn follow<E>(
        &mut self,
        from: Role,
        stream: Stream,
        offset: u16,
        payload: &[u8],
        show: &mut impl FnMut(&Passed<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let reassembly = &mut self.streams[usize::from(from == Role::Device)][usize::from(stream == Stream::Urgent)];
        reassembly.take(offset, payload, |octets| match from {
            Role::Gateway => ToDevice::parse(octets).is_ok(),
            Role::Device => ToGateway::parse(octets).is_ok(),
        });
        while let Some(next) = reassembly.poll() {
            match next {
                Next::Message(octets) => show(&Passed::Message { from, stream, octets: &octets })?,
                Next::Lost => show(&Passed::MessagesLost { from, stream })?,
            }
        }
        Ok(())
    }
}

/// Puts a boot id in front of those that are known.
fn note(boot_ids: &mut Vec<u32>, boot_id: u32) {
    boot_ids.retain(|known| *known != boot_id);
    boot_ids.insert(0, boot_id);
    boot_ids.truncate(LINK_MONITOR_BOOT_COUNT);
}

#[cfg(test)]
mod tests;
