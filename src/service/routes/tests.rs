use proptest::prelude::*;

use super::*;
use crate::random::SeededRandom;
use crate::service::gate::{Client, Gate};
use crate::service::retention::{ConnectionId, MonitorId, ReceiptId};
use crate::webpush::headers::Urgency;

/// A fixed token of each kind.
fn token(kind: Kind) -> Token {
    Token::random(&mut SeededRandom::new(kind as u64 + 1))
}

fn kind_of(wanted: Token) -> Option<Kind> {
    [Kind::Subscription, Kind::Push, Kind::Set, Kind::Message, Kind::Receipts]
        .into_iter()
        .find(|kind| token(*kind) == wanted)
}

fn head(method: &str, path: &str, fields: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::builder().version(Version::HTTP_2).method(method);
    request = request.uri(format!("https://push.example:8443{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn routed(method: &str, path: &str, fields: &[(&str, &str)]) -> Route {
    route(&head(method, path, fields), PushSupport::Available, kind_of)
}

/// What is to be accepted.
fn posted(route: Route) -> Posted {
    match route {
        Route::Send { posted, .. } => posted,
        other => panic!("{other:?}"),
    }
}

fn status(route: Route) -> u16 {
    match route {
        Route::Answer(response) => response.status().as_u16(),
        other => panic!("{other:?}"),
    }
}

/// A-PS-08, A-PS-90, A-GAP-12, A-ALL-12: each resource grants its own rights and no other.
#[test]
fn a_ps_08_each_kind_of_resource_has_its_own_methods() {
    let table = [
        (Kind::Push, "POST", &["GET", "DELETE", "PUT", "HEAD", "OPTIONS"][..]),
        (Kind::Subscription, "GET, DELETE", &["POST", "PUT", "HEAD"]),
        (Kind::Set, "GET, DELETE", &["POST", "PUT"]),
        (Kind::Message, "GET, DELETE", &["POST", "PUT"]),
        (Kind::Receipts, "GET, DELETE", &["POST", "PUT"]),
    ];
    for (kind, allowed, refused) in table {
        let path = token(kind).path();
        for method in refused {
            let Route::Answer(response) = routed(method, &path, &[("ttl", "1")]) else { panic!("{method} {kind:?}") };
            assert_eq!(
                (response.status().as_u16(), &response.headers()[ALLOW]),
                (405, &HeaderValue::from_static(allowed))
            );
        }
        for method in allowed.split(", ") {
            let route = routed(method, &path, &[("ttl", "1")]);
            assert!(!matches!(route, Route::Answer(_)), "{method} {kind:?}: {route:?}");
        }
    }
    let Route::Answer(response) = routed("GET", SUBSCRIBE_PATH, &[]) else { panic!("refused") };
    assert_eq!((response.status().as_u16(), &response.headers()[ALLOW]), (405, &HeaderValue::from_static("POST")));
}

/// A-PS-76, A-ALL-10, A-ALL-11: what is dead, unknown or nothing at all gets one and the same answer.
#[test]
fn a_ps_76_dead_and_unknown_paths_are_answered_alike() {
    let dead = Token::random(&mut SeededRandom::new(99)).path();
    let with_query = format!("{}?a", token(Kind::Push).path());
    for path in [&*dead, "/", "/push/", "/subscription/", "/subscribe/", "/subscribe?x", &with_query] {
        for (method, fields) in
            [("POST", &[("ttl", "5")][..]), ("POST", &[]), ("GET", &[]), ("DELETE", &[]), ("PUT", &[])]
        {
            let Route::Answer(response) = routed(method, path, fields) else { panic!("{method} {path}") };
            assert_eq!(response.status(), 404, "{method} {path}");
            assert!(response.headers().is_empty() && response.body().is_empty());
        }
    }
}

/// A-PS-25, A-GAP-02: no, malformed and repeated TTL are 400; a good one is taken.
#[test]
fn a_ps_25_missing_ttl_is_400() {
    let push = token(Kind::Push).path();
    for fields in [&[][..], &[("ttl", "-1")], &[("ttl", "1.5")], &[("ttl", "abc")], &[("ttl", "")]] {
        assert_eq!(status(routed("POST", &push, fields)), 400, "{fields:?}");
    }
    assert_eq!(status(routed("POST", &push, &[("ttl", "1"), ("ttl", "1")])), 400);
    assert_eq!(posted(routed("POST", &push, &[("TTL", "000015")])).ttl.as_secs(), 15);
}

/// A-PS-36, A-PS-37, A-GAP-03: one level without regard to case, on messages and monitors; several and unknown ones are 400.
#[test]
fn a_ps_37_an_urgency_is_one_level() {
    let (push, set, subscription) =
        (token(Kind::Push).path(), token(Kind::Set).path(), token(Kind::Subscription).path());
    let wrong = [
        &[("urgency", "low"), ("urgency", "high")][..],
        &[("urgency", "low, high")],
        &[("urgency", "low"); 2],
        &[("urgency", "urgent")],
    ];
    for fields in wrong {
        let message = [&[("ttl", "5")], fields].concat();
        assert_eq!(status(routed("POST", &push, &message)), 400, "{fields:?}");
        assert_eq!(status(routed("GET", &set, fields)), 400, "{fields:?}");
        assert_eq!(status(routed("GET", &subscription, fields)), 400, "{fields:?}");
    }
    let read = |fields| posted(routed("POST", &push, fields)).urgency;
    assert_eq!(read(&[("ttl", "5"), ("urgency", "High")]), Urgency::High);
    assert_eq!(read(&[("ttl", "5")]), Urgency::Normal);
    let Route::Monitor { urgency, .. } = routed("GET", &set, &[]) else { panic!("it stays open") };
    assert_eq!(urgency, Urgency::VeryLow);
}

/// A-PS-39: one topic of 1 to 32 characters of the URL-safe base64 alphabet; others are 400.
#[test]
fn a_ps_39_a_topic_is_one_short_word() {
    let push = token(Kind::Push).path();
    let longest = "aZ09-_".repeat(6)[..32].to_owned();
    let route = routed("POST", &push, &[("ttl", "5"), ("Topic", &longest)]);
    assert_eq!(posted(route).topic.as_ref().map(Topic::as_str), Some(&*longest));
    for wrong in [&format!("{longest}x"), "", "a.b", "a+b", "a=b", "a b", "a, b", "ä"] {
        assert_eq!(status(routed("POST", &push, &[("ttl", "5"), ("topic", wrong)])), 400, "{wrong}");
    }
    assert_eq!(status(routed("POST", &push, &[("ttl", "5"), ("topic", "a"), ("topic", "a")])), 400);
    assert_eq!(posted(routed("POST", &push, &[("ttl", "5")])).topic, None);
}

/// A-PS-17, A-PS-18, A-PS-19: a receipt is asked for by a preference, however that is written, on the receipt subscription
/// presented or a new one; the 202 names message and receipt subscription.
#[test]
fn a_ps_17_a_receipt_is_asked_for_by_a_preference() {
    let (path, receipts) = (token(Kind::Push).path(), token(Kind::Receipts));
    let link = format!("<{}>; rel=\"urn:ietf:params:push:receipt\"", receipts.path());
    for preference in
        ["respond-async", "Respond-Async", "wait=10, respond-async", "respond-async; x=\"y\"", "respond-async=\"\""]
    {
        let fields = [("ttl", "5"), ("prefer", preference)];
        assert_eq!(posted(routed("POST", &path, &fields)).receipts, ReceiptWish::New, "{preference}");
        let presented = [&fields[..], &[("link", &*link)]].concat();
        assert_eq!(posted(routed("POST", &path, &presented)).receipts, ReceiptWish::In(receipts));
    }
    for fields in [&[("ttl", "5")][..], &[("ttl", "5"), ("link", &link)], &[("ttl", "5"), ("prefer", "respond-asyn")]] {
        assert_eq!(posted(routed("POST", &path, fields)).receipts, ReceiptWish::None);
    }
    let (message, ttl) = (token(Kind::Message), Ttl::from_secs(60));
    let response = answer(Reply::Accepted { message, ttl, receipts: Some(receipts) }).unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()[LOCATION]), (202, &path_value(message)));
    assert_eq!(&response.headers()[LINK], &link);
}

/// A-PS-21: a receipt subscription of another origin, or none at all, is 400.
#[test]
fn a_ps_21_a_foreign_receipt_subscription_is_400() {
    let path = token(Kind::Push).path();
    let foreign = format!("https://other.example{}", token(Kind::Receipts).path());
    for target in [&*foreign, "/short", "http:", "/subscribe"] {
        let link = format!("<{target}>; rel=\"urn:ietf:params:push:receipt\"");
        let fields = [("ttl", "5"), ("prefer", "respond-async"), ("link", &link)];
        assert_eq!(status(routed("POST", &path, &fields)), 400, "{target}");
    }
    assert_eq!(answer(Reply::InvalidReceipts).unwrap().status(), 400);
}

/// A-PS-94, A-PS-95, D-6585-01: too many messages are 429, with the time after which there may be more, for nobody to keep.
#[test]
fn a_ps_95_the_429_says_when_to_go_on() {
    let response = answer(Reply::TooMany { wait_s: 6 }).unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()[RETRY_AFTER]), (429, &value("6")));
    assert!(!response.headers().contains_key(CACHE_CONTROL));
}

/// A-PS-62: a receipt is a status on the path of its message, and nothing else.
#[test]
fn a_ps_62_a_receipt_is_a_status() {
    let monitor = MonitorId { connection: ConnectionId(1), stream: 1 };
    for (outcome, status) in [(Outcome::Acknowledged, 204), (Outcome::GivenUp, 410)] {
        let told = Receipt { id: ReceiptId::from_key((1, 2)), monitor, message: token(Kind::Message), outcome };
        let promise = receipt_promise(&told, &"push.example".parse().unwrap());
        let uri = format!("https://push.example{}", token(Kind::Message).path());
        assert_eq!((promise.method(), promise.uri().to_string()), (&Method::GET, uri));
        let response = receipt(&told);
        assert_eq!(response.status(), status);
        assert!(promise.headers().is_empty() && response.headers().is_empty());
    }
}

/// A-PS-69, A-PS-70: announced content above 4096 octets is refused before it is read, never at or below.
#[test]
fn a_ps_69_announced_size_is_checked_at_the_bound() {
    let push = token(Kind::Push).path();
    for (length, is_taken) in [("0", true), ("4096", true), ("4097", false), ("99999999999", false)] {
        let head = head("POST", &push, &[("ttl", "5"), ("content-length", length)]);
        let (route, _) = Gate::default().route(&head, PushSupport::Available, &Client::default(), kind_of);
        assert_eq!(matches!(route, Route::Send { .. }), is_taken, "{length}");
        assert!(is_taken || status(route) == 413);
    }
}

/// The key of RFC 8292 §2.4.
const KEY: &str = "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs";

/// D-8292-06, D-8292-07, D-8292-13: who a sender says it is is read with its message, and nowhere else.
#[test]
fn d_8292_13_an_identification_is_whole_or_refused() {
    let push = token(Kind::Push).path();
    let sent = |name, value: &str| routed("POST", &push, &[("ttl", "5"), (name, value)]);
    let good = format!("vapid k={KEY}, x=1,t=a.b.c");
    let Route::Send { sender: Some(sender), .. } = sent("authorization", &good) else { panic!("read") };
    assert_eq!((sender.identification.key().as_str(), sender.authority.as_str()), (KEY, "push.example:8443"));
    for (name, value) in [("authorization", "Bearer x"), ("proxy-authorization", &good), ("x", "y")] {
        assert!(matches!(sent(name, value), Route::Send { sender: None, .. }), "{name}");
    }
    for incomplete in ["vapid", "vapid t=a.b.c", &format!("vapid k={KEY}"), "vapid t=a.b.c, k=AAAA"] {
        let Route::Answer(response) = sent("authorization", incomplete) else { panic!("{incomplete}") };
        assert_eq!(response.status(), 403);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
        assert!(!response.body().is_empty());
    }
    let twice = [("ttl", "5"), ("authorization", &good), ("authorization", &good)];
    assert_eq!(status(routed("POST", &push, &twice)), 400);
}

/// D-8292-13: 401 says how, 403 says why; a clock that may be wrong is told.
#[test]
fn d_8292_13_refusals_have_a_status_and_a_reason() {
    let text = |refusal, is_synchronised| {
        let response = refused(refusal, Moment { is_synchronised, ..Moment::default() });
        let (head, body) = response.into_parts();
        let challenge = head.headers.get(WWW_AUTHENTICATE).map(|value| value.to_str().expect("text").to_owned());
        (head.status.as_u16(), challenge, String::from_utf8(body.to_vec()).expect("text"))
    };
    let (status, challenge, _) = text(Refusal::Missing, true);
    assert_eq!((status, challenge.as_deref()), (401, Some("vapid")));
    use InvalidToken::{Algorithm, Audience, Expired, Malformed, Signature, TooFarAhead};
    let tokens = [Algorithm, Audience, Expired, Malformed, Signature, TooFarAhead].map(Refusal::Token);
    for refusal in tokens.into_iter().chain([Refusal::OtherKey]) {
        let (status, challenge, reason) = text(refusal, true);
        assert_eq!((status, challenge), (403, None), "{refusal:?}");
        assert!(!reason.is_empty() && !reason.contains("clock"));
        let is_of_time = [Expired, TooFarAhead].map(Refusal::Token).contains(&refusal);
        assert_eq!(text(refusal, false).2.contains("not synchronised"), is_of_time, "{refusal:?}");
    }
}

/// D-8292-09: the key that signs may not be the one of the message; where no such message is, there is nothing to compare.
#[test]
fn d_8292_09_one_key_for_both_is_seen() {
    let field = format!("vapid t=a.b.c, k={KEY}");
    let path = token(Kind::Push).path();
    let Route::Send { sender: Some(sender), .. } = routed("POST", &path, &[("ttl", "5"), ("authorization", &field)])
    else {
        panic!("read")
    };
    let key = sender.identification.key().octets();
    let body = |key: &[u8]| [&[0; 20][..], &[65], key].concat();
    let is_same = |encoding, body: Vec<u8>| {
        let content_encoding = Some(HeaderValue::from_static(encoding));
        has_same_key(&sender, &Content { body: body.into(), content_encoding, content_type: None })
    };
    assert!(is_same("aes128gcm", body(&key)) && is_same("AES128GCM", [body(&key), vec![1; 40]].concat()));
    assert!(!is_same("identity", body(&key)) && !is_same("aes128gcm", body(&[4; 65])));
    for end in 0..body(&key).len() {
        assert!(!is_same("aes128gcm", body(&key)[..end].to_vec()), "{end}");
    }
    assert_eq!(same_key().status(), 400);
}

/// D-8292-11: content is read if its media type is that of the options.
#[test]
fn d_8292_11_only_options_are_read() {
    let read = |fields| match routed("POST", SUBSCRIBE_PATH, fields) {
        Route::Subscribe { has_options, .. } => has_options,
        other => panic!("{other:?}"),
    };
    assert!(read(&[("content-type", "application/webpush-options+json")]));
    assert!(!read(&[("content-type", "text/plain")]) && !read(&[]));
    let twice = [("content-type", "application/webpush-options+json"), ("content-type", "text/plain")];
    assert_eq!(status(routed("POST", SUBSCRIBE_PATH, &twice)), 400);
    for invalid in [InvalidOptions::Repeated, InvalidOptions::Malformed, InvalidOptions::Key] {
        assert_eq!(invalid_options(invalid).status(), 400);
    }
    assert_eq!(options_too_large().status(), 413);
}

#[test]
fn fields_that_describe_a_message_are_single_and_short() {
    let path = token(Kind::Push).path();
    for name in ["content-type", "content-encoding"] {
        let longest = "a".repeat(SERVICE_DESCRIPTION_BYTES_MAX);
        let content = posted(routed("POST", &path, &[("ttl", "5"), (name, &longest)])).content;
        assert_eq!([content.content_type, content.content_encoding].into_iter().flatten().count(), 1);
        let longer = format!("{longest}a");
        assert_eq!(status(routed("POST", &path, &[("ttl", "5"), (name, &longer)])), 400);
        assert_eq!(status(routed("POST", &path, &[("ttl", "5"), (name, "a"), (name, "b")])), 400);
    }
}

#[test]
fn http_1_1_needs_one_host_and_only_one() {
    let routed = |version, hosts: &[&str]| {
        let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).chain([("ttl", "5")]).collect();
        let mut head = head("POST", &token(Kind::Push).path(), &fields);
        head.version = version;
        route(&head, PushSupport::None, kind_of)
    };
    for hosts in [&[][..], &["a", "a"], &["a b"], &[""]] {
        assert_eq!(status(routed(Version::HTTP_11, hosts)), 400, "{hosts:?}");
    }
    assert!(matches!(routed(Version::HTTP_11, &["push.example:8443"]), Route::Send { .. }));
    assert!(matches!(routed(Version::HTTP_10, &[]), Route::Send { .. }));
}

/// A-PS-10, A-PS-11: a set of this origin is presented; anything else in its place is 400.
#[test]
fn a_ps_11_only_links_to_this_origin_present_a_set() {
    let set = token(Kind::Set);
    let link = |target: &str| format!("<{target}>; rel=\"urn:ietf:params:push:set\"");
    for target in [set.path(), format!("https://PUSH.example:8443{}", set.path()), format!(".{}", set.path())] {
        let Route::Subscribe { set: presented, .. } = routed("POST", SUBSCRIBE_PATH, &[("link", &link(&target))])
        else {
            panic!("{target}")
        };
        assert_eq!(presented, Some(set));
    }
    for target in [
        &*format!("https://other.example:8443{}", set.path()),
        &format!("https://push.example{}", set.path()),
        &format!("http://push.example:8443{}", set.path()),
        &format!("{}?a", set.path()),
        "/short",
        "",
    ] {
        assert_eq!(status(routed("POST", SUBSCRIBE_PATH, &[("link", &link(target))])), 400, "{target}");
    }
    assert_eq!(status(routed("POST", SUBSCRIBE_PATH, &[("link", "</x; rel=\"urn:ietf:params:push:set\"")])), 400);
    let push_link = format!("<{}>; rel=\"urn:ietf:params:push\"", set.path());
    assert!(matches!(routed("POST", SUBSCRIBE_PATH, &[("link", &push_link)]), Route::Subscribe { set: None, .. }));
}

/// A-GAP-11, A-PS-99: monitoring without server push is refused at once, with a reason in one line.
#[test]
fn a_gap_11_monitoring_needs_server_push() {
    for kind in [Kind::Subscription, Kind::Set] {
        for (push, expected) in [(PushSupport::Disabled, 400), (PushSupport::None, 505)] {
            let Route::Answer(response) = route(&head("GET", &token(kind).path(), &[]), push, kind_of) else {
                panic!("refused")
            };
            assert_eq!(response.status(), expected);
            assert_eq!(response.body().iter().filter(|byte| **byte == b'\n').count(), 0);
            assert!(!response.body().is_empty());
        }
    }
}

/// D-7240-02, D-7240-03: preferences in every form; unknown ones change nothing.
#[test]
fn preferences_of_a_monitoring_request_are_read() {
    let path = token(Kind::Set).path();
    for (value, expected) in
        [("wait=0", Some(0)), ("x=1, WAIT=\"0\"", Some(0)), ("wait=0, wait=60", Some(0)), ("x", None)]
    {
        let Route::Monitor { wait_s, .. } = routed("GET", &path, &[("prefer", value)]) else { panic!("{value}") };
        assert_eq!(wait_s, expected, "{value}");
    }
}

/// A-PS-04, A-PS-05, A-PS-06, A-PS-09: the answer to a subscribe request names all three resources.
#[test]
fn a_ps_05_the_201_names_subscription_push_resource_and_set() {
    let (subscription, push, set) = (token(Kind::Subscription), token(Kind::Push), token(Kind::Set));
    let response = answer(Reply::Subscribed { subscription, push, set }).unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()[LOCATION]), (201, &path_value(subscription)));
    let base = "https://push.example/subscribe".parse().unwrap();
    let linked = |relation| link::find(response.headers(), relation, &base).unwrap().unwrap().to_string();
    assert_eq!(linked(link::PUSH), format!("https://push.example{}", push.path()));
    assert_eq!(linked(link::SET), format!("https://push.example{}", set.path()));
}

/// A-PS-14, A-PS-26: the answer to a message names it and how long it is kept.
#[test]
fn a_ps_14_the_201_names_the_message_and_its_time() {
    let response =
        answer(Reply::Accepted { message: token(Kind::Message), ttl: Ttl::from_secs(3_600), receipts: None });
    let response = response.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(
        (&response.headers()[LOCATION], &response.headers()["ttl"]),
        (&path_value(token(Kind::Message)), &value("3600"))
    );
}

#[test]
fn a_full_service_says_when_to_come_back() {
    for response in [answer(Reply::Full).unwrap(), not_stored()] {
        assert_eq!((response.status().as_u16(), &response.headers()[RETRY_AFTER]), (503, &value("10")));
    }
}

fn push(last_modified: Option<UnixTime>) -> Push {
    let monitor = MonitorId { connection: ConnectionId(1), stream: 1 };
    let content = Content {
        body: Bytes::from_static(b"m"),
        content_type: Some(HeaderValue::from_static("application/octet-stream")),
        content_encoding: Some(HeaderValue::from_static("aes128gcm")),
    };
    Push {
        delivery: crate::service::retention::DeliveryId::for_test(monitor),
        monitor,
        message: token(Kind::Message),
        push: token(Kind::Push),
        content,
        last_modified,
        max_age_s: 30,
    }
}

/// A-PS-48, D-9113-05, A-GAP-19: a promise is a whole GET for the message, with the link in it.
#[test]
fn a_ps_48_a_promise_is_a_complete_request() {
    let request = promise(&push(None), &Authority::from_static("push.example:8443"));
    assert_eq!(request.method(), Method::GET);
    assert_eq!(request.uri().to_string(), format!("https://push.example:8443{}", token(Kind::Message).path()));
    assert_eq!(request.headers().len(), 1);
    assert_eq!(request.headers()[LINK], link::value(&token(Kind::Push).path(), link::PUSH));
}

/// A-PS-49, A-PS-51, A-PS-67, A-GAP-21: the pushed head has the link, what describes the content, and dates.
#[test]
fn a_ps_49_the_pushed_response_describes_the_content_and_nothing_else() {
    let response = pushed(&push(Some(UnixTime(784_111_777))));
    let fields = response.headers();
    assert_eq!(response.status(), 200);
    assert_eq!(fields[LINK], link::value(&token(Kind::Push).path(), link::PUSH));
    assert_eq!(fields[CONTENT_TYPE], "application/octet-stream");
    assert_eq!(fields[CONTENT_ENCODING], "aes128gcm");
    assert_eq!(fields[CACHE_CONTROL], "private, max-age=30");
    assert_eq!(fields[LAST_MODIFIED], "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(fields.len(), 5);
    assert!(!pushed(&push(None)).headers().contains_key(LAST_MODIFIED));
}

proptest! {
    #[test]
    fn any_request_gets_some_route(
        method in "[A-Z]{1,8}",
        path in "[/a-zA-Z0-9_?=.-]{0,40}",
        name in "ttl|link|prefer|host|content-length",
        value in "[ -~]{0,40}",
    ) {
        if let Ok(request) = Request::builder().method(&*method).uri(format!("/{path}")).header(&*name, &*value).body(()) {
            route(&request.into_parts().0, PushSupport::Available, kind_of);
        }
    }
}
