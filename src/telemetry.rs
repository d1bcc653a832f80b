//! Logs on standard error, for a person or for the journal, and without secrets.
//!
//! Push, subscription and message URIs are capabilities: who reads one may use it (RFC 8030 §8.5). So the crate logs
//! [`Fingerprint`]s, and the libraries below it, whose debug output is full of URIs, are never let below `warn`,
//! whatever is asked for.
//!
//! ```text
//! 2026-11-22T10:00:00.000000Z  INFO fieldgate::gateway: device is here device=meter-7      to a terminal or a file
//! <6>fieldgate::gateway: device is here device=meter-7                                     to the journal
//! ```

use std::env;
use std::fmt::{self, Write};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::panic::PanicHookInfo;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use crate::random::{self, Random};

/// The variable that names levels: `debug`, or `fieldgate::store=debug,fieldgate::link=trace`.
pub const LOG_VARIABLE: &str = "FIELDGATE_LOG";

/// The start of every target of this crate.
const OWN_TARGET: &str = env!("CARGO_PKG_NAME");
/// The most that anything but this crate may say.
const FOREIGN_LEVEL_MAX: LevelFilter = LevelFilter::WARN;

/// Characters of a fingerprint: enough to follow one thing through a log, too few to find it by trying.
const FINGERPRINT_CHARACTERS: usize = 6;

/// Logging was not set up.
#[derive(Debug)]
pub enum TelemetryError {
    /// [`LOG_VARIABLE`] holds no list of levels.
    InvalidLevels(String),
    /// This process already logs in another way.
    AlreadySet,
}

impl fmt::Display for TelemetryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidLevels(text) => write!(
                f,
                "{LOG_VARIABLE}={text:?} names no levels; write error, warn, info, debug or trace, or \
                 {OWN_TARGET}::MODULE=LEVEL, with commas between"
            ),
            Self::AlreadySet => f.write_str("logging is already set up"),
        }
    }
}

impl std::error::Error for TelemetryError {}

/// Sets up logging for the process at a level unless [`LOG_VARIABLE`] names others, and what it says if it panics.
///
/// # Errors
/// [`LOG_VARIABLE`] is not understood, or logging is already set up.
pub fn init(level: LevelFilter) -> Result<(), TelemetryError> {
    let levels = env::var(LOG_VARIABLE).unwrap_or_default();
    let filter = filter(&levels, level).ok_or(TelemetryError::InvalidLevels(levels))?;
    let style = if is_journal_on_stderr() { Style::Journal } else { Style::Plain };
    tracing::subscriber::set_global_default(subscriber(filter, style, std::io::stderr))
        .map_err(|_| TelemetryError::AlreadySet)?;
    std::panic::set_hook(Box::new(report_panic));
    Ok(())
}

/// How a line starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// Time and level in words.
    Plain,
    /// The priority that the journal reads; it has a clock of its own.
    Journal,
}

fn subscriber<W>(filter: Targets, style: Style, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer).event_format(Line { style });
    tracing_subscriber::registry().with(filter).with(lines)
}

/// Reads levels; what is not named keeps its default, and nothing foreign gets below [`FOREIGN_LEVEL_MAX`].
fn filter(levels: &str, level: LevelFilter) -> Option<Targets> {
    let is_own =
        |target: &str| target.strip_prefix(OWN_TARGET).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    // A lone word that is no level would silently be taken for a target: most likely it is a slip.
    let is_slip = |word: &str| !word.contains('=') && !is_own(word) && word.parse::<LevelFilter>().is_err();
    let levels = levels.trim();
    let asked: Targets = match levels {
        "" => Targets::new(),
        _ if levels.split(',').any(is_slip) => return None,
        _ => levels.parse().ok()?,
    };
    let own_level = asked.default_level().unwrap_or(level);
    let allowed = asked.iter().map(|(target, level)| {
        let level_max = if is_own(target) { LevelFilter::TRACE } else { FOREIGN_LEVEL_MAX };
        (target.to_owned(), level.min(level_max))
    });
    let base = Targets::new().with_default(own_level.min(FOREIGN_LEVEL_MAX)).with_target(OWN_TARGET, own_level);
    Some(base.with_targets(allowed.collect::<Vec<_>>()))
}

/// Whether standard error is what the service manager connected to the journal.
///
/// Source: systemd.exec(5), `$JOURNAL_STREAM`: device and inode, to be compared.
fn is_journal_on_stderr() -> bool {
    let stream = env::var("JOURNAL_STREAM").unwrap_or_default();
    fs::metadata("/proc/self/fd/2").is_ok_and(|stderr| names(&stream, stderr.dev(), stderr.ino()))
}

fn names(journal_stream: &str, device: u64, inode: u64) -> bool {
    journal_stream == format!("{device}:{inode}")
}

/// One event, one line.
struct Line {
    style: Style,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = event.metadata().level();
        match self.style {
            Style::Plain => {
                SystemTime.format_time(&mut out)?;
                write!(out, " {level:>5} ")?;
            }
            Style::Journal => write!(out, "<{}>", priority(level))?,
        }
        let mut fields = String::new();
        ctx.field_format().format_fields(Writer::new(&mut fields), event)?;
        write!(out, "{}: ", event.metadata().target())?;
        // A device or a service may have chosen part of the text: it makes no lines of its own.
        for character in fields.chars() {
            if character.is_control() {
                write!(out, "{}", character.escape_default())
            } else {
                out.write_char(character)
            }?;
        }
        writeln!(out)
    }
}

/// Source: sd-daemon(3), the priorities of syslog(3).
fn priority(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Says where it happened. A text put together at run time may hold anything, and stays unsaid.
fn report_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(not shown)");
    let doing = DOING.try_lock().ok().and_then(|doing| doing.clone()).unwrap_or_default();
    match panic.location() {
        Some(location) => tracing::error!(%location, message, doing, "panic"),
        None => tracing::error!(message, doing, "panic"),
    }
}

/// What the process is doing, where a panic of foreign code would otherwise leave a person without a clue.
static DOING: Mutex<Option<String>> = Mutex::new(None);

/// Until this is dropped, a panic says what was being done.
#[derive(Debug)]
pub struct Doing;

/// Notes what is being done, and what to do if it fails for good; no secret may be in it.
pub fn doing(what: String) -> Doing {
    if let Ok(mut doing) = DOING.lock() {
        *doing = Some(what);
    }
    Doing
}

impl Drop for Doing {
    fn drop(&mut self) {
        if let Ok(mut doing) = DOING.lock() {
            *doing = None;
        }
    }
}

/// What a fingerprint is made of, so that equal texts of different kinds look different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Where the application server posts (RFC 8030 §5).
    PushResource,
    /// Where one message is acknowledged (§6.2).
    PushMessage,
}

/// Makes fingerprints: equal within one run, unrelated between two.
#[derive(Clone, Debug)]
pub struct Fingerprints {
    key: hmac::Key,
}

impl Fingerprints {
    /// Chooses the key of this run.
    pub fn new(random: &mut dyn Random) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &random::array::<32>(random)) }
    }

    /// The fingerprint of a secret.
    pub fn of(&self, kind: Kind, secret: &str) -> Fingerprint {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&[kind as u8]);
        context.update(secret.as_bytes());
        let text = URL_SAFE_NO_PAD.encode(context.sign());
        let mut characters = [0; FINGERPRINT_CHARACTERS];
        characters.copy_from_slice(&text.as_bytes()[..FINGERPRINT_CHARACTERS]);
        Fingerprint(characters)
    }
}

/// What stands for a secret in a log.
///
/// Layout: 6 characters of base64url, 36 bits of HMAC-SHA256 under a key of this run.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; FINGERPRINT_CHARACTERS]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|&octet| f.write_char(char::from(octet)))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use crate::random::SystemRandom;

    use super::*;

    /// A-ALL-04: the libraries stay quiet however loudly they are asked.
    #[test]
    fn a_all_04_libraries_are_never_let_below_warn() {
        for levels in
            ["trace", "h2=trace", "h2::codec=debug", "rustls=debug,hyper=trace", "h=trace", "fieldgate=trace,h2=info"]
        {
            let filter = filter(levels, LevelFilter::INFO).expect(levels);
            for target in ["h2", "h2::codec::framed_read", "rustls::client", "hyper", "tokio_util::codec"] {
                assert!(!filter.would_enable(target, &Level::INFO), "{levels} lets {target} speak");
                assert!(!filter.would_enable(target, &Level::TRACE), "{levels} lets {target} speak");
            }
        }
    }

    #[test]
    fn what_is_not_named_keeps_its_default() {
        let default = filter("", LevelFilter::INFO).expect("nothing to misunderstand");
        assert!(default.would_enable("fieldgate::proto", &Level::INFO));
        assert!(!default.would_enable("fieldgate::proto", &Level::DEBUG));
        assert!(default.would_enable("h2", &Level::WARN));
        let one = filter("fieldgate::store=debug", LevelFilter::INFO).expect("a level");
        assert!(one.would_enable("fieldgate::store::writer", &Level::DEBUG));
        assert!(one.would_enable("fieldgate::proto", &Level::INFO));
        assert!(!one.would_enable("fieldgate::proto", &Level::DEBUG));
        let error = filter("error", LevelFilter::INFO).expect("a level");
        assert!(!error.would_enable("fieldgate::proto", &Level::WARN) && !error.would_enable("h2", &Level::WARN));
        assert!(
            filter("fieldgate::link", LevelFilter::INFO)
                .is_some_and(|filter| filter.would_enable("fieldgate::link", &Level::TRACE))
        );
        for slip in ["fieldgate=loud", "debig", "info,h2"] {
            assert!(filter(slip, LevelFilter::INFO).is_none(), "{slip}");
        }
        assert!(TelemetryError::InvalidLevels("x=y".to_owned()).to_string().contains("FIELDGATE_LOG=\"x=y\""));
    }

    #[test]
    fn the_journal_gets_priorities_and_others_get_words() {
        let say = || {
            tracing::error!(target: "fieldgate::a", "one");
            tracing::warn!(target: "fieldgate::a", "two");
            tracing::info!(target: "fieldgate::a", device = "d", "three");
            tracing::debug!(target: "fieldgate::a", "four");
        };
        let expected =
            "<3>fieldgate::a: one\n<4>fieldgate::a: two\n<6>fieldgate::a: three device=\"d\"\n<7>fieldgate::a: four\n";
        assert_eq!(written(Style::Journal, say), expected);
        let plain = written(Style::Plain, say);
        assert_eq!(plain.lines().count(), 4);
        assert!(plain.contains("Z  WARN fieldgate::a: two\n"), "{plain}");
    }

    #[test]
    fn nobody_smuggles_lines_into_the_log() {
        let text =
            written(Style::Journal, || tracing::info!(target: "fieldgate", name = %"a\n<0>b\u{1b}[31m", "named"));
        assert_eq!(text, "<6>fieldgate: named name=a\\n<0>b\\u{1b}[31m\n");
    }

    #[test]
    fn the_journal_is_recognised_by_device_and_inode() {
        assert!(names("10:4711", 10, 4711));
        assert!(!names("10:4711", 10, 4712) && !names("", 10, 4711));
    }

    /// A-ALL-04: fingerprints tell secrets apart within a run, and nothing else.
    #[test]
    fn a_all_04_fingerprints_are_keyed_per_run_and_kind() {
        let run = || Fingerprints::new(&mut SystemRandom::default());
        let (first, second) = (run(), run());
        let secret = "https://push.example.net/s/secret";
        let fingerprint = first.of(Kind::PushResource, secret);
        assert_eq!(fingerprint, first.of(Kind::PushResource, secret));
        assert_ne!(fingerprint, first.of(Kind::PushMessage, secret));
        assert_ne!(fingerprint, first.of(Kind::PushResource, "https://push.example.net/s/other"));
        assert_ne!(fingerprint, second.of(Kind::PushResource, secret));
        assert_eq!(fingerprint.to_string().len(), FINGERPRINT_CHARACTERS);
        assert_eq!(format!("{fingerprint:?}"), fingerprint.to_string());
    }

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test panicked").extend_from_slice(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(style: Style, say: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let filter = filter("debug", LevelFilter::INFO).expect("a level");
        tracing::subscriber::with_default(subscriber(filter, style, move || writer.clone()), say);
        let octets = buffer.0.lock().expect("no test panicked").clone();
        String::from_utf8(octets).expect("text")
    }
}
