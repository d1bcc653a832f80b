//! The few grammar pieces that field values share (RFC 9110 §5.6): tokens, quoted strings, optional whitespace.

/// A position in a field value.
///
/// Octets above 127 are treated as opaque, as RFC 9110 §5.5 asks; every method moves forward or stays.
pub(super) struct Scanner<'a> {
    rest: &'a [u8],
}

/// A quoted string that does not end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unterminated;

impl<'a> Scanner<'a> {
    pub(super) fn new(value: &'a [u8]) -> Self {
        Self { rest: value }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Moves over `byte` if it is next.
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    pub(super) fn skip_whitespace(&mut self) {
        self.take_until(|byte| !matches!(byte, b' ' | b'\t'));
    }

    /// Takes octets up to the first that `stops`, which stays.
    pub(super) fn take_until(&mut self, stops: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| stops(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// Takes a quoted string, or octets up to the first of `delimiters`, without the whitespace at their end.
    ///
    /// # Errors
    /// [`Unterminated`] when a quoted string has no closing quote.
    pub(super) fn word(&mut self, delimiters: &[u8]) -> Result<String, Unterminated> {
        if self.eat(b'"') {
            return self.quoted_rest();
        }
        Ok(String::from_utf8_lossy(self.take_until(|byte| delimiters.contains(&byte)).trim_ascii_end()).into_owned())
    }

    fn quoted_rest(&mut self) -> Result<String, Unterminated> {
        let mut text = Vec::new();
        loop {
            text.extend_from_slice(self.take_until(|byte| matches!(byte, b'"' | b'\\')));
            if self.eat(b'"') {
                return Ok(String::from_utf8_lossy(&text).into_owned());
            }
            self.eat(b'\\');
            let (escaped, rest) = self.rest.split_first().ok_or(Unterminated)?;
            text.push(*escaped);
            self.rest = rest;
        }
    }
}
