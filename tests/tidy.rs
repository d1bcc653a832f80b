//! Reads the sources and checks what the compiler does not: which modules are pure, who may import whom, and that
//! nothing is without a bound.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules that decide and do nothing: a file, or a folder with all that is in it.
const PURE: &[&str] = &[
    "cli/link/decode.rs",
    "cli/link/ear.rs",
    "cli/link/figures.rs",
    "cli/link/measure.rs",
    "cli/link/place.rs",
    "cli/link/reassembly.rs",
    "cli/link/show.rs",
    "cli/simulate/intake.rs",
    "cli/simulate/life.rs",
    "cli/simulate/line.rs",
    "config",
    "config.rs",
    "gateway/wear.rs",
    "limits.rs",
    "link",
    "proto",
    "random.rs",
    "service/alternative.rs",
    "service/gate.rs",
    "service/guesses.rs",
    "service/identification.rs",
    "service/retention",
    "service/retention.rs",
    "service/routes.rs",
    "store/block.rs",
    "store/change.rs",
    "store/export.rs",
    "store/flash.rs",
    "store/log.rs",
    "store/replay.rs",
    "time.rs",
    "transport/candidate.rs",
    "transport/certificate.rs",
    "transport/endpoint.rs",
    "transport/properties.rs",
    "webpush",
    "wire",
];

/// What a pure module never names: the runtime, the system, clocks, and state that all of the process shares.
const IMPURE: &[&str] = &[
    "tokio",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "thread::sleep",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "ToSocketAddrs",
    "Instant::now",
    "SystemTime::now",
    "kernel::",
    "thread_local!",
    "static mut",
    "OnceLock",
    "LazyLock",
    "stdin",
    "stdout",
    "stderr",
    // Their order is another one in each process.
    "HashMap",
    "HashSet",
];

/// Randomness of the system, which pure modules are given instead.
const RANDOM: &[&str] = &["SystemRandom", "ring::rand", "getrandom"];
/// Where that is made.
const RANDOM_SOURCE: &str = "random.rs";

/// These end the process when nobody reads what it says.
const PANICS_WITHOUT_READER: &[&str] = &["print!", "println!", "eprint!", "eprintln!"];

/// Modules that firmware uses as well.
const WITHOUT_STD: &[&str] = &["limits.rs", "link", "time.rs", "wire"];

/// The part of them that is only there with a heap.
const WITH_HEAP: &str = "link/elastic.rs";

/// The one module with code that the compiler cannot check.
const UNCHECKED: &str = "kernel.rs";

/// Queues that grow until memory ends.
const UNBOUNDED: &[&str] = &["unbounded_channel", "UnboundedSender", "UnboundedReceiver", "mpsc::channel()"];

/// What everything may use.
const BASE: &[&str] = &["limits", "random", "time"];

/// What may import whatever it likes: it is on top of everything.
const TOP: &[&str] = &["cli", "lib"];

/// Who may import whom.
const ARROWS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("random", &[]),
    ("time", &[]),
    ("kernel", &[]),
    ("wire", &[]),
    ("link", &["wire"]),
    ("webpush", &[]),
    ("transport", &["kernel"]),
    ("store", &[]),
    ("telemetry", &[]),
    ("config", &["proto", "service", "transport", "webpush", "wire"]),
    ("proto", &["webpush", "wire"]),
    ("upstream", &["proto", "transport", "webpush"]),
    ("downstream", &["link", "transport", "wire"]),
    ("service", &["kernel", "telemetry", "transport", "webpush"]),
    ("sender", &["transport", "webpush"]),
    ("announce", &["proto", "transport", "webpush"]),
    ("control", &["proto"]),
    (
        "gateway",
        &[
            "announce",
            "config",
            "control",
            "downstream",
            "kernel",
            "proto",
            "store",
            "telemetry",
            "transport",
            "upstream",
            "webpush",
            "wire",
        ],
    ),
    ("main", &[]),
];

#[test]
fn pure_modules_do_nothing() {
    report(sources().iter().filter(|source| source.is_in(PURE)).flat_map(|source| source.mentions(IMPURE)));
}

#[test]
fn firmware_modules_need_no_operating_system() {
    report(
        sources()
            .iter()
            .filter(|source| source.is_in(WITHOUT_STD) && !source.is_in(&[WITH_HEAP]))
            .flat_map(|source| source.mentions(&["std::", "alloc::", "extern crate"])),
    );
}

#[test]
fn pure_modules_are_given_their_randomness() {
    let pure = |source: &&Source| source.is_in(PURE) && !source.is_in(&[RANDOM_SOURCE]);
    report(sources().iter().filter(pure).flat_map(|source| source.mentions(RANDOM)));
}

#[test]
fn nothing_panics_because_nobody_reads_its_output() {
    report(sources().iter().flat_map(|source| source.mentions(PANICS_WITHOUT_READER)));
}

/// Fewer than three words say nothing of why it cannot fail.
#[test]
fn what_is_expected_has_a_reason() {
    report(sources().iter().flat_map(|source| {
        source.expectations.iter().filter_map(|(line, reason)| {
            let is_reason = reason.as_ref().is_some_and(|reason| reason.split_whitespace().count() >= 3);
            (!is_reason).then(|| format!("{}:{line}: expect without a reason", source.path.display()))
        })
    }));
}

#[test]
fn unchecked_code_stands_in_one_place() {
    let elsewhere = |source: &&Source| !source.is_in(&[UNCHECKED]);
    report(sources().iter().filter(elsewhere).flat_map(|source| source.mentions(&["unsafe", "unsafe_code"])));
}

/// A verifier that is not the library's is set in one place, and its own tests show that it believes no more.
#[test]
fn certificates_are_judged_in_one_place() {
    let elsewhere = |source: &&Source| !source.is_in(&["transport/stack/tcp_tls.rs", "transport/judge.rs"]);
    let own = ["dangerous", "ServerCertVerifier", "with_custom_certificate_verifier"];
    report(sources().iter().filter(elsewhere).flat_map(|source| source.mentions(&own)));
}

#[test]
fn every_queue_has_a_bound() {
    report(sources().iter().flat_map(|source| source.mentions(UNBOUNDED)));
}

#[test]
fn nothing_is_unwrapped_or_left_to_do() {
    report(sources().iter().flat_map(|source| source.mentions(&[".unwrap()", "todo!", "unimplemented!", "dbg!"])));
}

#[test]
fn imports_follow_the_arrows() {
    let mut wrong = Vec::new();
    for source in sources() {
        let module = source.module();
        if TOP.contains(&module.as_str()) {
            continue;
        }
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: nothing is said of what {module} may know", source.path.display()));
            continue;
        };
        for (line, target) in source.imports() {
            if target != module && !allowed.contains(&target.as_str()) && !BASE.contains(&target.as_str()) {
                wrong.push(format!("{}:{line}: {module} must not know {target}", source.path.display()));
            }
        }
    }
    report(wrong.into_iter());
}

/// An arrow that nobody needs is an open door.
#[test]
fn every_arrow_is_in_use() {
    let sources = sources();
    report(ARROWS.iter().flat_map(|(name, allowed)| {
        let own = sources.iter().filter(|source| source.module() == *name);
        let used: BTreeSet<String> = own.flat_map(Source::imports).map(|(_, target)| target).collect();
        let unused = allowed.iter().filter(move |target| !used.contains(**target));
        unused.map(move |target| format!("{name} does not use {target}"))
    }));
}

/// A rule for a module of another name is no rule.
#[test]
fn every_module_with_a_rule_is_there() {
    let sources = sources();
    let is_there = |place: &str| sources.iter().any(|source| source.is_in(&[place]));
    let listed = [PURE, WITHOUT_STD, &[RANDOM_SOURCE, WITH_HEAP, UNCHECKED]].concat();
    let arrows = ARROWS.iter().map(|(name, _)| *name);
    let missing = arrows.filter(|name| !sources.iter().any(|source| source.module() == **name));
    report(
        listed.into_iter().filter(|place| !is_there(place)).chain(missing).map(|name| format!("there is no {name}")),
    );
}

#[test]
fn comments_texts_and_tests_are_no_code() {
    let code = code_of(concat!(
        "a(\"x // not a comment \\\" still text\"); // comment tokio\n",
        "b('\"', '\\'', r#\"raw \" text\"#, b\"octets\"); /* tokio /* nested */ tokio */ c::<'static>();\n",
        "#[cfg(test)]\nmod tests {\n    use tokio;\n}\n",
    ));
    assert!(!code.contains("tokio") && !code.contains("text") && !code.contains("comment"), "{code}");
    assert!(code.contains("b(") && code.contains("c::<'static>()"), "{code}");
}

#[test]
fn imports_are_found_in_groups_and_above() {
    let imports = |path: &str, code: &str| {
        let source = Source { path: PathBuf::from(path), code: code.to_owned(), expectations: Vec::new() };
        source.imports().into_iter().map(|(line, name)| format!("{line}{name}")).collect::<Vec<_>>()
    };
    let code = "\nuse crate::{a, b::{c, d}, e::f};\nuse crate::g::h;";
    assert_eq!(imports("x.rs", code), ["2a", "2b", "2e", "3g"]);
    let code = "use super::a;\nuse super::super::{b, c::d};\nuse super::super::super::e;";
    assert_eq!(imports("x/mod.rs", code), ["1a"]);
    assert_eq!(imports("x.rs", code), ["1a"]);
    assert_eq!(imports("x/y.rs", code), ["2b", "2c"]);
    assert_eq!(imports("x/y/z.rs", code), ["3e"]);
}

#[test]
fn reasons_are_found_where_they_are() {
    let found = expectations(
        "a.expect(\"it is here\")\n// .expect(\"x\")\n.expect(&b)\n#[cfg(test)]\nmod tests { .expect(\"\") }",
    );
    assert_eq!(found, [(1, Some("it is here".to_owned())), (3, None)]);
}

fn report(wrong: impl Iterator<Item = String>) {
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A source file without its comments, texts and tests.
struct Source {
    /// Below `src`.
    path: PathBuf,
    code: String,
    /// The lines of `expect`, with the reasons if they are texts.
    expectations: Vec<(usize, Option<String>)>,
}

impl Source {
    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }

    /// The name of the module at the top of the crate that it belongs to.
    fn module(&self) -> String {
        let first = self.path.iter().next().expect("a path below src").to_string_lossy();
        first.trim_end_matches(".rs").to_owned()
    }

    fn mentions(&self, words: &[&str]) -> Vec<String> {
        let lines = self.code.lines().enumerate();
        lines
            .flat_map(|(index, line)| {
                let found = words.iter().filter(move |word| mentions(line, word));
                found.map(move |word| format!("{}:{}: {word}", self.path.display(), index + 1))
            })
            .collect()
    }

    /// The modules at the top of the crate that it names, with the lines in which it does.
    fn imports(&self) -> Vec<(usize, String)> {
        let mut imports = Vec::new();
        let from_top = self.code.match_indices("crate::").map(|(at, found)| at + found.len());
        for at in from_top.chain(self.ends_of_ascents()) {
            let line = 1 + self.code[..at].matches('\n').count();
            let rest = &self.code[at..];
            let names = if rest.starts_with('{') { group(rest) } else { vec![name(rest)] };
            imports.extend(names.into_iter().filter(|name| !name.is_empty()).map(|name| (line, name)));
        }
        imports
    }
}

impl Source {
    /// Where a run of `super::` ends that leads to the top of the crate.
    fn ends_of_ascents(&self) -> impl Iterator<Item = usize> {
        const ASCENT: &str = "super::";
        let stem = self.path.with_extension("");
        let depth = stem.iter().filter(|name| *name != "mod").count();
        let starts = self.code.match_indices(ASCENT).map(|(at, _)| at);
        starts.filter(|&at| !self.code[..at].ends_with(ASCENT)).filter_map(move |at| {
            let rest = self.code[at..].trim_start_matches(ASCENT);
            let end = self.code.len() - rest.len();
            ((end - at) / ASCENT.len() == depth).then_some(end)
        })
    }
}

/// Whether a line holds a word, and not only as a part of a longer one.
fn mentions(line: &str, word: &str) -> bool {
    let is_part =
        |character: Option<char>| character.is_some_and(|character| character.is_alphanumeric() || character == '_');
    let starts_as_name = is_part(word.chars().next());
    let ends_as_name = is_part(word.chars().last());
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().last();
        let after = line[at + word.len()..].chars().next();
        !(starts_as_name && is_part(before) || ends_as_name && is_part(after))
    })
}

fn name(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

/// The first name of each path in a group of imports.
fn group(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 1 && matches!(character, '{' | ',') {
            names.push(name(text[at + 1..].trim_start()));
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// All sources of the crate but its unit tests.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the sources are readable") {
            let path = entry.expect("the sources are readable").path();
            let is_test = path.file_stem().is_some_and(|stem| stem == "tests");
            if path.is_dir() && !is_test {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test {
                let text = fs::read_to_string(&path).expect("the sources are readable");
                let path = path.strip_prefix(&root).expect("it is below").to_owned();
                sources.push(Source { path, code: code_of(&text), expectations: expectations(&text) });
            }
        }
    }
    assert!(!sources.is_empty());
    sources
}

/// The lines of `expect` outside unit tests and comments, with the reasons.
fn expectations(text: &str) -> Vec<(usize, Option<String>)> {
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    let lines = text[..end].lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let found = lines.flat_map(|(index, line)| {
        line.split(".expect(").skip(1).map(move |rest| {
            let reason = rest.strip_prefix('"').and_then(|rest| rest.split_once('"'));
            (index + 1, reason.map(|(reason, _)| reason.to_owned()))
        })
    });
    found.collect()
}

/// The code of a text, line by line as before, with nothing where comments, texts and unit tests are.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let skipped = skipped_bytes(rest, code.chars().last());
        if skipped > 0 {
            code.extend(rest[..skipped].chars().filter(|&character| character == '\n'));
            rest = &rest[skipped..];
        } else {
            code.push(character);
            rest = &rest[character.len_utf8()..];
        }
    }
    let end = code.find("#[cfg(test)]\nmod tests").unwrap_or(code.len());
    code.truncate(end);
    code
}

/// How many octets of the text are a comment, a text or a character in quotes; 0 when it starts with code.
fn skipped_bytes(text: &str, before: Option<char>) -> usize {
    let until = |end: &str, from: usize| text[from..].find(end).map_or(text.len(), |at| from + at + end.len());
    let hashes = text.strip_prefix('r').map_or(0, |raw| raw.chars().take_while(|&character| character == '#').count());
    let is_inside_name = before.is_some_and(|character| character.is_alphanumeric() || character == '_');
    if text.starts_with("//") {
        text.find('\n').unwrap_or(text.len())
    } else if text.starts_with("/*") {
        block_comment_bytes(text)
    } else if (!is_inside_name || before == Some('b')) && text.starts_with(&format!("r{}\"", "#".repeat(hashes))) {
        until(&format!("\"{}", "#".repeat(hashes)), hashes + 2)
    } else if text.starts_with('"') {
        quoted_bytes(text, '"')
    } else if text.starts_with("'\\") {
        quoted_bytes(text, '\'')
    } else if text.starts_with('\'') && text.chars().nth(2) == Some('\'') {
        text.chars().take(3).map(char::len_utf8).sum()
    } else {
        0
    }
}

fn quoted_bytes(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            end if end == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn block_comment_bytes(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}
