use proptest::prelude::*;

use super::*;

const BASE: &str = "https://push.example/m/abc?x=1";

fn base() -> Uri {
    BASE.parse().unwrap()
}

fn found(lines: &[&str], relation: &str) -> Option<Result<String, InvalidLink>> {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(LINK, line.parse().unwrap());
    }
    find(&headers, relation, &base()).map(|result| result.map(|uri| uri.to_string()))
}

fn push(line: &str) -> Option<String> {
    found(&[line], PUSH).map(|result| result.unwrap())
}

/// A-ALL-08, D-8288-04: relations are compared whole and without case.
#[test]
fn a_all_08_relations_are_compared_whole() {
    let line = "</s>; rel=\"urn:ietf:params:push:set\", </r>; rel=\"urn:ietf:params:push:receipt\"";
    assert_eq!(found(&[line], PUSH), None);
    assert_eq!(found(&[line], SET), Some(Ok("https://push.example/s".into())));
    assert_eq!(found(&[line], RECEIPT), Some(Ok("https://push.example/r".into())));
    assert_eq!(push("</p>; rel=\"URN:IETF:params:PUSH\"").unwrap(), "https://push.example/p");
}

/// D-8288-01: tokens, quotes, several links, delimiters inside brackets and quotes.
#[test]
fn d_8288_01_links_are_split_where_the_grammar_splits_them() {
    let p = "https://push.example/p";
    for line in [
        "</p>; rel=\"urn:ietf:params:push\"",
        "</p>;rel=urn:ietf:params:push",
        "</p> ; REL = urn:ietf:params:push ; title=x",
        "</a,b;c>; rel=next, </p>; rel=\"urn:ietf:params:push\"",
        "</a>; title=\"x, </q>; rel=\\\"urn:ietf:params:push\\\"\"; rel=next,</p>;rel=\"urn:ietf:params:push\"",
        ",, </a>,\t</p>; foo; bar=; rel=\"urn:ietf:params:push\",",
        "</p>; title*=UTF-8''x; rel=\"urn:ietf:params:push\"",
    ] {
        assert_eq!(push(line).as_deref(), Some(p), "{line}");
    }
    assert_eq!(found(&["</a>; rel=next", "</p>; rel=\"urn:ietf:params:push\""], PUSH), Some(Ok(p.into())));
    assert_eq!(push("</p,urn:ietf:params:push>; rel=next"), None);
}

/// D-8288-02: references of every kind (RFC 3986 §5.4).
#[test]
fn d_8288_02_targets_are_resolved_against_the_base() {
    for (reference, expected) in [
        ("https://other.example:8443/p", "https://other.example:8443/p"),
        ("//h/x", "https://h/x"),
        ("//h", "https://h/"),
        ("/push/x", "https://push.example/push/x"),
        ("../push/x", "https://push.example/push/x"),
        ("../../../x", "https://push.example/x"),
        ("y", "https://push.example/m/y"),
        ("./y/.", "https://push.example/m/y/"),
        ("..", "https://push.example/"),
        ("/a/./b/../c", "https://push.example/a/c"),
        ("/a//b", "https://push.example/a//b"),
        ("?q", "https://push.example/m/abc?q"),
        ("", BASE),
        ("#part", BASE),
        ("y?a=/../b", "https://push.example/m/y?a=/../b"),
        ("a/b:c", "https://push.example/m/a/b:c"),
        ("http://[2001:db8::1]:80/x", "http://[2001:db8::1]:80/x"),
    ] {
        assert_eq!(resolve(&base(), reference).map(|uri| uri.to_string()), Ok(expected.into()), "{reference}");
    }
    for reference in
        ["urn:x", "https:///x", "https://user@h/x", "/a b", "/\u{e4}", "http:x", "//h:port:/x", "/<", "//:443/x"]
    {
        assert_eq!(resolve(&base(), reference), Err(InvalidLink::Target), "{reference}");
    }
    assert_eq!(resolve(&"/only/path".parse().unwrap(), "/x"), Err(InvalidLink::Target));
}

/// D-8288-03: the first `rel` counts, and may hold several relations.
#[test]
fn d_8288_03_one_rel_with_several_relations() {
    assert!(push("</p>; rel=\"next urn:ietf:params:push\"; rel=\"x\"").is_some());
    assert!(push("</p>; rel=next; rel=\"urn:ietf:params:push\"").is_none());
    assert!(push("</p>; rev=\"urn:ietf:params:push\"").is_none());
}

/// D-8288-05: an anchor to another resource disqualifies a link; one to this resource does not.
#[test]
fn d_8288_05_links_about_other_resources_are_ignored() {
    let anchored = |anchor| push(&format!("</p>; anchor=\"{anchor}\"; rel=\"urn:ietf:params:push\""));
    for other in ["/other", "#part", "https://h/", "http://push.example/m/abc?x=1"] {
        assert_eq!(anchored(other), None, "{other}");
    }
    for same in ["", BASE, "/m/abc?x=1", "abc?x=1", "//PUSH.example/m/abc?x=1"] {
        assert!(anchored(same).is_some(), "{same}");
    }
    assert_eq!(push("</p>; anchor=\"/o\"; anchor=\"\"; rel=\"urn:ietf:params:push\""), None);
}

#[test]
fn broken_lines_are_reported_unless_another_line_has_the_link() {
    for line in ["/p; rel=\"urn:ietf:params:push\"", "</p; rel=x", "</p>; rel=\"x", "</p> rel=x"] {
        assert_eq!(found(&[line], PUSH), Some(Err(InvalidLink::Syntax)), "{line}");
        let good = "</p>; rel=\"urn:ietf:params:push\"";
        assert_eq!(found(&[line, good], PUSH), Some(Ok("https://push.example/p".into())), "{line}");
    }
    assert_eq!(found(&["<urn:x>; rel=\"urn:ietf:params:push\""], PUSH), Some(Err(InvalidLink::Target)));
    assert_eq!(found(&["", "  ,"], PUSH), None);
}

#[test]
fn written_links_are_read_back() {
    for relation in [PUSH, SET, RECEIPT] {
        let line = value("/abc?x=1", relation);
        assert_eq!(found(&[line.to_str().unwrap()], relation), Some(Ok("https://push.example/abc?x=1".into())));
    }
    assert_eq!(value("/a>\"b\u{e4}", PUSH), "</a%3E%22b%C3%A4>; rel=\"urn:ietf:params:push\"");
}

proptest! {
    #[test]
    fn arbitrary_fields_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(field) = HeaderValue::from_bytes(&bytes) {
            let mut headers = HeaderMap::new();
            headers.append(LINK, field);
            find(&headers, PUSH, &base());
        }
    }

    #[test]
    fn near_links_never_panic(line in "[</>; ,=\"\\\\a-c:?#.]{0,40}") {
        let mut headers = HeaderMap::new();
        headers.append(LINK, format!("{line}; rel=\"urn:ietf:params:push\"").parse().unwrap());
        find(&headers, PUSH, &base());
    }

    #[test]
    fn any_target_can_be_written(target in any::<String>()) {
        value(&target, PUSH);
    }

    #[test]
    fn resolved_references_resolve_to_themselves(reference in "[a-c/.?]{0,20}") {
        if let Ok(uri) = resolve(&base(), &reference) {
            prop_assert_eq!(resolve(&base(), &uri.to_string()), Ok(uri));
        }
    }
}
