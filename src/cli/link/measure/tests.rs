use super::*;
use crate::random::SeededRandom;
use crate::wire::cobs::Deframer;
use crate::wire::frame::Hello;

#[test]
fn the_fastest_speed_with_answers_is_found_and_measured_at() {
    let mut end = FarEnd { baud: Some(115_200), mtu: 256, ..FarEnd::default() };
    let result = run(plan(&[460_800, 230_400, 115_200, 9_600], 1024, 50), &mut end).expect("it answers");
    assert_eq!((result.baud, result.mtu), (Some(115_200), 256));
    let seen: Vec<_> = result.sizes.iter().map(|size| (size.octets, size.sent, size.lost())).collect();
    assert_eq!(seen, [(8, 50, 0), (132, 50, 0), (256, 50, 0)]);
    let summary = result.sizes[0].summary().expect("answered");
    assert_eq!((summary.min, summary.p99), (end.delay, end.delay));
}

#[test]
fn every_largest_frame_is_found_exactly() {
    for mtu in [20, 21, 64, 255, 256, 258, 1023, 1024] {
        let mut end = FarEnd { mtu, ..FarEnd::default() };
        assert_eq!(run(plan(&[], 1024, 1), &mut end).expect("it answers").mtu, mtu);
        assert!(end.now < Duration::from_secs(12), "{:?}", end.now);
        assert_eq!(run(plan(&[], 100, 1), &mut end).expect("it answers").mtu, mtu.min(100));
    }
}

#[test]
fn a_device_that_says_its_largest_frame_spares_the_search() {
    let mut end = FarEnd { mtu: 64, says_hello: true, ..FarEnd::default() };
    assert_eq!(run(plan(&[], 1024, 1), &mut end).expect("it answers").mtu, 64);
    assert!(end.now < Duration::from_secs(1), "{:?}", end.now);

    let mut prober = Prober::new(plan(&[], 1024, 1));
    let first = sent(&mut prober, Duration::ZERO);
    prober.feed(&answer(&first), Duration::ZERO);
    assert!(sent(&mut prober, Duration::ZERO).len() > 1_000);
    let hello = Hello { ask: true, boot_id: 1, echo: 0, mtu: 64, window: 512 };
    prober.feed(&emitted(Frame::Hello(hello), Role::Device), Duration::ZERO);
    assert_eq!(sent(&mut prober, Duration::ZERO).len(), 1 + 64, "the larger one is not waited for");
}

#[test]
fn what_is_lost_is_counted_and_the_rest_measured() {
    let mut end = FarEnd { loss_percent: 20, ..FarEnd::default() };
    let result = run(plan(&[], 64, 1_000), &mut end).expect("it answers");
    for size in &result.sizes {
        assert_eq!(size.sent, 1_000);
        assert!((150..250).contains(&size.lost()), "{}", size.lost());
    }
}

#[test]
fn a_line_that_dies_ends_each_size_after_a_few_probes() {
    let mut end = FarEnd { dies_after: Some(20), ..FarEnd::default() };
    let result = run(plan(&[], 64, 1_000), &mut end).expect("it answered");
    assert!(result.sizes.iter().all(|size| size.lost() == LINK_PROBE_LOST_COUNT_MAX));
    assert!(end.now < Duration::from_secs(60), "{:?}", end.now);
}

#[test]
fn a_silent_line_is_given_up_in_bounded_time() {
    for (bauds, seconds) in [(&[1_000_000, 9_600][..], 10), (&[9_600], 10), (&[], 10)] {
        let mut end = FarEnd { dies_after: Some(0), ..FarEnd::default() };
        assert_eq!(run(plan(bauds, 1024, 100), &mut end), None);
        assert!(end.now < Duration::from_secs(seconds), "{:?}", end.now);
    }
}

#[test]
fn an_answer_after_its_time_is_late_and_no_answer_to_the_next_probe() {
    let mut prober = Prober::new(plan(&[], 8, 2));
    let mut now = Duration::ZERO;
    let first = sent(&mut prober, now);
    prober.feed(&answer(&first), now);
    let lost = sent(&mut prober, now);
    now += Duration::from_millis(LINK_PROBE_WAIT_MS);
    prober.handle_timeout(now);
    let next = sent(&mut prober, now);
    prober.feed(&answer(&lost), now);
    assert_eq!(prober.result(), None);
    prober.feed(&answer(&next), now);
    let result = prober.result().flatten().expect("done").clone();
    assert_eq!((result.sizes[0].sent, result.sizes[0].lost(), result.sizes[0].late), (2, 1, 1));
}

#[test]
fn echoes_gateways_and_noise_are_told_apart() {
    let mut prober = Prober::new(plan(&[], 8, 2));
    let octets = sent(&mut prober, Duration::ZERO);
    prober.feed(&octets, Duration::ZERO);
    let hello = Hello { ask: true, boot_id: 1, echo: 0, mtu: 20, window: 64 };
    prober.feed(&emitted(Frame::Hello(hello), Role::Gateway), Duration::ZERO);
    prober.feed(b"\x05boot\0", Duration::ZERO);
    let Overheard { echoes, gateways, damaged, .. } = prober.overheard();
    assert_eq!((echoes, gateways, damaged), (1, 1, 1));
    assert_eq!(prober.result(), None);
}

#[test]
fn a_probe_has_the_length_that_was_asked_for() {
    let mut prober = Prober::new(plan(&[], 8, 1));
    for bytes in PROBE_BYTES_MIN..=LINK_MTU_BYTES_MAX {
        let has_none = [257, 512, 767, 1022].contains(&bytes);
        for _ in 0..3 {
            assert_eq!(prober.next_probe(bytes).1.len() - 1 + usize::from(has_none), bytes);
        }
    }
    let values: std::collections::BTreeSet<u8> = probe(LINK_MTU_BYTES_MAX, 7).into_iter().collect();
    assert_eq!(values.len(), 256, "XON and XOFF are among them");
}

/// A line and a device at its far end, in simulated time.
struct FarEnd {
    baud: Option<u32>,
    mtu: usize,
    loss_percent: u64,
    dies_after: Option<u32>,
    says_hello: bool,
    delay: Duration,
    random: SeededRandom,
    now: Duration,
}

impl Default for FarEnd {
    fn default() -> Self {
        Self {
            baud: None,
            mtu: 1024,
            loss_percent: 0,
            dies_after: None,
            says_hello: false,
            delay: Duration::from_millis(2),
            random: SeededRandom::new(1),
            now: Duration::ZERO,
        }
    }
}

impl FarEnd {
    fn answers(&mut self, octets: &[u8], baud: Option<u32>) -> bool {
        let is_alive = self.dies_after.is_none_or(|count| count > 0);
        self.dies_after = self.dies_after.map(|count| count.saturating_sub(1));
        let is_lost = self.random.next_u64() % 100 < self.loss_percent;
        is_alive && !is_lost && octets.len() - 1 <= self.mtu && (self.baud.is_none() || self.baud == baud)
    }
}

fn plan(bauds: &[u32], mtu: usize, count: u32) -> Plan {
    Plan { bauds: bauds.to_vec(), mtu, count }
}

/// Runs the machine to its end.
fn run(plan: Plan, end: &mut FarEnd) -> Option<Result> {
    let (mut prober, mut baud) = (Prober::new(plan), None);
    if end.says_hello {
        let hello = Hello { ask: true, boot_id: 1, echo: 0, mtu: end.mtu as u16, window: 512 };
        prober.feed(&emitted(Frame::Hello(hello), Role::Device), end.now);
    }
    loop {
        while let Some(output) = prober.poll_output(end.now) {
            match output {
                Output::Speed(speed) => baud = Some(speed),
                Output::Send(octets) if end.answers(&octets, baud) => {
                    end.now += end.delay;
                    prober.feed(&answer(&octets), end.now);
                }
                Output::Send(_) => {}
            }
        }
        if let Some(result) = prober.result() {
            return result.cloned();
        }
        end.now = prober.poll_timeout().expect("something is awaited");
        prober.handle_timeout(end.now);
    }
}

fn sent(prober: &mut Prober, now: Duration) -> Vec<u8> {
    let Some(Output::Send(octets)) = prober.poll_output(now) else { panic!("a probe") };
    octets
}

fn answer(octets: &[u8]) -> Vec<u8> {
    let mut deframer = Deframer::<LINK_MTU_BYTES_MAX>::new(LINK_MTU_BYTES_MAX);
    deframer.feed(&octets[..1]);
    assert!(deframer.feed(&octets[1..]).1);
    let Ok(Frame::Probe { token, padding, .. }) = Frame::parse(deframer.frame(), Role::Gateway, None) else {
        panic!("a probe")
    };
    emitted(Frame::Probe { answer: true, token, padding }, Role::Device)
}

fn emitted(frame: Frame<'_>, from: Role) -> Vec<u8> {
    let mut out = [0; LINK_MTU_BYTES_MAX];
    let bytes = frame.emit(from, None, &mut out).expect("it fits");
    out[..bytes].to_vec()
}
