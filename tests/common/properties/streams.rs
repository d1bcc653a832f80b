//! One end of a link in an open session with a peer that says anything at any time, against a model of both directions.

mod receiver;
mod sender;

use fieldgate::limits::{LINK_FLIGHT_FRAMES, LINK_MTU_BYTES_MAX};
use fieldgate::link::{Config, Event, Link, Role, Stream};
use fieldgate::time::{Duration, Instant};

use self::receiver::{Front, Heard, Receipts, Taken};
use self::sender::{Said, Sender};
use super::input::Input;
use super::line::{self, Arrived, Frame, Hello, Ids};
use super::memory::{RX, Small, TX, URGENT_RX, URGENT_TX};

const BOOT_ID: u32 = 7;
const PEER_ID: u32 = 0x0102_0304;
/// What an end may owe besides DATA: HELLO, an answer, a question, and an ACK of each stream.
const OWED_COUNT_MAX: usize = 5;
/// Messages and acks that follow one another without a fault, in one step.
const CONVERSATION_COUNT_MAX: usize = 60;

/// Octets come out as messages, are acknowledged, cut, numbered and sent again as section 5 of the specification says;
/// no octet is sent behind the limit; and what was said arrives once the peer behaves, after which the line is quiet.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let mut rig = Rig::open(&mut input);
    for _ in 0..400 {
        if input.is_empty() || rig.is_over {
            break;
        }
        match input.byte() % 16 {
            0..4 => rig.hear_data(&mut input),
            4 | 5 => rig.hear_ack(&mut input),
            6 => rig.wait(u64::from(input.u16()) / 4),
            7 | 8 => rig.say(&mut input),
            9 => rig.hear_noise(&mut input),
            10 => rig.release(input.byte().into()),
            11 => rig.sleep(input.byte()),
            12 => rig.converse(&mut input),
            13 => rig.hear_other(&mut input),
            _ => rig.transmit(),
        }
        rig.check();
    }
    rig.finish();
}

struct Rig {
    link: Box<Link<Small>>,
    role: Role,
    ids: Ids,
    /// Octets of the largest frame that this side accepts, and of this session.
    mtu: usize,
    session_mtu: usize,
    /// Octets of the largest message of either stream.
    message_bytes_max: [usize; 2],
    urgent_window: u16,
    now: Instant,
    /// The ordered stream and the urgent one.
    heard: [Heard; 2],
    receipts: Receipts,
    /// The number of the next frame of the peer.
    peer_number: u8,
    sender: Sender,
    is_hello_owed: bool,
    answer: Option<Frame>,
    is_asleep: bool,
    is_over: bool,
}

impl Rig {
    fn open(input: &mut Input<'_>) -> Self {
        let role = if input.flag() { Role::Gateway } else { Role::Device };
        let mtu = 20 + input.below(1100);
        let (peer_mtu, window) = (20 + input.u16() % 1100, line::window_min(role) + input.u16() % 400);
        let urgent_window = input.u16() % 200;
        let heard = [RX, URGENT_RX].map(|window| {
            let [seed, broken_at] = input.array();
            let broken_at = broken_at.checked_sub(200).map_or(usize::MAX, |index| usize::from(index) * 16);
            Heard::new(window, seed.into(), broken_at)
        });
        let mut link = Box::new(Link::new(Config { role, boot_id: BOOT_ID, mtu }, Instant::ZERO));
        let flag = if role == Role::Gateway { line::DEVICE } else { 0 };
        let hello = Hello { ask: false, boot_id: PEER_ID, echo: BOOT_ID, mtu: peer_mtu, window };
        let (_, event) = link.feed(&line::frame(None, &Frame::Hello(hello).body(flag)), Instant::ZERO);
        let session_mtu = mtu.min(peer_mtu.into()).min(LINK_MTU_BYTES_MAX);
        let message_bytes_max =
            [usize::from(window).min(TX) - 2, usize::from(urgent_window).min(URGENT_TX).saturating_sub(2)];
        let opened = Event::Opened { boot_id: PEER_ID, mtu: session_mtu, message_bytes_max: message_bytes_max[0] };
        assert_eq!(event, Some(opened));
        link.set_urgent_window(urgent_window);
        let streams = [Said::new(window.into(), TX), Said::new(urgent_window.into(), URGENT_TX)];
        Self {
            link,
            role,
            ids: if role == Role::Gateway { (BOOT_ID, PEER_ID) } else { (PEER_ID, BOOT_ID) },
            mtu: mtu.min(LINK_MTU_BYTES_MAX),
            session_mtu,
            message_bytes_max,
            urgent_window,
            now: Instant::ZERO,
            heard,
            receipts: Receipts::default(),
            peer_number: 0,
            sender: Sender::new(session_mtu, streams),
            is_hello_owed: true,
            answer: None,
            is_asleep: false,
            is_over: false,
        }
    }

    fn peer_flag(&self) -> u8 {
        if self.role == Role::Gateway { line::DEVICE } else { 0 }
    }

    /// A DATA frame: of octets that are expected, known, early or beyond the limit.
    fn hear_data(&mut self, input: &mut Input<'_>) {
        let [fields, place, delta, bytes] = input.array();
        let urgent = fields & 1 == 1;
        let heard = &self.heard[usize::from(urgent)];
        let start = match place {
            0..100 => heard.ready,
            100..160 => heard.ready + i64::from(delta) % 60,
            160..200 => heard.ready - i64::from(delta),
            200..240 => heard.limit() - i64::from(delta) % 40,
            _ => heard.base + i64::from(input.u16() as i16),
        };
        let number = match fields >> 4 {
            0..12 => self.peer_number,
            12 | 13 => self.peer_number.wrapping_add(delta % 20),
            _ => input.byte(),
        };
        let arrived = (fields & 2 != 0).then(|| self.arrived(input));
        let limit = (fields & 4 != 0).then(|| self.limit(false, input));
        self.hear(urgent, number, start, usize::from(bytes) % 70, arrived, limit);
    }

    fn hear(
        &mut self,
        urgent: bool,
        number: u8,
        start: i64,
        bytes: usize,
        arrived: Option<Arrived>,
        limit: Option<u16>,
    ) {
        let heard = &mut self.heard[usize::from(urgent)];
        let payload = heard.content.octets(start, bytes);
        let frame = Frame::Data { urgent, number, offset: start as u16, arrived, limit, payload: payload.clone() };
        let octets = frame.emitted(self.ids, self.peer_flag());
        if octets.len() > self.mtu {
            assert_eq!(self.feed(&octets), None);
            return;
        }
        self.peer_number = number.wrapping_add(1);
        self.sender.heard();
        let heard = &mut self.heard[usize::from(urgent)];
        let taken = heard.take(start, &payload);
        // What a frame says besides its payload counts, although there is no room for that.
        if let Some(limit) = limit {
            self.sender.streams[0].hear_limit(limit);
        }
        if let Some(arrived) = arrived {
            self.sender.hear_ack(arrived, self.now);
        }
        if taken != Taken::Dropped {
            self.receipts.note(number);
        }
        let mut expected = None;
        if taken == Taken::New {
            if std::mem::take(&mut self.is_asleep) {
                self.sender.resume(self.now);
            }
            expected = match self.heard[usize::from(urgent)].front() {
                Front::Partial => None,
                Front::Whole(_) => Some(Event::Message),
                Front::Broken => Some(Event::Broken),
            };
        }
        assert_eq!(self.feed(&octets), expected);
        if expected == Some(Event::Broken) {
            self.check_left();
        }
    }

    fn hear_ack(&mut self, input: &mut Input<'_>) {
        let urgent = input.byte() < 80;
        let (arrived, limit) = (self.arrived(input), self.limit(urgent, input));
        self.acknowledge(arrived, urgent, limit);
    }

    fn acknowledge(&mut self, arrived: Arrived, urgent: bool, limit: u16) {
        let octets = Frame::Ack { arrived, urgent, limit }.emitted(self.ids, self.peer_flag());
        self.sender.heard();
        self.sender.streams[usize::from(urgent)].hear_limit(limit);
        self.sender.hear_ack(arrived, self.now);
        assert_eq!(self.feed(&octets), None);
    }

    /// What a peer may have got, and what not.
    fn arrived(&self, input: &mut Input<'_>) -> Arrived {
        let newest = self.sender.frame_count().wrapping_sub(1) as u8;
        match input.byte() {
            0..100 => (newest, u16::MAX),
            100..200 => (newest.wrapping_sub(input.byte() % 18), input.u16()),
            200..230 => (newest.wrapping_add(1 + input.byte() % 4), input.u16()),
            _ => (newest.wrapping_add(input.byte()), input.u16()),
        }
    }

    fn limit(&self, urgent: bool, input: &mut Input<'_>) -> u16 {
        let stream = &self.sender.streams[usize::from(urgent)];
        let limit = stream.limit as u16;
        match input.byte() {
            0..100 => limit,
            100..200 => limit.wrapping_add(input.byte().into()),
            200..250 => limit.wrapping_sub(input.byte().into()),
            _ => input.u16(),
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
        let has_run_out = self.link.poll_timeout().is_some_and(|deadline| deadline <= self.now);
        let is_due = has_run_out && self.sender.is_waiting() && !self.is_asleep;
        let is_silent = is_due && self.sender.is_silent(self.now);
        let expected = if self.is_broken() { Some(Event::Broken) } else { is_silent.then_some(Event::Silent) };
        assert_eq!(self.link.handle_timeout(self.now), expected);
        if expected.is_some() {
            self.check_left();
        } else if is_due {
            self.sender.time_ran_out(self.now);
        }
    }

    fn say(&mut self, input: &mut Input<'_>) {
        let urgent = input.byte() < 80;
        let message = input.short();
        self.say_message(urgent, message);
    }

    fn say_message(&mut self, urgent: bool, message: &[u8]) {
        let room = if urgent { self.link.urgent_room() } else { self.link.room() };
        let sent = if urgent { self.link.send_urgent(message, self.urgent_window) } else { self.link.send(message) };
        let is_small = message.len() <= self.message_bytes_max[usize::from(urgent)];
        let is_taken = is_small && self.sender.say(urgent, message);
        assert_eq!(sent.is_ok(), is_taken, "{} octets, room for {room}", message.len());
        assert!(is_taken || !is_small || message.len() > room || room == 0);
    }

    /// Octets that are no frame of this session, unless somebody guessed a CRC.
    fn hear_noise(&mut self, input: &mut Input<'_>) {
        let mut octets = input.short();
        self.answer.take_if(|_| octets.iter().any(|octet| *octet != 0));
        while !octets.is_empty() {
            let received_before = self.link.counts().received;
            let (taken, event) = self.link.feed(octets, self.now);
            octets = &octets[taken..];
            self.is_over |= event.is_some() || self.link.counts().received != received_before;
        }
    }

    /// Frames that change nothing here: of another session, of this side, a question, a HELLO of the same peer.
    fn hear_other(&mut self, input: &mut Input<'_>) {
        let [kind, number, bytes] = input.array();
        let (ids, flag) = (self.ids, self.peer_flag());
        let payload = input.octets(bytes.into()).to_vec();
        let padding = payload.clone();
        let offset = self.heard[0].ready as u16;
        let data = Frame::Data { urgent: false, number, offset, arrived: Some((number, !0)), limit: None, payload };
        let ack = Frame::Ack { arrived: (number, !0), urgent: false, limit: input.u16() };
        // With another echo than 0: that would be a peer which started anew.
        let hello = Hello { ask: kind >= 128, boot_id: PEER_ID, echo: input.u32().max(1), mtu: 20, window: 64 };
        let probe = Frame::Probe { answer: false, token: number, padding };
        let octets = match kind % 6 {
            0 => data.emitted((ids.0, ids.1 + 1), flag),
            1 => ack.emitted((ids.0 + 1, ids.1), flag),
            2 => data.emitted(ids, flag ^ line::DEVICE),
            3 => ack.emitted(ids, flag ^ line::DEVICE),
            4 => line::frame(None, &Frame::Hello(hello).body(flag)),
            _ => probe.emitted(ids, flag),
        };
        assert_eq!(self.feed(&octets), None);
        if octets.len() <= self.mtu && kind % 6 == 4 {
            self.is_hello_owed |= hello.ask;
        }
        if octets.len() <= self.mtu && kind % 6 == 5 {
            let Frame::Probe { token, padding, .. } = probe else { unreachable!("it is one") };
            self.answer = Some(Frame::Probe { answer: true, token, padding });
        }
    }

    /// Takes one whole frame, behind a delimiter that ends what was before it.
    fn feed(&mut self, octets: &[u8]) -> Option<Event> {
        // What was to be sent back is no longer known.
        self.answer = None;
        let (taken, event) = self.link.feed(&[0], self.now);
        assert_eq!((taken, event), (1, None), "noise that ends here is no frame");
        let (taken, event) = self.link.feed(octets, self.now);
        assert_eq!(taken, octets.len());
        event
    }

    /// The application takes so many messages.
    fn release(&mut self, count: usize) {
        for _ in 0..count {
            let (urgent, message) = match (self.heard[1].front(), self.heard[0].front()) {
                (Front::Whole(message), _) => (true, message),
                (_, Front::Whole(message)) => (false, message),
                _ => break,
            };
            let stream = if urgent { Stream::Urgent } else { Stream::Ordered };
            assert_eq!(self.link.message(), Some((stream, &message[..])));
            self.link.release(stream);
            self.heard[usize::from(urgent)].release();
        }
    }

    /// Whether what can be no message stood behind one that was taken.
    fn is_broken(&self) -> bool {
        self.heard.iter().any(|heard| heard.front() == Front::Broken)
    }

    fn sleep(&mut self, chance: u8) {
        if chance < 100 {
            self.link.sleep();
            // Whoever said more than that it sleeps is awake.
            self.is_asleep = self.heard[0].is_empty();
        }
    }

    /// Both sides do what they should for a while, so that offsets and numbers go around.
    fn converse(&mut self, input: &mut Input<'_>) {
        let [count, bytes, urgent] = input.array();
        let urgent = urgent & 1 == 1;
        for index in 0..usize::from(count) % CONVERSATION_COUNT_MAX {
            if self.is_over {
                return;
            }
            self.hear_next(urgent && index % 2 == 0, bytes.into());
            if self.is_over {
                return;
            }
            self.release(usize::MAX);
            self.say_message(urgent && index % 2 == 1, &vec![bytes; usize::from(bytes) / 2]);
            self.transmit();
            self.acknowledge_all();
        }
    }

    /// The octets that are expected next, as many as fit.
    fn hear_next(&mut self, urgent: bool, bytes: usize) {
        let heard = &self.heard[usize::from(urgent)];
        let bytes = (heard.limit() - heard.ready).min((self.mtu - 10).min(bytes) as i64);
        self.hear(urgent, self.peer_number, heard.ready, bytes as usize, None, None);
    }

    /// All that was sent arrived, and there is room for more.
    fn acknowledge_all(&mut self) {
        let newest = self.sender.frame_count().wrapping_sub(1) as u8;
        for urgent in [true, false] {
            let stream = &self.sender.streams[usize::from(urgent)];
            let limit = if urgent && self.urgent_window == 0 { 0 } else { stream.next.wrapping_add(100) as u16 };
            self.acknowledge((newest, u16::MAX), urgent, limit);
        }
    }

    /// Takes everything that is due.
    fn transmit(&mut self) {
        let mut out = [0; LINK_MTU_BYTES_MAX];
        let mut frame_count = 0;
        while let Some(bytes) = self.link.poll_transmit(self.now, &mut out) {
            frame_count += 1;
            assert!(frame_count <= LINK_FLIGHT_FRAMES + OWED_COUNT_MAX, "one burst has an end");
            let octets = line::cobs_decoded(&out[..bytes - 1]).expect("what is sent can be decoded");
            let frame = Frame::parsed(&octets, self.role == Role::Device, Some(self.ids)).expect("a frame");
            let bytes_max = if matches!(frame, Frame::Probe { .. }) { self.mtu } else { self.session_mtu };
            assert!(bytes <= bytes_max, "{bytes} octets: {frame:?}");
            self.check_sent(frame);
        }
        assert!(!self.is_hello_owed && self.answer.is_none() && !self.receipts.is_owed);
        assert!(!self.heard.iter().any(|heard| heard.is_limit_owed), "the peer waits for room that there is");
        if !self.is_asleep {
            self.sender.check_drained();
        }
        if !self.is_asleep && !self.is_broken() {
            self.sender.check_timeout(self.link.poll_timeout(), self.now);
        }
    }

    fn check_sent(&mut self, frame: Frame) {
        match frame {
            Frame::Hello(Hello { ask, boot_id, echo, .. }) => {
                assert_eq!((ask, boot_id, echo), (false, BOOT_ID, PEER_ID));
                assert!(std::mem::take(&mut self.is_hello_owed));
            }
            Frame::Probe { .. } => assert_eq!(Some(frame), self.answer.take()),
            Frame::Ack { arrived, urgent, limit } => {
                let is_limit_owed = self.heard.iter().any(|heard| heard.is_limit_owed);
                assert!(self.receipts.is_owed || is_limit_owed, "nothing is to be told");
                self.heard[usize::from(urgent)].told(limit);
                self.told(arrived);
            }
            Frame::Data { urgent, number, offset, arrived, limit, payload } => {
                assert!(!self.is_asleep, "a peer that does not hear");
                assert!(arrived.is_some() || !self.receipts.is_owed, "an ack goes first or with it");
                assert!(limit.is_some() || arrived.is_none() || !self.heard[0].is_limit_near());
                if let Some(limit) = limit {
                    self.heard[0].told(limit);
                }
                if let Some(arrived) = arrived {
                    self.told(arrived);
                }
                self.sender.sent(urgent, number, offset, &payload, self.now);
            }
            frame @ Frame::HelloOfVersion(_) => panic!("{frame:?}"),
        }
    }

    fn told(&mut self, arrived: Arrived) {
        assert_eq!(Some(arrived), self.receipts.arrived());
        self.receipts.is_owed = false;
    }

    fn check(&self) {
        if self.is_over {
            return;
        }
        let message = self.link.message().map(|(stream, message)| (stream == Stream::Urgent, message.to_vec()));
        let expected = match (self.heard[1].front(), self.heard[0].front()) {
            (Front::Whole(message), _) => Some((true, message)),
            (_, Front::Whole(message)) => Some((false, message)),
            _ => None,
        };
        assert_eq!(message, expected);
        assert_eq!(self.link.is_idle(), self.sender.is_done());
        assert_eq!(self.link.is_asleep(), self.is_asleep);
        if self.is_broken() {
            assert!(self.link.poll_timeout().is_some_and(|at| at <= self.now));
            return;
        }
        assert!(!self.is_asleep || self.link.poll_timeout().is_none(), "no timer runs");
        assert!(self.is_asleep || !self.sender.is_waiting() || self.link.poll_timeout().is_some());
    }

    /// The session is over: nothing of it is left, and a new one is asked for with a new boot id.
    fn check_left(&mut self) {
        self.is_over = true;
        assert_eq!((self.link.message_bytes_max(), self.link.message()), (None, None));
        assert!(self.link.is_idle() && !self.link.is_asleep());
        let mut out = [0; LINK_MTU_BYTES_MAX];
        let bytes = self.link.poll_transmit(self.now, &mut out).expect("a HELLO");
        let octets = line::cobs_decoded(&out[..bytes - 1]).expect("what is sent can be decoded");
        let hello = Hello { ask: true, boot_id: BOOT_ID + 1, echo: 0, mtu: self.mtu as u16, window: RX as u16 };
        assert_eq!(Frame::parsed(&octets, self.role == Role::Device, None), Some(Frame::Hello(hello)));
        // A question is answered in any state.
        let answer = self.link.poll_transmit(self.now, &mut out);
        assert_eq!(answer.is_some(), self.answer.is_some());
        assert!(answer.is_none() || self.link.poll_transmit(self.now, &mut out).is_none());
    }

    /// The peer behaves from now on: soon nothing is left to send, and then the line is quiet.
    fn finish(&mut self) {
        for _ in 0..600 {
            if self.is_over || (self.link.is_idle() && !self.is_asleep) {
                break;
            }
            self.release(usize::MAX);
            if self.is_broken() {
                self.wait(0);
            } else if self.is_asleep {
                self.hear_next(false, 10);
            }
            if self.is_over || self.is_asleep {
                continue;
            }
            self.transmit();
            self.acknowledge_all();
            self.check();
            if !self.sender.is_waiting() {
                self.wait(2_000);
            }
        }
        if !self.is_over {
            self.release(usize::MAX);
        }
        if !self.is_over && self.is_broken() {
            self.wait(0);
        }
        // A peer that lied about its room has only itself to blame.
        let is_honest = self.sender.streams.iter().all(|stream| stream.limit - stream.next < 1 << 15);
        if self.is_over || !is_honest || self.urgent_window == 0 {
            return;
        }
        assert!(self.link.is_idle() && self.sender.is_done(), "what was said has not arrived");
        self.transmit();
        for ms in [0, 1_000, 100_000] {
            self.wait(ms);
            assert_eq!(self.link.poll_transmit(self.now, &mut [0; LINK_MTU_BYTES_MAX]), None);
            assert_eq!(self.link.poll_timeout(), None);
        }
    }
}
