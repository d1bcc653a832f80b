use http::HeaderName;
use proptest::prelude::*;

use super::*;

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    headers
}

fn ttl(value: &str) -> Result<u64, InvalidTtl> {
    Ttl::from_headers(&map(&[("ttl", value)])).map(Ttl::as_secs)
}

/// A-PS-23, A-PS-24, A-GAP-20: the whole range, and what lies above it.
#[test]
fn a_ps_24_large_ttl_counts_as_two_to_the_31() {
    assert_eq!(ttl("0"), Ok(0));
    assert_eq!(ttl("000015"), Ok(15));
    assert_eq!(ttl("2147483647"), Ok(2_147_483_647));
    for large in ["2147483648", "4294967296", "18446744073709551616", &"9".repeat(400)] {
        assert_eq!(ttl(large), Ok(2_147_483_648), "{large}");
    }
}

/// A-GAP-02, A-PS-25: everything that is not exactly one run of digits.
#[test]
fn a_gap_02_malformed_ttl_is_refused() {
    for malformed in ["-1", "1.5", "abc", "", "+1", "1 ", "0x10", "1, 1", "1;a=b"] {
        assert_eq!(ttl(malformed), Err(InvalidTtl::Malformed), "{malformed:?}");
    }
    assert_eq!(Ttl::from_headers(&HeaderMap::new()), Err(InvalidTtl::Missing));
    assert_eq!(Ttl::from_headers(&map(&[("ttl", "5"), ("ttl", "5")])), Err(InvalidTtl::Repeated));
}

fn prefer(lines: &[&str]) -> (bool, Option<u64>) {
    let fields: Vec<_> = lines.iter().map(|line| ("prefer", *line)).collect();
    let preferences = Preferences::from_headers(&map(&fields));
    (preferences.respond_async, preferences.wait_s)
}

/// D-7240-01: lists, lines, case, quotes, parameters.
#[test]
fn d_7240_01_preferences_are_recognised_in_every_form() {
    type Expected = (bool, Option<u64>);
    let table: [(&[&str], Expected); 12] = [
        (&[], (false, None)),
        (&["wait=0"], (false, Some(0))),
        (&["WAIT=\"0\""], (false, Some(0))),
        (&["foo;bar=\"x\", Respond-Async"], (true, None)),
        (&["respond-async, wait = 10"], (true, Some(10))),
        (&["respond-async; foo=\"a,b;c\" , wait=\"1\\0\""], (true, Some(10))),
        (&["respond-async", "wait=60;x"], (true, Some(60))),
        (&["foo=\"wait=5, respond-async\""], (false, None)),
        (&[", ,wait=3,,"], (false, Some(3))),
        (&["wait"], (false, None)),
        (&["wait=1x"], (false, None)),
        (&["foo; wait=3"], (false, None)),
    ];
    for (lines, expected) in table {
        assert_eq!(prefer(lines), expected, "{lines:?}");
    }
}

/// D-7240-02, D-7240-03: unknown ones change nothing, the first of several counts.
#[test]
fn d_7240_03_the_first_of_a_repeated_preference_counts() {
    assert_eq!(prefer(&["wait=0, wait=60"]), (false, Some(0)));
    assert_eq!(prefer(&["wait=7", "wait=0"]), (false, Some(7)));
    assert_eq!(prefer(&["wait=x, wait=0"]), (false, None));
    assert_eq!(prefer(&["x=1, wait=0, y"]), (false, Some(0)));
}

/// D-9110-01: seconds, the three date forms, the past, the absurd.
#[test]
fn retry_after_takes_seconds_and_dates() {
    let now = UnixTime(784_111_777 - 20);
    let after = |value| retry_after(&map(&[("retry-after", value)]), now).map(|wait| wait.as_secs());
    assert_eq!(after("20"), Some(20));
    for date in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
        assert_eq!(after(date), Some(20), "{date}");
    }
    assert_eq!(after("Wed, 06 Nov 1974 08:49:37 GMT"), Some(0));
    assert_eq!(after("99999999999999999999999"), Some(RETRY_AFTER_S_MAX));
    assert_eq!(after("Fri, 31 Dec 9999 23:59:59 GMT"), Some(RETRY_AFTER_S_MAX));
    let there = [("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), ("date", "Sun, 06 Nov 1994 08:49:30 GMT")];
    for ours in [0, now.0, 4_000_000_000] {
        assert_eq!(retry_after(&map(&there), UnixTime(ours)), Some(Duration::from_secs(7)), "whatever our clock shows");
    }
    assert_eq!(after("soon"), None);
    assert_eq!(after("-1"), None);
    assert_eq!(retry_after(&HeaderMap::new(), now), None);
}

#[test]
fn max_age_is_found_among_other_directives() {
    let age = |value| max_age(&map(&[("cache-control", value)])).map(|age| age.as_secs());
    assert_eq!(age("private, max-age=30"), Some(30));
    assert_eq!(age("no-cache=\"a, max-age=9\", Max-Age=\"7\""), Some(7));
    assert_eq!(age("max-age=1, max-age=2"), Some(1));
    assert_eq!(age("max-age=x"), None);
    assert_eq!(age("s-maxage=5"), None);
}

/// D-9110-04: IMF-fixdate, and no panic at the end of time.
#[test]
fn d_9110_04_dates_are_imf_fixdate() {
    assert_eq!(http_date(UnixTime(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(http_date(UnixTime(u64::MAX)), "Fri, 31 Dec 9999 23:59:59 GMT");
    assert_eq!(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(UnixTime(784_111_777)));
}

proptest! {
    #[test]
    fn arbitrary_values_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        for name in ["ttl", "prefer", "retry-after", "cache-control"] {
            let Ok(value) = http::HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let mut headers = HeaderMap::new();
            headers.append(HeaderName::from_static(name), value);
            Preferences::from_headers(&headers);
            max_age(&headers);
            prop_assert!(retry_after(&headers, UnixTime(0)).is_none_or(|wait| wait.as_secs() <= RETRY_AFTER_S_MAX));
            prop_assert!(Ttl::from_headers(&headers).is_ok() || name != "ttl" || !bytes.iter().all(u8::is_ascii_digit) || bytes.is_empty());
        }
    }
}

/// A-UA-15, A-GAP-03: one level, or none; anything else is no field.
#[test]
fn an_urgency_is_one_of_four_words() {
    let read = |lines: &[&str]| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("urgency", line.parse().expect("a field value"));
        }
        Urgency::from_headers(&headers)
    };
    assert_eq!(read(&[]), Ok(None));
    for level in Urgency::ALL {
        assert_eq!(read(&[level.as_str()]), Ok(Some(level)));
    }
    assert_eq!(read(&[" Very-LOW"]), Ok(Some(Urgency::VeryLow)));
    for wrong in [&[""][..], &["lowest"], &["low, high"], &["low,low"], &["low", "low"], &["low;q=1"]] {
        assert_eq!(read(wrong), Err(InvalidUrgency), "{wrong:?}");
    }
    assert!(Urgency::ALL.is_sorted() && Urgency::default() == Urgency::Normal);
}

/// A-UA-48: the age of a message comes of two times of the same clock, whatever our own says.
#[test]
fn a_ua_48_a_message_is_as_old_as_its_service_says() {
    let read = |fields: &[(&'static str, String)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, value.parse().expect("a field value"));
        }
        stored_for(&headers)
    };
    let (date, asked) = (http_date(UnixTime(5_000_000_300)), http_date(UnixTime(5_000_000_000)));
    let both = [("date", date.clone()), ("last-modified", asked.clone())];
    assert_eq!(read(&both), Some(Duration::from_secs(300)));
    assert_eq!(read(&[("date", asked), ("last-modified", date)]), Some(Duration::ZERO));
    assert_eq!((read(&both[..1]), read(&both[1..])), (None, None));
    assert_eq!(read(&[("date", "now".to_owned()), both[1].clone()]), None);
}
