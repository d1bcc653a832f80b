use super::*;
use crate::random::{Random as _, SeededRandom};

/// D-7838-08: a list in order of preference; what is unknown or of no use is left out, and changes nothing else.
#[test]
fn d_7838_08_a_list_is_read_in_its_order() {
    for (value, read) in [
        (r#"h2=":1001""#, "push.example:1001"),
        (r#"h2=":1001"; ma=60; x=y, h2="alt.example.net:443""#, "push.example:1001 alt.example.net:443"),
        (r#"h2="ALT.example.net:443""#, "alt.example.net:443"),
        (r#"h2="[2001:DB8::1]:443""#, "[2001:db8::1]:443"),
        (r#"h2="192.0.2.1:1001" ; ma="60";persist=1 , , h2=":443","#, "192.0.2.1:1001 push.example:443"),
        (r#"h2="\a.example:1""#, "a.example:1"),
        (r#"h3=":443", h2=":1001", w%3Dx%3Ay#z=":1", http%2F1.1=":2", H2=":3""#, "push.example:1001"),
        (r#"h2=":1001"; persist=0, h2=":1001"; persist=1"#, "push.example:1001"),
        ("clear", ""),
        (" clear ", ""),
        (r#"h3=":443""#, ""),
        // Members that are well formed and name no place.
        (r#"h2="alt.example.net", h2=":0", h2=":65536", h2=":x", h2=":", h2="", h2=":1001""#, "push.example:1001"),
        (r#"h2="a b:1", h2="u@a:1", h2="a:b:1", h2="[::g]:1", h2="::1:1", h2=":+1""#, ""),
    ] {
        let announcement = parse(value).expect(value);
        let places: Vec<String> = announcement.offers.iter().map(|offer| offer.alternative.to_string()).collect();
        assert_eq!(places.join(" "), read, "{value}");
    }
}

/// D-7838-08: what does not follow the grammar says nothing, so that what was known before stays.
#[test]
fn d_7838_08_a_malformed_field_says_nothing() {
    for value in [
        "",
        ",",
        "Clear",
        "CLEAR",
        "clear; ma=60",
        r#"clear, h2=":1001""#,
        r#"h2=":1001", clear"#,
        "h2=:1001",
        r#"h2=":1001"#,
        r#"h2 =":1001""#,
        r#"h2= ":1001""#,
        r#"=":1001""#,
        r#"h2":1001""#,
        r#"h2=":1001" ma=60"#,
        r#"h2=":1001"; ma"#,
        r#"h2=":1001"; ma="#,
        r#"h2=":1001"; =60"#,
        r#"h2=":1001";"#,
        r#"h2=":1001"; ma="60"#,
        r#"h2=":1001" h2=":1002""#,
    ] {
        assert_eq!(parse(value), None, "{value}");
    }
}

/// D-7838-04, D-7838-05: fresh for a day unless told otherwise, the age of the response taken off; it persists for `1` alone.
#[test]
fn d_7838_04_parameters_are_read() {
    let read = |value: &str, age: Option<&str>| {
        let mut headers = fields(&[value]);
        headers.extend(age.map(|age| (AGE, age.parse().expect("a value"))));
        let announcement = Announcement::from_headers(&headers, &origin()).expect(value);
        let offer = &announcement.offers[0];
        (offer.fresh_for.as_secs(), offer.persists)
    };
    assert_eq!(read(r#"h2=":1""#, None), (86_400, false));
    assert_eq!(read(r#"h2=":1""#, Some("400")), (86_000, false));
    assert_eq!(read(r#"h2=":1"; ma=60; persist=1"#, Some("59")), (1, true));
    assert_eq!(read(r#"h2=":1"; MA=60"#, Some("61")), (0, false));
    assert_eq!(read(r#"h2=":1"; ma=60; ma=70"#, Some("soon")), (60, false));
    assert_eq!(read(r#"h2=":1"; ma=99999999999999999999"#, None), (u64::MAX, false));
    for (persist, persists) in
        [("1", true), ("0", false), ("2", false), ("true", false), ("\"1\"", true), ("11", false)]
    {
        assert_eq!(read(&format!(r#"h2=":1"; ma=0; persist={persist}"#), None), (0, persists));
    }
    for wrong in ["x", "-1", "1.5"] {
        assert_eq!(read(&format!(r#"h2=":1"; ma={wrong}"#), None).0, 0);
    }
}

/// D-7838-08: several field lines are one list.
#[test]
fn several_field_lines_are_one_list() {
    let lines = fields(&[r#"h2=":1""#, r#"h2=":2", h2=":3""#]);
    let announcement = Announcement::from_headers(&lines, &origin()).expect("a list");
    let ports: Vec<u16> = announcement.offers.iter().map(|offer| offer.alternative.port).collect();
    assert_eq!(ports, [1, 2, 3]);
    assert_eq!(Announcement::from_headers(&fields(&["clear", r#"h2=":1""#]), &origin()), None);
    assert_eq!(Announcement::from_headers(&HeaderMap::new(), &origin()), None);
}

#[test]
fn at_the_bound_the_first_ones_are_kept_and_a_longer_field_says_nothing() {
    let many: Vec<String> = (1..=ALTERNATIVE_COUNT_MAX + 1).map(|port| format!("h2=\":{port}\"")).collect();
    let announcement = parse(&many.join(",")).expect("a list");
    assert_eq!(announcement.offers.len(), ALTERNATIVE_COUNT_MAX);
    assert_eq!(announcement.offers[0].alternative.port, 1);
    let longest = format!("h2=\":1\"{}", " ".repeat(ALT_SVC_BYTES_MAX - 7));
    assert!(parse(&longest).is_some() && parse(&format!("{longest} ")).is_none());
    let host = "x".repeat(HOST_BYTES_MAX);
    let places = |host: &str| parse(&format!("h2=\"{host}:1\"")).map(|announcement| announcement.offers.len());
    assert_eq!((places(&host), places(&format!("{host}x"))), (Some(1), Some(0)));
}

/// D-7838-10: on a stream the origin goes without saying, on none it has to be named and to be that of the connection.
#[test]
fn d_7838_10_frames_are_for_the_origin_of_their_connection() {
    let value = &br#"h2=":1001""#[..];
    let frame =
        |origin: &str| [&u16::try_from(origin.len()).expect("short").to_be_bytes(), origin.as_bytes(), value].concat();
    let is_used = |stream, payload: &[u8]| Announcement::from_frame(stream, payload, &origin()).is_some();
    assert!(is_used(1, &frame("")) && is_used(0, &frame("https://push.example")));
    assert!(!is_used(0, &frame("")) && !is_used(1, &frame("https://push.example")));
    for other in ["https://other.example", "http://push.example", "https://push.example:444", "push.example"] {
        assert!(!is_used(0, &frame(other)), "{other}");
    }
    for cut in [&b""[..], b"\0", b"\0\x05h2", b"\xff\xff"] {
        assert!(!is_used(0, cut) && !is_used(1, cut), "{cut:?}");
    }
    let elsewhere = PushServiceUri::parse("https://push.example:8443/s").expect("valid");
    assert!(Announcement::from_frame(0, &frame("https://push.example:8443"), &elsewhere).is_some());
}

/// D-7838-12: the port is named unless it is that of https.
#[test]
fn d_7838_12_alt_used_names_the_alternative() {
    for (value, used) in [
        (r#"h2=":1001""#, "push.example:1001"),
        (r#"h2="alt.example:443""#, "alt.example"),
        (r#"h2="[::1]:443""#, "[::1]"),
        (r#"h2="[::443]:8""#, "[::443]:8"),
    ] {
        assert_eq!(parse(value).expect(value).offers[0].alternative.alt_used(), used);
    }
}

/// D-7838-08: an origin with a literal address and without a host in its announcement.
#[test]
fn the_host_of_the_origin_stands_where_none_is_named() {
    let origin = PushServiceUri::parse("https://[::1]:8443/s").expect("valid");
    let announcement = Announcement::from_headers(&fields(&[r#"h2=":1001""#]), &origin).expect("a list");
    assert_eq!(announcement.offers[0].alternative, Alternative { host: "::1".to_owned(), port: 1001 });
}

/// D-7838-08: whatever octets come, nothing breaks and every bound holds; pieces of the grammar make most of them nearly right.
#[test]
fn d_7838_08_hostile_octets_are_read_or_not_and_nothing_breaks() {
    const PIECES: &[&[u8]] = &[
        b"h2",
        b"=",
        b"\"",
        b":",
        b"1001",
        b"65535",
        b"alt.example",
        b"[::1]",
        b";",
        b",",
        b" ",
        b"\t",
        b"ma",
        b"60",
        b"persist",
        b"1",
        b"clear",
        b"\\",
        b"%3D",
        b"\xff",
        b"\0",
        b"x",
        b"h2=\":1001\"",
        b"; ma=1",
    ];
    let mut random = SeededRandom::new(7838);
    let mut read_count = 0;
    for _ in 0..200_000 {
        let mut octets = [0; 24];
        random.fill(&mut octets);
        let pieces = octets[1..].iter().take(usize::from(octets[0]) % octets.len());
        let value: Vec<u8> = pieces.flat_map(|&piece| PIECES[usize::from(piece) % PIECES.len()]).copied().collect();
        let framed = Announcement::from_frame(1, &[b"\0\0", &value[..]].concat(), &origin());
        if let Some(Announcement { offers }) = &framed {
            read_count += 1;
            assert!(offers.len() <= ALTERNATIVE_COUNT_MAX);
            assert!(offers.iter().all(|offer| offer.alternative.port > 0 && !offer.alternative.host.is_empty()));
            offers.iter().for_each(|offer| assert!(!offer.alternative.alt_used().is_empty()));
        }
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            let headers = HeaderMap::from_iter([(ALT_SVC, value)]);
            assert_eq!(Announcement::from_headers(&headers, &origin()), framed);
        }
        // As a frame the same octets are a length and what it says.
        Announcement::from_frame(u32::from(octets[0] & 1), &value, &origin());
    }
    assert!(read_count > 1_000, "{read_count} of them follow the grammar");
}

fn origin() -> PushServiceUri {
    PushServiceUri::parse("https://push.example/subscribe").expect("valid")
}

fn parse(value: &str) -> Option<Announcement> {
    Announcement::from_headers(&fields(&[value]), &origin())
}

fn fields(lines: &[&str]) -> HeaderMap {
    lines.iter().map(|line| (ALT_SVC, line.parse().expect("a value"))).collect()
}

#[test]
fn a_place_is_read_back_as_it_is_written() {
    for (host, port) in [("a.example", 1001), ("192.0.2.1", 443), ("2001:db8::1", 65_535)] {
        let place = Alternative { host: host.to_owned(), port };
        assert_eq!(Alternative::parse(&place.to_string()), Some(place));
    }
    for text in ["", ":443", "a.example", "a.example:", "a.example:0", "a.example:65536", "a b:1", "[a.example]:1"] {
        assert_eq!(Alternative::parse(text), None, "{text}");
    }
}
