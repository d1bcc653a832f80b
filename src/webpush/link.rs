//! Web links as RFC 8030 uses them: three relations, found in `Link` fields and written into them.
//!
//! Relations are compared whole; targets are resolved against the URI of the message that carries them; a link whose
//! anchor names another resource says nothing about this one.
//!
//! Source: RFC 8288 §3 and appendix B (links), RFC 3986 §5 (references), RFC 8030 §9.2 (relations).

use http::header::LINK;
use http::{HeaderMap, HeaderValue, Uri};

use super::scan::{Scanner, Unterminated};

/// Relation of a push resource.
pub const PUSH: &str = "urn:ietf:params:push";
/// Relation of a subscription set.
pub const SET: &str = "urn:ietf:params:push:set";
/// Relation of a receipt subscription.
pub const RECEIPT: &str = "urn:ietf:params:push:receipt";

/// Why a link or reference names nothing usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidLink {
    /// The Link field breaks the grammar before such a link was found.
    Syntax,
    /// The reference does not resolve to an absolute URI with a host and without user information.
    Target,
}

/// Finds the first link with `relation`, its target resolved against `base`.
///
/// A field line that breaks the grammar is an error only if no line has such a link.
pub fn find(headers: &HeaderMap, relation: &str, base: &Uri) -> Option<Result<Uri, InvalidLink>> {
    let mut broken = None;
    for line in headers.get_all(LINK) {
        match find_in_line(line.as_bytes(), relation, base) {
            Ok(Some(target)) => return Some(target),
            Ok(None) => {}
            Err(Unterminated) => broken = Some(Err(InvalidLink::Syntax)),
        }
    }
    broken
}

/// Writes one link: target in angle brackets, relation quoted.
///
/// Octets that cannot stand between angle brackets are percent-encoded, so that any target makes one valid link.
pub fn value(target: &str, relation: &str) -> HeaderValue {
    let mut text = String::with_capacity(target.len() + relation.len() + 9);
    text.push('<');
    for byte in target.bytes() {
        match byte {
            b'<' | b'>' | b'"' | b'\\' | 0..=0x20 | 0x7f.. => text.push_str(&format!("%{byte:02X}")),
            _ => text.push(char::from(byte)),
        }
    }
    text.push_str(">; rel=\"");
    text.push_str(relation);
    text.push('"');
    HeaderValue::from_str(&text).expect("relations are visible ASCII and the target was encoded")
}

/// Resolves a URI reference against an absolute URI; a fragment is dropped.
///
/// # Errors
/// [`InvalidLink::Target`] when the outcome is no absolute URI with a host, or has user information.
///
/// Source: RFC 3986 §5.2.
pub fn resolve(base: &Uri, reference: &str) -> Result<Uri, InvalidLink> {
    if !reference.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(InvalidLink::Target);
    }
    let base_scheme = base.scheme_str().ok_or(InvalidLink::Target)?;
    let base_authority = base.authority().ok_or(InvalidLink::Target)?.as_str();
    let reference = Reference::parse(reference);

    let (scheme, authority, path, query) = match (reference.scheme, reference.authority) {
        (Some(scheme), Some(authority)) => (scheme, authority, remove_dot_segments(reference.path), reference.query),
        (Some(_), None) => return Err(InvalidLink::Target),
        (None, Some(authority)) => (base_scheme, authority, remove_dot_segments(reference.path), reference.query),
        (None, None) if reference.path.is_empty() => {
            (base_scheme, base_authority, base.path().to_owned(), reference.query.or(base.query()))
        }
        (None, None) => {
            (base_scheme, base_authority, remove_dot_segments(&merge(base, reference.path)), reference.query)
        }
    };
    if authority.is_empty() || authority.contains('@') {
        return Err(InvalidLink::Target);
    }
    let path = if path.is_empty() { "/" } else { &path };
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let target: Uri = format!("{scheme}://{authority}{path}{query}").parse().map_err(|_| InvalidLink::Target)?;
    // `https://:443/` is a URI as well.
    if target.host().is_none_or(str::is_empty) { Err(InvalidLink::Target) } else { Ok(target) }
}

/// Walks the links of one field line.
fn find_in_line(line: &[u8], relation: &str, base: &Uri) -> Result<Option<Result<Uri, InvalidLink>>, Unterminated> {
    let mut scanner = Scanner::new(line);
    loop {
        scanner.take_until(|byte| !matches!(byte, b' ' | b'\t' | b','));
        if scanner.is_empty() {
            return Ok(None);
        }
        let link = Link::take(&mut scanner)?;
        if link.has_relation(relation) && link.is_about(base) {
            return Ok(Some(resolve(base, &link.target)));
        }
    }
}

/// One link-value with the parameters that matter here; of repeated ones the first.
struct Link {
    target: String,
    relations: String,
    anchor: Option<String>,
}

impl Link {
    fn take(scanner: &mut Scanner) -> Result<Self, Unterminated> {
        if !scanner.eat(b'<') {
            return Err(Unterminated);
        }
        let target = String::from_utf8_lossy(scanner.take_until(|byte| byte == b'>')).into_owned();
        if !scanner.eat(b'>') {
            return Err(Unterminated);
        }
        let (relations, anchor) = take_parameters(scanner)?;
        if !scanner.is_empty() && scanner.peek() != Some(b',') {
            return Err(Unterminated);
        }
        Ok(Self { target, relations: relations.unwrap_or_default(), anchor })
    }

    fn has_relation(&self, relation: &str) -> bool {
        self.relations.split_ascii_whitespace().any(|one| one.eq_ignore_ascii_case(relation))
    }

    /// Whether the context of the link is `base` itself. A fragment names a part, which is another resource.
    fn is_about(&self, base: &Uri) -> bool {
        let Some(anchor) = &self.anchor else { return true };
        !anchor.contains('#') && resolve(base, anchor).is_ok_and(|context| context == *base)
    }
}

/// Takes `*(; name [= value])` and returns the first `rel` and the first `anchor`.
fn take_parameters(scanner: &mut Scanner) -> Result<(Option<String>, Option<String>), Unterminated> {
    let (mut relations, mut anchor) = (None, None);
    loop {
        scanner.skip_whitespace();
        if !scanner.eat(b';') {
            return Ok((relations, anchor));
        }
        scanner.skip_whitespace();
        let name = scanner.take_until(|byte| b"=;, \t".contains(&byte));
        scanner.skip_whitespace();
        if !scanner.eat(b'=') {
            continue;
        }
        scanner.skip_whitespace();
        let value = scanner.word(b";,")?;
        if name.eq_ignore_ascii_case(b"rel") {
            relations.get_or_insert(value);
        } else if name.eq_ignore_ascii_case(b"anchor") {
            anchor.get_or_insert(value);
        }
    }
}

/// The components of a URI reference, as the regular expression of RFC 3986 appendix B splits them.
struct Reference<'a> {
    scheme: Option<&'a str>,
    authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Reference<'a> {
    fn parse(text: &'a str) -> Self {
        let text = text.split_once('#').map_or(text, |(before, _)| before);
        let (text, query) = text.split_once('?').map_or((text, None), |(before, query)| (before, Some(query)));
        let (scheme, text) = match text.split_once(':') {
            Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
            _ => (None, text),
        };
        let Some(rest) = text.strip_prefix("//") else { return Self { scheme, authority: None, path: text, query } };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Self { scheme, authority: Some(authority), path, query }
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// Puts a reference path in the place of the last segment of the base path (RFC 3986 §5.2.3).
fn merge(base: &Uri, path: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    let folder = base.path().rfind('/').map_or("/", |end| &base.path()[..=end]);
    format!("{folder}{path}")
}

/// Removes `.` and `..` from an absolute path (RFC 3986 §5.2.4).
fn remove_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            _ => {
                kept.push(segment);
                continue;
            }
        }
        // A dot segment at the end leaves the folder it names, with its slash.
        if is_last {
            kept.push("");
        }
    }
    kept.iter().flat_map(|segment| ["/", segment]).collect()
}

#[cfg(test)]
mod tests;
