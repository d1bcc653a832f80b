//! Two links back to back over a line that loses, doubles and damages frames, on a clock of its own.

use std::collections::VecDeque;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::limits::{HELLO_MS, LINK_RTO_MS_MAX, LINK_SILENCE_MS};
use crate::link::memory::{DeviceMemory, Fixed};
use crate::random::SeededRandom;
use crate::time::Duration;
use crate::wire::cobs::Deframer;
use crate::wire::frame::SessionSeed;

type TestLink = Link<Large>;
type SmallLink = Link<DeviceMemory<64, 42, 0, 64>>;

/// As much as there can be, both ways.
struct Large;

impl Memory for Large {
    type Send = Fixed<8196>;
    type SendUrgent = Fixed<600>;
    type Receive = Fixed<4098>;
    type ReceiveUrgent = Fixed<600>;
    type Frame = Deframer<LINK_MTU_BYTES_MAX>;
}

/// The sizes of C-31.
const SIZES: [usize; 6] = [0, 1, 20, 21, 4096, 300];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// C-31, C-32, C-34: every message arrives once, in order and whole, whatever the line does.
    #[test]
    fn c_31_messages_arrive_once_in_order_and_intact(
        seed in any::<u64>(),
        mtus in (20usize..=1024, prop_oneof![Just(20usize), Just(256), 20usize..=1024]),
        faults in (0u64..10, 0u64..20, 0u64..4),
        chunk in prop_oneof![Just(1usize), Just(usize::MAX), 1usize..300],
    ) {
        let (loss, copies, damage) = faults;
        let mut pair = Pair::new(seed, mtus, Line { loss, copies, damage, chunk, ..Line::GOOD });
        pair.open();
        exchange(&mut pair);
    }

    /// C-32, C-34: garbage between frames costs at most the frame it touches.
    #[test]
    fn c_32_garbage_between_frames_is_skipped(seed in any::<u64>()) {
        let mut pair = Pair::new(seed, (256, 64), Line { garbage: true, ..Line::GOOD });
        pair.open();
        exchange(&mut pair);
    }

    /// C-66: octets of a stranger never panic and never surface.
    #[test]
    fn c_66_hostile_octets_never_surface(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20)) {
        let mut pair = Pair::new(1, (256, 256), Line::GOOD);
        pair.open();
        let now = pair.now;
        for octets in chunks {
            prop_assert!(feed_all(&mut pair.sides[0], &octets, now).is_empty());
        }
    }

    /// C-66: frames of a peer that breaks every rule but the checksum never panic, and a message is never too large.
    #[test]
    fn c_66_hostile_frames_never_panic(
        frames in prop::collection::vec((0u8..4, any::<[u8; 2]>(), any::<[bool; 3]>(), 0usize..50, any::<u32>()), 0..80),
    ) {
        let mut link = SmallLink::new(Config { role: Role::Gateway, boot_id: 7, mtu: 64 }, Instant::ZERO);
        let mut out = [0; LINK_MTU_BYTES_MAX];
        let seed = Some(SessionSeed::new(7, 9));
        let hello = |echo, boot_id| Frame::Hello(Hello { ask: true, boot_id, echo, mtu: 20, window: 52 });
        let bytes = hello(7, 9).emit(Role::Device, None, &mut out).expect("it fits");
        feed_all(&mut link, &out[..bytes], Instant::ZERO);
        for (kind, [number, before], [first, last, urgent], length, id) in frames {
            let payload = [id as u8; 60];
            let arrived = Arrived { newest: before % 8, before: before.into() };
            let stream = if urgent { Stream::Urgent } else { Stream::Ordered };
            let (offset, limit) = ((id >> 16) as u16 % 128, (id >> 8) as u16);
            let payload = &payload[..length];
            let frame = match kind {
                0 => Frame::Data { stream, number, offset, arrived: first.then_some(arrived), limit: last.then_some(limit), payload },
                1 => Frame::Ack { arrived, stream, limit },
                2 => Frame::Probe { answer: first, token: number, padding: payload },
                _ if first => hello(id, id.max(1)),
                _ => hello(7, 9),
            };
            let bytes = frame.emit(Role::Device, seed, &mut out).expect("it fits");
            feed_all(&mut link, &out[..bytes], Instant::ZERO);
            if let Some((stream, message)) = link.message() {
                prop_assert!(message.len() <= 40);
                if first {
                    link.release(stream);
                }
            }
            let sent = link.send(payload);
            prop_assert!(sent.is_ok() || length > 50 || link.room() < length.max(1) || link.message_bytes_max().is_none());
            while link.poll_transmit(Instant::ZERO, &mut out).is_some() {}
        }
    }
}

#[test]
fn nothing_is_sent_twice_on_a_good_line() {
    let mut pair = Pair::new(1, (256, 256), Line::GOOD);
    pair.open();
    let before = pair.sides[0].counts().sent;
    pair.sides[0].send(&[7; 2460]).expect("room");
    pair.run_until(|pair| !pair.received[1].is_empty());
    assert_eq!(pair.sides[0].counts().sent - before, 11, "ten frames of 246 octets, and two for the length");
    assert_eq!(pair.sides[1].counts().dropped, 0);
}

#[test]
fn a_restarted_device_ends_the_session_and_half_a_message_never_surfaces() {
    for restarted in [0, 1] {
        let mut pair = Pair::new(1, (20, 20), Line::GOOD);
        pair.open();
        pair.sides[0].send(&[1; 1000]).expect("room");
        (0..8).for_each(|_| pair.step());
        pair.restart(restarted);
        pair.events.clear();
        pair.run_until(|pair| pair.is_open());
        assert!(pair.events.contains(&(1 - restarted, Event::Restarted)), "{restarted}");
        pair.sides[0].send(&[2; 1000]).expect("room");
        pair.run_until(|pair| !pair.received[1].is_empty());
        assert_eq!(pair.received[1], [vec![2; 1000]]);
    }
}

/// C-34: what is left of an earlier session on the line does no harm.
#[test]
fn c_34_frames_of_an_earlier_session_are_dropped() {
    let mut pair = Pair::new(1, (64, 64), Line::GOOD);
    pair.open();
    pair.sides[0].send(b"of the first session").expect("room");
    let mut out = [0; LINK_MTU_BYTES_MAX];
    let bytes = pair.sides[0].poll_transmit(pair.now, &mut out).expect("a frame");
    pair.restart(0);
    pair.run_until(|pair| pair.is_open());
    let now = pair.now;
    assert_eq!(feed_all(&mut pair.sides[1], &out[..bytes], now), []);
    assert_eq!(pair.sides[1].counts().dropped, 1);
}

#[test]
fn a_silent_peer_is_reported_once_and_then_asked_each_second() {
    let mut pair = Pair::new(1, (256, 256), Line::GOOD);
    pair.open();
    pair.cut = true;
    pair.sides[0].send(b"anybody there?").expect("room");
    let since = pair.now;
    pair.run_until(|pair| pair.events.contains(&(0, Event::Silent)));
    assert_eq!(pair.now.since(since), Duration::from_millis(LINK_SILENCE_MS));
    assert_eq!(pair.sides[0].send(b"again"), Err(SendError::NotOpen));

    let before = (pair.now, pair.sides[0].counts().sent);
    (0..20).for_each(|_| pair.step());
    let seconds = pair.now.since(before.0).as_millis() / u128::from(HELLO_MS);
    let hellos = pair.sides[0].counts().sent - before.1;
    assert!(seconds >= 5 && u128::from(hellos).abs_diff(seconds) <= 1, "{hellos} in {seconds} s");

    pair.cut = false;
    pair.events.clear();
    pair.run_until(|pair| pair.is_open());
    assert!(!pair.events.contains(&(0, Event::Silent)));
    exchange(&mut pair);
}

/// C-67: the largest message is known before sending, and a larger one is an error of its own.
#[test]
fn c_67_a_message_larger_than_the_peer_takes_is_refused_and_never_cut() {
    let mut gateway = TestLink::new(Config { role: Role::Gateway, boot_id: 1, mtu: 256 }, Instant::ZERO);
    assert_eq!((gateway.send(b""), gateway.message_bytes_max()), (Err(SendError::NotOpen), None));
    let hello = Hello { ask: false, boot_id: 2, echo: 1, mtu: 1024, window: 514 };
    let mut out = [0; LINK_MTU_BYTES_MAX];
    let bytes = Frame::Hello(hello).emit(Role::Device, None, &mut out).expect("it fits");
    let opened = Event::Opened { boot_id: 2, mtu: 256, message_bytes_max: 512 };
    assert_eq!(feed_all(&mut gateway, &out[..bytes], Instant::ZERO), [opened]);
    assert_eq!(gateway.send(&[0; 513]), Err(SendError::TooLarge { message_bytes_max: 512 }));
    while gateway.room() >= 512 {
        assert_eq!(gateway.send(&[0; 512]), Ok(()));
    }
    let room = gateway.room();
    assert_eq!(gateway.send(&vec![0; room + 1]), Err(SendError::Full));
    assert_eq!((gateway.send(&vec![0; room]), gateway.room()), (Ok(()), 0));
}

#[test]
fn another_version_is_reported_and_gets_no_session() {
    let mut link = TestLink::new(Config { role: Role::Device, boot_id: 1, mtu: 256 }, Instant::ZERO);
    // HELLO of version 9, boot id 2, echo 1.
    let body = [0x10, 9, 2, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 16];
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(&body).to_le_bytes();
    let mut out = [0; 40];
    let bytes = crate::wire::cobs::encode(&[&body, &crc], &mut out).expect("it fits");
    assert_eq!(feed_all(&mut link, &out[..bytes], Instant::ZERO), [Event::VersionRefused(9)]);
    assert_eq!(link.send(b""), Err(SendError::NotOpen));
}

#[test]
fn a_line_that_echoes_is_a_line_like_any_other() {
    let mut pair = Pair::new(1, (256, 64), Line { echo: true, ..Line::GOOD });
    pair.open();
    exchange(&mut pair);
    assert!(!pair.events.contains(&(0, Event::Restarted)) && !pair.events.contains(&(1, Event::Restarted)));
}

#[test]
fn a_side_that_hears_only_itself_or_its_like_opens_no_session() {
    for role in [Role::Gateway, Role::Device] {
        for other_boot_id in [1, 2] {
            let mut a = TestLink::new(Config { role, boot_id: 1, mtu: 256 }, Instant::ZERO);
            let mut b = TestLink::new(Config { role, boot_id: other_boot_id, mtu: 256 }, Instant::ZERO);
            let mut out = [0; LINK_MTU_BYTES_MAX];
            for second in 0..10 {
                let now = Instant::from_millis(second * HELLO_MS);
                assert_eq!((a.handle_timeout(now), b.handle_timeout(now)), (None, None));
                let bytes = a.poll_transmit(now, &mut out).expect("it asks each second");
                assert_eq!(
                    (feed_all(&mut a, &out[..bytes], now), feed_all(&mut b, &out[..bytes], now)),
                    (vec![], vec![])
                );
                let bytes = b.poll_transmit(now, &mut out).expect("it asks each second");
                assert_eq!(feed_all(&mut a, &out[..bytes], now), []);
            }
        }
    }
}

/// A round trip measured with a short message says nothing of a long one; still nothing is sent twice.
#[test]
fn no_frame_is_sent_again_while_it_is_in_the_queue_of_a_slow_line() {
    for mtu in [20, 64, 256, 512, 1024] {
        let mut pair = Pair::new(1, (mtu, mtu), Line { baud: 9600, ..Line::GOOD });
        pair.open();
        for (count, length) in [5, 4007, 5, 4007, 4007, 20].into_iter().enumerate() {
            pair.sides[0].send(&vec![7; length]).expect("room");
            pair.run_until(|pair| pair.received[1].len() > count);
            pair.sides[1].send(&[1; 9]).expect("room");
            pair.run_until(|pair| pair.received[0].len() > count);
        }
        assert_eq!(pair.resent(), 0, "{mtu}");
    }
}

/// An ack may ride on a long frame; on a line that holds one frame, nothing is sent twice.
#[test]
fn a_slow_line_in_use_both_ways_sees_no_frame_twice() {
    for mtu in [20, 64, 256, 512, 1024] {
        let mut pair = Pair::new(1, (mtu, mtu), Line { baud: 9600, is_short: true, ..Line::GOOD });
        pair.open();
        for (count, length) in [5, 4007, 4007, 20].into_iter().enumerate() {
            pair.sides.iter_mut().for_each(|side| side.send(&vec![7; length]).expect("room"));
            pair.run_until(|pair| pair.received.iter().all(|received| received.len() > count));
        }
        assert_eq!(pair.resent(), 0, "{mtu}");
    }
}

#[test]
fn both_directions_at_once_share_frames() {
    let mut pair = Pair::new(5, (128, 128), Line::GOOD);
    pair.open();
    for _ in 0..10 {
        pair.sides.iter_mut().for_each(|side| side.send(&[3; 500]).expect("room"));
    }
    pair.run_until(|pair| pair.received.iter().all(|received| received.len() == 10));
}

/// C-33: an urgent message overtakes a large one between its frames, and both arrive whole.
#[test]
fn c_33_an_urgent_message_overtakes_one_that_is_on_its_way() {
    let mut pair = Pair::new(1, (64, 64), Line { baud: 115_200, is_short: true, ..Line::GOOD });
    pair.open();
    pair.sides[0].set_urgent_window(600);
    pair.sides[0].send(&[1; 4000]).expect("room");
    (0..10).for_each(|_| pair.step());
    pair.sides[0].send_urgent(&[2; 20], 600).expect("room");
    pair.run_until(|pair| pair.received[1].len() == 2);
    assert_eq!(pair.received[1], [vec![2; 20], vec![1; 4000]]);
    assert!(pair.sides[0].send_urgent(&[2; 599], 600).is_err());
}

/// The ack with the room of the urgent stream is lost while the other stream never rests: the room is asked for all the same.
#[test]
fn c_33_urgent_messages_do_not_wait_for_the_others_when_their_credit_was_lost() {
    let mut pair = Pair::new(1, (256, 256), Line { baud: 115_200, is_short: true, ..Line::GOOD });
    pair.open();
    pair.sides[0].set_urgent_window(600);
    pair.is_slow = true;
    pair.sides[0].send_urgent(&[1; 598], 600).expect("room");
    pair.run_until(|pair| pair.sides[0].is_idle() && pair.sides[1].message().is_some());
    pair.is_slow = false;
    pair.hear(1);
    pair.sides[1].poll_transmit(pair.now, &mut [0; LINK_MTU_BYTES_MAX]).expect("it tells how much room there is");
    pair.sides[0].send_urgent(&[2; 20], 600).expect("room");
    let start = pair.now;
    while pair.received[1].last() != Some(&vec![2; 20]) {
        while pair.sides[0].send(&[3; 97]).is_ok() {}
        pair.step();
        assert!(pair.now.since(start) < Duration::from_millis(LINK_CREDIT_MS + 200), "{:?}", pair.now);
    }
}

/// A window that offsets cannot tell from none counts as the largest that they can.
#[test]
fn a_window_of_more_than_half_of_all_offsets_is_no_end_of_credit() {
    let mut pair = Pair::new(1, (256, 256), Line::GOOD);
    pair.open();
    pair.sides[0].set_urgent_window(u16::MAX);
    pair.sides[0].send_urgent(&[1; 20], u16::MAX).expect("room");
    pair.run_until(|pair| pair.received[1].len() == 1);
}

/// An application that takes nothing is sent what its window holds and no octet more; then everything comes.
#[test]
fn a_slow_application_is_never_overrun_and_loses_nothing() {
    let mut pair = Pair::new(7, (256, 256), Line { loss: 10, ..Line::GOOD });
    pair.open();
    pair.is_slow = true;
    let mut sent = 0;
    for _ in 0..400 {
        while sent < 200 && pair.sides[0].send(&[sent; 97]).is_ok() {
            sent += 1;
        }
        pair.step();
    }
    assert!(pair.received[1].is_empty());
    assert!(!pair.events.contains(&(0, Event::Silent)), "it answers, though it takes nothing");
    pair.is_slow = false;
    for _ in 0..10_000 {
        while sent < 200 && pair.sides[0].send(&[sent; 97]).is_ok() {
            sent += 1;
        }
        pair.step();
    }
    assert_eq!(pair.received[1].len(), 200);
    assert!(pair.received[1].iter().enumerate().all(|(at, message)| message == &[at as u8; 97]));
}

#[test]
fn a_peer_that_sleeps_is_left_alone_until_it_says_something() {
    let mut pair = Pair::new(1, (256, 256), Line::GOOD);
    pair.open();
    pair.sides[1].send(b"good night").expect("room");
    pair.run_until(|pair| !pair.received[0].is_empty());
    pair.sides[0].sleep();
    pair.run_until(|pair| pair.sides[1].is_idle());
    pair.sides[0].send(b"when you wake").expect("room");
    let sent = pair.sides[0].counts().sent;
    pair.now = pair.now + Duration::from_secs(3_600);
    (0..10).for_each(|_| pair.step());
    assert_eq!((pair.sides[0].counts().sent, pair.sides[0].poll_timeout()), (sent, None));
    pair.sides[1].send(b"good morning").expect("room");
    pair.run_until(|pair| !pair.received[1].is_empty());
    assert!(!pair.sides[0].is_asleep());
    assert_eq!(pair.received[1], [b"when you wake"]);
    assert!(!pair.events.contains(&(0, Event::Silent)));
}

/// Each question for room is given up when its timer runs out; together they tell that nobody is there.
#[test]
fn a_peer_that_leaves_questions_for_room_unanswered_is_silent() {
    let mut pair = Pair::new(1, (256, 256), Line::GOOD);
    pair.open();
    pair.is_slow = true;
    for _ in 0..2 {
        pair.sides[0].send(&[7; 3000]).expect("room");
    }
    let end = pair.now + Duration::from_secs(60);
    while pair.now < end {
        pair.step();
    }
    assert!(pair.is_open(), "who answers is there");
    pair.cut = true;
    let end = pair.now + Duration::from_millis(LINK_SILENCE_MS + LINK_CREDIT_MS + u64::from(LINK_RTO_MS_MAX));
    while pair.now < end {
        pair.step();
    }
    assert!(pair.events.contains(&(0, Event::Silent)));
}

/// The frame with Sleep was lost and came again, behind what the peer said later.
#[test]
fn a_peer_that_said_more_than_that_it_sleeps_is_awake() {
    let mut pair = Pair::new(1, (256, 256), Line::GOOD);
    pair.open();
    pair.is_slow = true;
    for message in [&b"good night"[..], b"good morning"] {
        pair.sides[1].send(message).expect("room");
    }
    pair.run_until(|pair| pair.sides[1].is_idle());
    let side = &mut pair.sides[0];
    assert_eq!(side.message(), Some((Stream::Ordered, &b"good night"[..])));
    side.release(Stream::Ordered);
    side.sleep();
    assert!(!side.is_asleep());
    side.release(Stream::Ordered);
    side.sleep();
    assert!(side.is_asleep());
}

#[test]
fn a_probe_is_answered_with_or_without_a_session() {
    let mut pair = Pair::new(1, (256, 64), Line::GOOD);
    for token in [1, 2] {
        pair.sides[0].probe(token);
        pair.run_until(|pair| pair.events.contains(&(0, Event::ProbeAnswered(token))));
        pair.open();
    }
}

/// What is asked is not kept back by an answer that cannot be given any more.
#[test]
fn a_probe_that_was_overwritten_is_not_answered_and_holds_nothing_up() {
    let mut pair = Pair::new(1, (256, 64), Line::GOOD);
    pair.open();
    let mut question = [0; LINK_MTU_BYTES_MAX];
    let bytes = Frame::Probe { answer: false, token: 1, padding: b"x" }.emit(Role::Device, None, &mut question);
    let (now, mut out) = (pair.now, [0; LINK_MTU_BYTES_MAX]);
    feed_all(&mut pair.sides[0], &question[..bytes.expect("it fits")], now);
    pair.sides[0].probe(2);
    feed_all(&mut pair.sides[0], b"noise", now);
    let bytes = pair.sides[0].poll_transmit(now, &mut out).expect("the question is due");
    let frame = Frame::Probe { answer: false, token: 2, padding: b"" };
    let mut expected = [0; LINK_MTU_BYTES_MAX];
    assert_eq!(frame.emit(Role::Gateway, None, &mut expected), Some(bytes));
    assert_eq!(out, expected);
}

/// Who asks for the limit gets it, also in a frame that carries octets.
#[test]
fn a_question_for_the_limit_is_answered_although_there_is_something_to_say() {
    let mut pair = Pair::new(1, (256, 256), Line::GOOD);
    pair.open();
    let seed = pair.sides[0].handshake.session().map(|session| session.seed);
    let (now, mut out) = (pair.now, [0; LINK_MTU_BYTES_MAX]);
    let question =
        Frame::Data { stream: Stream::Ordered, number: 0, offset: 0, arrived: None, limit: None, payload: &[] };
    let bytes = question.emit(Role::Device, seed, &mut out).expect("it fits");
    feed_all(&mut pair.sides[0], &out[..bytes], now);
    pair.sides[0].send(b"hello").expect("room");
    let bytes = pair.sides[0].poll_transmit(now, &mut out).expect("the answer");
    let mut deframer = Deframer::<LINK_MTU_BYTES_MAX>::new(LINK_MTU_BYTES_MAX);
    deframer.feed(&out[..bytes]);
    let answer = Frame::parse(deframer.frame(), Role::Gateway, seed);
    assert!(matches!(answer, Ok(Frame::Data { arrived: Some(_), limit: Some(4098), .. })), "{answer:?}");
}

#[test]
fn what_can_never_be_a_message_ends_the_session_of_whoever_says_it() {
    let mut pair = Pair::new(1, (256, 256), Line::GOOD);
    pair.open();
    let seed = pair.sides[1].handshake.session().map(|session| session.seed);
    let mut out = [0; LINK_MTU_BYTES_MAX];
    let data = Frame::Data {
        stream: Stream::Ordered,
        number: 0,
        offset: 0,
        arrived: None,
        limit: None,
        payload: &[0xff, 0xff],
    };
    let bytes = data.emit(Role::Device, seed, &mut out).expect("it fits");
    let now = pair.now;
    assert_eq!(feed_all(&mut pair.sides[0], &out[..bytes], now), [Event::Broken]);
    pair.open = [false; 2];
    pair.run_until(|pair| pair.is_open());
    exchange(&mut pair);
}

/// It stood behind a message, and the peer says no more.
#[test]
fn what_can_never_be_a_message_is_noticed_once_the_one_before_it_is_released() {
    let mut pair = Pair::new(1, (256, 256), Line::GOOD);
    pair.open();
    let seed = pair.sides[1].handshake.session().map(|session| session.seed);
    let (now, mut out) = (pair.now, [0; LINK_MTU_BYTES_MAX]);
    let payload = &[1, 7, 0xff, 0xff];
    let data = Frame::Data { stream: Stream::Ordered, number: 0, offset: 0, arrived: None, limit: None, payload };
    let bytes = data.emit(Role::Device, seed, &mut out).expect("it fits");
    let side = &mut pair.sides[0];
    assert_eq!(feed_all(side, &out[..bytes], now), [Event::Message]);
    assert_eq!((side.handle_timeout(now), side.message()), (None, Some((Stream::Ordered, &[7][..]))));
    side.release(Stream::Ordered);
    assert!(side.poll_timeout().is_some_and(|at| at <= now));
    assert_eq!(side.handle_timeout(now), Some(Event::Broken));
    assert_eq!((side.message_bytes_max(), side.handle_timeout(now)), (None, None));
}

#[test]
fn a_link_is_as_large_as_stated() {
    let state = size_of::<SmallLink>() - 64 - 42 - 64;
    assert!(state < 576, "{state} octets of state");
    let idle = size_of::<Link<crate::link::elastic::GatewayMemory>>();
    assert!(idle < 1024, "{idle} octets of an idle link of the gateway");
}

/// Every size in both directions, each taken as soon as there is room.
fn exchange(pair: &mut Pair) {
    pair.received = [Vec::new(), Vec::new()];
    let messages: Vec<Vec<u8>> =
        SIZES.iter().map(|&size| (0..size).map(|index| index as u8 ^ size as u8).collect()).collect();
    let mut sent = [0, 0];
    for _ in 0..200_000 {
        for (side, sent) in sent.iter_mut().enumerate() {
            while *sent < messages.len() && pair.sides[side].send(&messages[*sent]).is_ok() {
                *sent += 1;
            }
        }
        if pair.received.iter().all(|received| received.len() >= messages.len()) {
            break;
        }
        pair.step();
    }
    let calm = pair.now + Duration::from_millis(2 * u64::from(LINK_RTO_MS_MAX));
    while pair.now < calm && pair.sides.iter().any(|side| side.poll_timeout().is_some()) {
        pair.step();
    }
    assert_eq!(pair.received, [messages.clone(), messages]);
}

/// What a line does to frames: shares in percent.
#[derive(Clone, Copy, Debug)]
struct Line {
    loss: u64,
    copies: u64,
    damage: u64,
    /// Octets handed over at once.
    chunk: usize,
    /// Noise before each frame.
    garbage: bool,
    /// Whether a side hears itself, as on a half duplex line.
    echo: bool,
    /// Bits a second, ten for each octet; 0 is no limit.
    baud: u64,
    /// Whether the line takes a frame only when it is free.
    is_short: bool,
}

impl Line {
    const GOOD: Self = Self {
        loss: 0,
        copies: 0,
        damage: 0,
        chunk: usize::MAX,
        garbage: false,
        echo: false,
        baud: 0,
        is_short: false,
    };
}

/// The gateway's end is side 0, the device's is side 1.
struct Pair {
    sides: [TestLink; 2],
    towards: [VecDeque<(Instant, Vec<u8>)>; 2],
    received: [Vec<Vec<u8>>; 2],
    events: Vec<(usize, Event)>,
    open: [bool; 2],
    mtus: (usize, usize),
    line: Line,
    cut: bool,
    /// Whether the applications take nothing.
    is_slow: bool,
    random: SeededRandom,
    boot_id: u32,
    now: Instant,
}

impl Pair {
    fn new(seed: u64, mtus: (usize, usize), line: Line) -> Self {
        let now = Instant::from_millis(5);
        let config = |role, boot_id, mtu| Config { role, boot_id, mtu };
        let sides = [
            TestLink::new(config(Role::Gateway, 0x0100_0000, mtus.0), now),
            TestLink::new(config(Role::Device, 0x0200_0000, mtus.1), now),
        ];
        Self {
            sides,
            towards: Default::default(),
            received: Default::default(),
            events: Vec::new(),
            open: [false; 2],
            mtus,
            line,
            cut: false,
            is_slow: false,
            random: SeededRandom::new(seed),
            boot_id: 0x0300_0000,
            now,
        }
    }

    fn open(&mut self) {
        self.run_until(Self::is_open);
    }

    fn is_open(&self) -> bool {
        self.open == [true, true]
    }

    fn restart(&mut self, side: usize) {
        self.boot_id += 0x0100_0000;
        let (role, mtu) = if side == 0 { (Role::Gateway, self.mtus.0) } else { (Role::Device, self.mtus.1) };
        self.sides[side] = TestLink::new(Config { role, boot_id: self.boot_id, mtu }, self.now);
        self.open = [false; 2];
    }

    fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..20_000 {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("not done by {:?}: {:?}", self.now, self.events);
    }

    /// Everything due is sent; then time goes on to whatever happens next.
    fn step(&mut self) {
        let mut out = [0; LINK_MTU_BYTES_MAX];
        for side in 0..2 {
            while self.is_free(side)
                && let Some(bytes) = self.sides[side].poll_transmit(self.now, &mut out)
            {
                self.carry(1 - side, &out[..bytes]);
                if self.line.echo {
                    self.carry(side, &out[..bytes]);
                }
            }
        }
        let arrivals = self.towards.iter().filter_map(|line| line.front().map(|(at, _)| *at));
        let timers = self.sides.iter().filter_map(TestLink::poll_timeout);
        self.now = arrivals.chain(timers).min().unwrap_or(self.now + Duration::from_secs(1)).max(self.now);
        for side in 0..2 {
            while let Some((_, octets)) = self.towards[side].pop_front_if(|(at, _)| *at <= self.now) {
                self.deliver(side, &octets);
            }
            self.hear(side);
            let event = self.sides[side].handle_timeout(self.now);
            self.note(side, event);
        }
    }

    fn is_free(&self, side: usize) -> bool {
        !self.line.is_short || self.towards[1 - side].is_empty()
    }

    fn resent(&self) -> u32 {
        self.sides.iter().map(|side| side.counts().resent).sum()
    }

    fn carry(&mut self, to: usize, frame: &[u8]) {
        if self.cut || self.chance(self.line.loss) {
            return;
        }
        let free_at = self.towards[to].back().map_or(self.now, |(last, _)| self.now.max(*last));
        let line_ms = (frame.len() as u64 * 10_000).checked_div(self.line.baud).unwrap_or(0);
        let at = (self.now + Duration::from_millis(2 + self.below(3))).max(free_at + Duration::from_millis(line_ms));
        let mut octets = frame.to_vec();
        if self.chance(self.line.damage) {
            let index = self.below(octets.len() as u64) as usize;
            octets[index] ^= 1 << self.below(8);
        }
        if self.line.garbage {
            let noise: Vec<u8> = (0..self.below(40)).map(|_| self.below(256) as u8).chain([0]).collect();
            octets.splice(0..0, noise);
        }
        if self.chance(self.line.copies) {
            self.towards[to].push_back((at, octets.clone()));
        }
        self.towards[to].push_back((at, octets));
    }

    fn deliver(&mut self, side: usize, octets: &[u8]) {
        for mut octets in octets.chunks(self.line.chunk) {
            while !octets.is_empty() {
                let (taken, event) = self.sides[side].feed(octets, self.now);
                octets = &octets[taken..];
                self.note(side, event);
            }
        }
    }

    /// The application takes what is there.
    fn hear(&mut self, side: usize) {
        while !self.is_slow
            && let Some((stream, message)) = self.sides[side].message()
        {
            self.received[side].push(message.to_vec());
            self.sides[side].release(stream);
        }
    }

    fn note(&mut self, side: usize, event: Option<Event>) {
        match event {
            Some(Event::Opened { .. }) => self.open[side] = true,
            Some(Event::Restarted | Event::Silent) => self.open[side] = false,
            _ => {}
        }
        self.events.extend(event.filter(|event| *event != Event::Message).map(|event| (side, event)));
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn below(&mut self, end: u64) -> u64 {
        self.random.next_u64() % end
    }
}

fn feed_all<M: Memory>(link: &mut Link<M>, mut octets: &[u8], now: Instant) -> Vec<Event> {
    let mut events = Vec::new();
    while !octets.is_empty() {
        let (taken, event) = link.feed(octets, now);
        octets = &octets[taken..];
        events.extend(event);
    }
    events
}
