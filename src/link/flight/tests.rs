use super::*;
use crate::limits::LINK_RTO_MS_START;
use std::vec::Vec;

const NOW: Instant = Instant::ZERO;

#[test]
fn so_many_numbers_are_in_flight_and_no_more() {
    let mut flight = Flight::new(20);
    assert_eq!(fill(&mut flight, NOW), (0..16).collect::<Vec<u8>>());
    assert_eq!(flight.sent(piece(99), false, NOW), None);
    assert!(flight.arrived(arrived(0, 0), NOW));
    assert_eq!(fill(&mut flight, NOW), [16]);
}

#[test]
fn an_ack_names_what_arrived_and_what_is_older_and_not_named_is_lost() {
    let mut flight = Flight::new(20);
    fill(&mut flight, NOW);
    assert!(flight.arrived(arrived(4, 0b1010), NOW), "4, 2 and 0");
    assert_eq!(flight.lost(Stream::Ordered, 10), Some(piece(1)));
    assert_eq!(flight.lost(Stream::Urgent, 10), None);
    assert_eq!(flight.oldest_offset(Stream::Ordered, 0), Some(10));
    flight.retake(piece(1), 10);
    assert_eq!(flight.sent(piece(1), false, NOW), Some(16));
    assert_eq!(flight.lost(Stream::Ordered, 10), Some(piece(3)));
    assert!(!flight.arrived(arrived(4, 0b1010), NOW), "nothing new");
    assert_eq!(flight.lost(Stream::Ordered, 10), Some(piece(3)), "and 16 is newer than that ack");
}

/// What was sent again has a newer number than what stands behind it in the stream.
#[test]
fn the_lowest_lost_octets_go_first() {
    let mut flight = Flight::new(20);
    for number in 0..4 {
        flight.sent(piece(number), false, NOW);
    }
    assert!(flight.arrived(arrived(1, 0), NOW), "0 is lost");
    flight.retake(piece(0), 10);
    assert_eq!(flight.sent(piece(0), false, NOW), Some(4));
    assert_eq!(flight.sent(piece(4), false, NOW), Some(5));
    assert!(flight.arrived(arrived(5, 0b0010), NOW), "5 and 3; 2 and what was 0 are lost");
    assert_eq!(flight.lost(Stream::Ordered, 10), Some(piece(0)));
    flight.retake(piece(0), 10);
    assert_eq!(flight.lost(Stream::Ordered, 10), Some(piece(2)));
}

/// Who does not hear of room sends nothing, and then nothing makes it known.
#[test]
fn that_the_limit_was_lost_is_said_once() {
    let mut flight = Flight::new(20);
    for (number, tells_limit) in [(0, false), (1, true), (2, false)] {
        flight.sent(piece(number), tells_limit, NOW);
    }
    assert!(flight.arrived(arrived(1, 0), NOW), "0 is lost, and told nothing");
    assert!(!flight.take_limit_lost());
    flight.sent(piece(3), true, NOW);
    flight.sent(piece(4), false, NOW);
    assert!(flight.arrived(arrived(4, 0b010), NOW), "3 is lost");
    assert_eq!((flight.take_limit_lost(), flight.take_limit_lost()), (true, false));
    flight.sent(Piece { bytes: 0, ..piece(5) }, true, NOW);
    flight.handle_timeout(flight.deadline().expect("a frame is in flight")).expect("not silent yet");
    assert!(flight.take_limit_lost());
}

#[test]
fn a_lost_piece_may_leave_in_smaller_ones() {
    let mut flight = Flight::new(20);
    fill(&mut flight, NOW);
    flight.arrived(arrived(1, 0), NOW);
    flight.retake(piece(0), 4);
    let rest = Piece { offset: 4, bytes: 6, ..piece(0) };
    assert_eq!(flight.lost(Stream::Ordered, 5), None, "all numbers are in flight until the rest has left");
    flight.arrived(arrived(15, 0x3fff), NOW);
    assert_eq!(flight.lost(Stream::Ordered, 10), Some(rest));
}

#[test]
fn acks_of_what_was_never_sent_are_ignored() {
    let mut flight = Flight::new(20);
    assert!(!flight.arrived(arrived(0, 0xffff), NOW));
    flight.sent(piece(0), false, NOW);
    assert!(!flight.arrived(arrived(1, 0xffff), NOW));
    assert!(!flight.arrived(arrived(255, 0xffff), NOW));
    assert!(flight.arrived(arrived(0, 0xffff), NOW));
    assert!(flight.is_empty());
}

#[test]
fn when_the_timer_runs_out_one_frame_probes_and_its_ack_tells_of_the_others() {
    let mut flight = Flight::new(20);
    fill(&mut flight, NOW);
    let late = flight.deadline().expect("in flight");
    assert_eq!(late, NOW + Duration::from_millis(LINK_RTO_MS_START.into()));
    flight.handle_timeout(late).expect("not silent");
    assert_eq!(flight.lost(Stream::Ordered, 10), Some(piece(0)));
    flight.retake(piece(0), 10);
    assert_eq!(flight.sent(piece(0), false, late), Some(16));
    assert!(!flight.has_room());
    assert_eq!(flight.lost(Stream::Ordered, 10), None);
    assert!(flight.arrived(arrived(16, 0), late));
    assert_eq!(flight.lost(Stream::Ordered, 10), Some(piece(1)));
    flight.retake(piece(1), 10);
    assert_eq!(flight.sent(piece(1), false, late), Some(17), "one after the other");
    assert_eq!(flight.lost(Stream::Ordered, 10), Some(piece(2)));
}

#[test]
fn a_peer_of_which_nothing_is_heard_for_half_a_minute_is_silent() {
    let (mut flight, mut now, mut sent_at) = (Flight::new(20), NOW, Vec::new());
    loop {
        flight.sent(piece(0), false, now);
        sent_at.push(now.as_millis());
        flight.handle_timeout(now).expect("early calls are harmless");
        now = flight.deadline().expect("a frame is in flight");
        if flight.handle_timeout(now).is_err() {
            break;
        }
        flight.retake(flight.lost(Stream::Ordered, 10).expect("the oldest"), 10);
    }
    assert_eq!(sent_at, [0, 1_000, 3_000, 7_000, 15_000, 23_000]);
    assert_eq!(now, NOW + Duration::from_millis(LINK_SILENCE_MS));
}

#[test]
fn a_port_that_takes_no_octets_is_silent_as_well() {
    let mut flight = Flight::new(20);
    flight.sent(piece(0), false, NOW);
    let mut end = NOW;
    while let Some(deadline) = flight.deadline() {
        end = deadline;
        if flight.handle_timeout(deadline).is_err() {
            break;
        }
    }
    assert_eq!(end, NOW + Duration::from_millis(LINK_SILENCE_MS));
}

#[test]
fn whatever_arrives_puts_silence_off() {
    let mut flight = Flight::new(20);
    fill(&mut flight, NOW);
    let late = NOW + Duration::from_millis(LINK_SILENCE_MS - 1);
    assert!(flight.arrived(arrived(0, 0), late));
    let end = late + Duration::from_millis(LINK_SILENCE_MS);
    while let Some(deadline) = flight.deadline().filter(|deadline| *deadline < end) {
        flight.handle_timeout(deadline).expect("not silent");
    }
    assert_eq!(flight.handle_timeout(end), Err(Silent));
}

#[test]
fn a_question_for_credit_is_not_repeated_as_such() {
    let mut flight = Flight::new(20);
    flight.sent(Piece { bytes: 0, ..piece(0) }, false, NOW);
    flight.handle_timeout(flight.deadline().expect("in flight")).expect("not silent");
    assert!(flight.is_empty());
    assert_eq!((flight.lost(Stream::Ordered, 10), flight.deadline()), (None, None));
}

fn fill(flight: &mut Flight, now: Instant) -> Vec<u8> {
    let mut numbers = Vec::new();
    while flight.has_room() {
        let next = flight.oldest.wrapping_add(flight.frames.len() as u8);
        numbers.extend(flight.sent(piece(next.into()), false, now));
    }
    numbers
}

fn piece(at: u16) -> Piece {
    Piece { stream: Stream::Ordered, offset: at * 10, bytes: 10 }
}

fn arrived(newest: u8, before: u16) -> Arrived {
    Arrived { newest, before }
}
