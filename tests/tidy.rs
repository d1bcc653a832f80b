//! Reads the sources and checks what the compiler does not: which modules are pure, who may import whom, and that
//! nothing is without a bound.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules that decide and do nothing: a file, or a folder with all that is in it.
const PURE: &[&str] = &[
    "board.rs",
    "config",
    "config.rs",
    "limits.rs",
    "link",
    "proto",
    "random.rs",
    "service/retention",
    "service/retention.rs",
    "service/routes",
    "service/routes.rs",
    "store/block.rs",
    "store/change.rs",
    "store/flash.rs",
    "store/log.rs",
    "store/replay.rs",
    "time.rs",
    "transport/cache.rs",
    "transport/candidate.rs",
    "transport/endpoint.rs",
    "transport/properties.rs",
    "transport/racing.rs",
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
    "thread_local!",
    "static mut",
    "OnceLock",
    "LazyLock",
];

/// Modules that firmware uses as well.
const WITHOUT_STD: &[&str] = &["limits.rs", "link", "time.rs", "wire"];

/// Queues that grow until memory ends.
const UNBOUNDED: &[&str] = &["unbounded_channel", "UnboundedSender", "UnboundedReceiver", "mpsc::channel()"];

/// What everything may use.
const BASE: &[&str] = &["limits", "random", "time"];

/// Who may import whom. The command line is on top of everything and is not listed.
const ARROWS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("random", &[]),
    ("time", &[]),
    ("wire", &[]),
    ("link", &["wire"]),
    ("webpush", &[]),
    ("transport", &[]),
    ("store", &[]),
    ("telemetry", &[]),
    ("board", &[]),
    ("config", &["transport", "wire"]),
    ("proto", &["webpush", "wire"]),
    ("upstream", &["proto", "telemetry", "transport", "webpush"]),
    ("downstream", &["link", "proto", "telemetry", "transport", "wire"]),
    ("service", &["telemetry", "transport", "webpush"]),
    ("sender", &["telemetry", "transport", "webpush"]),
    ("control", &["config", "proto", "telemetry", "wire"]),
    (
        "gateway",
        &[
            "config",
            "control",
            "downstream",
            "link",
            "proto",
            "store",
            "telemetry",
            "transport",
            "upstream",
            "webpush",
            "wire",
        ],
    ),
    ("main", &["cli"]),
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
            .filter(|source| source.is_in(WITHOUT_STD))
            .flat_map(|source| source.mentions(&["std::", "alloc::"])),
    );
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
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == module) else { continue };
        for (line, target) in source.imports() {
            if target != module && !allowed.contains(&target.as_str()) && !BASE.contains(&target.as_str()) {
                wrong.push(format!("{}:{line}: {module} must not know {target}", source.path.display()));
            }
        }
    }
    report(wrong.into_iter());
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
    let source =
        Source { path: PathBuf::from("x.rs"), code: "\nuse crate::{a, b::{c, d}, e::f};\nuse crate::g::h;".to_owned() };
    let imports: Vec<_> = source.imports().into_iter().map(|(line, name)| format!("{line}{name}")).collect();
    assert_eq!(imports, ["2a", "2b", "2e", "3g"]);
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
        for (at, _) in self.code.match_indices("crate::") {
            let line = 1 + self.code[..at].matches('\n').count();
            let rest = &self.code[at + "crate::".len()..];
            let names = if rest.starts_with('{') { group(rest) } else { vec![name(rest)] };
            imports.extend(names.into_iter().filter(|name| !name.is_empty()).map(|name| (line, name)));
        }
        imports
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
                let code = code_of(&fs::read_to_string(&path).expect("the sources are readable"));
                let path = path.strip_prefix(&root).expect("it is below").to_owned();
                sources.push(Source { path, code });
            }
        }
    }
    assert!(!sources.is_empty());
    sources
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
