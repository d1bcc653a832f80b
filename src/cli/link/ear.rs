//! What a probing side hears: answers, what a device says about itself, and everything else, counted.

use crate::limits::LINK_MTU_BYTES_MAX;
use crate::wire::Role;
use crate::wire::cobs::Deframer;
use crate::wire::frame::{Frame, Hello, InvalidFrame};

/// What was heard besides answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Overheard {
    /// Octets, of answers too.
    pub octets: u64,
    /// Frames that arrived damaged, answers or not.
    pub damaged: u64,
    /// Own frames that came back.
    pub echoes: u64,
    /// Frames of another gateway.
    pub gateways: u64,
    /// A version that is not spoken here.
    pub version: Option<u8>,
}

/// Something that matters to whoever probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The answer to the probe of this token.
    Answer(u8),
    /// Octets of the largest frame of the device, as it says itself.
    Mtu(usize),
}

/// Hears frames in octets.
pub(super) struct Ear {
    deframer: Deframer<LINK_MTU_BYTES_MAX>,
    overheard: Overheard,
}

impl Ear {
    pub fn new() -> Self {
        Self { deframer: Deframer::new(LINK_MTU_BYTES_MAX), overheard: Overheard::default() }
    }

    /// What came before, of a frame that has not ended, means nothing.
    pub fn clear(&mut self) {
        self.deframer = Deframer::new(LINK_MTU_BYTES_MAX);
    }

    pub fn overheard(&self) -> Overheard {
        self.overheard
    }

    /// Takes octets up to the end of one frame; returns how many, and what that frame says.
    pub fn feed(&mut self, octets: &[u8]) -> (usize, Option<Heard>) {
        let (taken, is_whole) = self.deframer.feed(octets);
        self.overheard.octets += taken as u64;
        (taken, if is_whole { self.hear() } else { None })
    }

    fn hear(&mut self) -> Option<Heard> {
        let octets = self.deframer.frame();
        match Frame::parse(octets, Role::Device, None) {
            Ok(Frame::Probe { answer: true, token, .. }) => return Some(Heard::Answer(token)),
            Ok(Frame::Hello(Hello { mtu, .. })) => return Some(Heard::Mtu(mtu.into())),
            Ok(Frame::HelloOfVersion(version)) => self.overheard.version = Some(version),
            Ok(_) => {}
            Err(InvalidFrame::Echo) => match Frame::parse(octets, Role::Gateway, None) {
                Ok(Frame::Probe { .. }) => self.overheard.echoes += 1,
                Ok(_) => self.overheard.gateways += 1,
                Err(_) => self.overheard.damaged += 1,
            },
            Err(InvalidFrame::Kind | InvalidFrame::Malformed) => self.overheard.damaged += 1,
            // The checksum of a DATA or ACK frame is that of a session, which is not known here.
            Err(InvalidFrame::Checksum) => self.overheard.damaged += u64::from(!Frame::needs_session(octets)),
        }
        None
    }
}
