//! Holds the tree to the project's own rules (CONTRIBUTING.md): what a compiler cannot see.
//!
//! Each rule is a function from a file's text to complaints, and each has a test below that feeds
//! it a text it must complain about.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines that a source file may have.
const MAX_FILE_LINES: usize = 700;

/// Lines from which on a file is listed as one to split soon.
const LONG_FILE_LINES: usize = 500;

/// Lines that a function may have, its signature and closing brace included.
const MAX_FUNCTION_LINES: usize = 70;

/// Where `unsafe` may stand: each place owns memory or talks to the system, and says why it is
/// sound.
const UNSAFE_ALLOWED: [&str; 8] = [
    "driver/src/mem/",
    "driver/src/sys/",
    "driver/src/mmio.rs",
    "driver/src/ring.rs",
    "driver/src/intel/rx.rs",
    "driver/src/intel/tx.rs",
    "benches/benches/memory.rs",
    "apps/preload/",
];

/// The crates that a package may name, by folder: arrows point down only.
const LAYERS: [(&str, &[&str]); 3] = [
    ("driver/src/", &["barewire", "barewire_stack"]),
    ("stack/src/", &["barewire"]),
    ("apps/src/", &[]),
];

/// The modules of the stack from the lowest to the highest; those of one row may name each other.
/// A module names its own row and those above it in this table.
const STACK_ORDER: [&[&str]; 8] = [
    &["error", "addr"],
    &["hint", "time", "rng"],
    &["wire"],
    &["timer"],
    &["tcp", "udp", "icmp", "neighbor", "route", "reassembly"],
    &["counters", "socket"],
    &["interface", "stack"],
    &["engine", "sim"],
];

/// A tracked text file.
struct Source {
    /// Relative to the workspace.
    path: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// A file of nothing but tests.
    fn is_test(&self) -> bool {
        self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.ends_with("_tests.rs")
    }
}

fn workspace() -> PathBuf {
    let apps = Path::new(env!("CARGO_MANIFEST_DIR"));
    apps.parent().expect("the package lies in the workspace").to_owned()
}

/// All text files that git tracks or would track.
fn sources() -> Vec<Source> {
    let root = workspace();
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(&root)
        .output();
    let paths: Vec<String> = match listed {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
        }
        // A source archive has no git; everything in it is the project's.
        Ok(_) | Err(_) => walk(&root, ""),
    };
    let read = |path: String| {
        let text = fs::read_to_string(root.join(&path)).ok()?;
        Some(Source { path, text })
    };
    paths.into_iter().filter_map(read).collect()
}

fn walk(root: &Path, below: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(root.join(below)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if name != "target" && name != ".git" {
                paths.extend(walk(root, &path));
            }
        } else {
            paths.push(path);
        }
    }
    paths
}

/// `text` with comments, strings and character literals blanked, line ends and columns kept: what
/// the rules about code look at.
fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The end of the comment or literal that begins at `at`, or `at` if none does.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let find = |from: usize, what: &[u8]| {
        let found = rest[from..].windows(what.len()).position(|window| window == what);
        found.map_or(bytes.len(), |found| at + from + found + what.len())
    };
    let word_before = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest {
        [b'/', b'/', ..] => find(2, b"\n").saturating_sub(1).max(at + 2),
        [b'/', b'*', ..] => find(2, b"*/"),
        [b'r', b'"' | b'#', ..] | [b'b', b'r', b'"' | b'#', ..] if !word_before => {
            let open = rest.iter().position(|&b| b == b'"' || b == b'#').unwrap_or(0);
            let hashes = rest[open..].iter().take_while(|&&b| b == b'#').count();
            if rest.get(open + hashes) != Some(&b'"') {
                return at;
            }
            find(open + hashes + 1, &[&b"\""[..], &b"#".repeat(hashes)].concat())
        }
        [b'"', ..] => {
            let mut end = 1;
            while end < rest.len() && rest[end] != b'"' {
                end += if rest[end] == b'\\' { 2 } else { 1 };
            }
            (at + end + 1).min(bytes.len())
        }
        [b'\'', b'\\', _, ..] => find(3, b"'"),
        [b'\'', _, b'\'', ..] => at + 3,
        _ => at,
    }
}

/// The part of a file before its unit tests.
fn without_tests(code: &str) -> &str {
    let cut = code.find("\n#[cfg(test)]\nmod tests {").map_or(code.len(), |at| at + 1);
    &code[..cut]
}

fn numbered(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines().enumerate().map(|(i, line)| (i + 1, line))
}

/// True if `word` stands in `line` as a whole identifier.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part)
    })
}

// The rules.

fn unsafe_outside(path: &str, code: &str) -> Vec<String> {
    if UNSAFE_ALLOWED.iter().any(|allowed| path.starts_with(allowed)) {
        return Vec::new();
    }
    let found = numbered(code).filter(|(_, line)| has_word(line, "unsafe"));
    found.map(|(n, _)| format!("{path}:{n}: `unsafe` outside of the layers that may")).collect()
}

fn unfinished(path: &str, text: &str, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    // Put together here, so that this file does not complain about itself.
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat()];
    for (n, line) in numbered(text) {
        for mark in marks.iter().filter(|mark| has_word(line, mark)) {
            found.push(format!("{path}:{n}: `{mark}`: finish it, or say it in an issue"));
        }
    }
    for (n, line) in numbered(code) {
        for word in ["todo!", "unimplemented!", "dbg!"] {
            if line.contains(word) {
                found.push(format!("{path}:{n}: `{word}`"));
            }
        }
    }
    found
}

fn ignored_tests(path: &str, code: &str) -> Vec<String> {
    let found = numbered(code).filter(|(_, line)| line.contains("#[ignore]"));
    found.map(|(n, _)| format!("{path}:{n}: an ignored test says why")).collect()
}

/// Tests in a file of their own are described by the module that they test.
fn module_docs(path: &str, text: &str) -> Vec<String> {
    if path.ends_with("tests.rs") || text.trim_start().starts_with("//!") {
        return Vec::new();
    }
    vec![format!("{path}:1: a module opens with its purpose (`//!`)")]
}

fn file_length(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    if lines <= MAX_FILE_LINES {
        return Vec::new();
    }
    vec![format!("{path}: {lines} lines, more than {MAX_FILE_LINES}: split it")]
}

/// Functions longer than allowed. A function ends with the first closing brace that is indented
/// as its first line is, which is how rustfmt writes it.
fn function_length(path: &str, code: &str) -> Vec<String> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let is_function = line.trim_start().split('(').next().is_some_and(|head| {
            has_word(head, "fn") && !head.trim_start().starts_with(['=', '.', '|'])
        });
        if !is_function || line.trim_end().ends_with([';', '}']) {
            continue;
        }
        let closes = |line: &&str| {
            line.len() - line.trim_start().len() == indent && line.trim_start().starts_with('}')
        };
        let ends_early = |line: &&str| {
            line.len() - line.trim_start().len() <= indent && line.trim_end().ends_with(';')
        };
        let rest = &lines[first + 1..];
        let Some(length) = rest.iter().position(|line| closes(line) || ends_early(line)) else {
            continue;
        };
        if length + 2 > MAX_FUNCTION_LINES {
            let n = first + 1;
            let long = length + 2;
            found.push(format!(
                "{path}:{n}: a function of {long} lines, more than {MAX_FUNCTION_LINES}"
            ));
        }
    }
    found
}

/// Crates that a layer must not know.
fn layer_edges(path: &str, code: &str) -> Vec<String> {
    let Some((_, above)) = LAYERS.iter().find(|(folder, _)| path.starts_with(folder)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (n, line) in numbered(code) {
        for name in above.iter().filter(|name| has_word(line, name)) {
            found.push(format!("{path}:{n}: names `{name}`, a layer above its own"));
        }
    }
    found
}

/// The row of a module of the stack in [`STACK_ORDER`].
fn stack_row(module: &str) -> Option<usize> {
    STACK_ORDER.iter().position(|row| row.contains(&module))
}

/// Modules of the stack that one of its modules must not know. `lib.rs` joins them all.
fn stack_edges(path: &str, code: &str) -> Vec<String> {
    let Some(inside) = path.strip_prefix("stack/src/") else { return Vec::new() };
    let module = inside.split(['/', '.']).next().unwrap_or(inside);
    if module == "lib" {
        return Vec::new();
    }
    let Some(row) = stack_row(module) else {
        return vec![format!("{path}: `{module}` has no place in STACK_ORDER (tidy.rs)")];
    };
    let mut found = Vec::new();
    for (n, name) in crate_modules(code) {
        match stack_row(&name) {
            Some(other) if other > row => {
                found.push(format!("{path}:{n}: `{module}` names `{name}`, which stands above it"));
            }
            Some(_) | None => {}
        }
    }
    found
}

/// Modules of the same crate that `code` names, by line: `crate::name` and `crate::{name, …}`.
fn crate_modules(code: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + prefix.len()..];
        if rest.starts_with('{') {
            names.extend(top_level(rest).into_iter().map(|name| (line, name)));
        } else {
            names.push((line, identifier(rest)));
        }
    }
    names
}

fn identifier(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first identifier of each item of a `{…}` list, nested lists left out.
fn top_level(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    let mut item = 0;
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        let opens = c == '{' && depth == 1;
        let ends = (c == ',' && depth == 1) || depth == 0;
        if ends {
            names.push(identifier(&list[item..at]));
        }
        if opens || ends {
            item = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Paths of one machine, and hosts that only some networks have. Manifests and the lock file name
/// the public registry by its rightful name.
fn machine_traces(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let traces = ["work", "root", "home"].map(|dir| format!("/{dir}/"));
    let hosts = [["index.", "crates.io"].concat(), ["static.", "crates.io"].concat()];
    for (n, line) in numbered(text) {
        for trace in &traces {
            let whole = line.match_indices(trace.as_str()).any(|(at, _)| {
                // A folder of that name inside of another path is nobody's home.
                !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-*".contains(c))
            });
            if whole {
                found.push(format!("{path}:{n}: a path of one machine ({trace})"));
            }
        }
        for host in hosts.iter().filter(|host| line.contains(host.as_str())) {
            found.push(format!("{path}:{n}: a registry's host ({host})"));
        }
    }
    found
}

/// Commands in a text's code blocks that start with one of our scripts.
fn named_scripts(text: &str) -> Vec<String> {
    let ends = |c: char| !(c.is_alphanumeric() || c == '_' || c == '-');
    let mut names: Vec<String> = text
        .match_indices("scripts/")
        .map(|(at, folder)| text[at + folder.len()..].split(ends).next().unwrap_or("").to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Subcommands of `barewire` in a text's lines of code.
fn named_commands(text: &str) -> Vec<String> {
    let mut names: Vec<String> = text
        .match_indices("barewire ")
        .filter(|(at, _)| text[..*at].ends_with(['`', '/']) || text[..*at].ends_with("$ "))
        .map(|(at, name)| identifier(&text[at + name.len()..]))
        .filter(|name| !name.is_empty())
        .collect();
    names.sort();
    names.dedup();
    names
}

// The rules against the tree.

#[track_caller]
/// Tests that a table of promises names and that are not there: packet traces by their name, others
/// as `FILE::NAME`. A promise without a test has to say so.
fn promised_tests(text: &str, exists: impl Fn(&str, Option<&str>) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", promise, shown, ""] = cells[..] else { continue };
        if shown == "shown by" || shown.starts_with("---") || shown == "**missing**" {
            continue;
        }
        let names: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            found.push(format!("line {}: `{promise}` names no test", at + 1));
        }
        for name in names {
            let there = match name.split_once("::") {
                Some((file, test)) => exists(file, Some(test)),
                None => exists(&format!("stack/tests/traces/{name}"), None),
            };
            if !there {
                found.push(format!("line {}: there is no {name}", at + 1));
            }
        }
    }
    found
}

fn assert_tidy(rule: impl Fn(&Source) -> Vec<String>) {
    let sources = sources();
    assert!(sources.len() > 20, "the tree was not found");
    let found: Vec<String> = sources.iter().flat_map(rule).collect();
    assert!(found.is_empty(), "{} complaints:\n{}", found.len(), found.join("\n"));
}

/// Applies a rule about code to every Rust file but tests, without comments and strings.
#[track_caller]
fn assert_tidy_code(rule: impl Fn(&str, &str) -> Vec<String>) {
    assert_tidy(|source| match source.is_rust() && !source.is_test() {
        true => rule(&source.path, without_tests(&code_only(&source.text))),
        false => Vec::new(),
    });
}

#[test]
fn unsafe_stands_only_where_it_may() {
    assert_tidy(|source| match source.is_rust() {
        true => unsafe_outside(&source.path, &code_only(&source.text)),
        false => Vec::new(),
    });
}

#[test]
fn nothing_is_left_unfinished() {
    assert_tidy(|source| match source.is_rust() {
        true => unfinished(&source.path, &source.text, &code_only(&source.text)),
        false => Vec::new(),
    });
}

#[test]
fn ignored_tests_say_why() {
    assert_tidy(|source| match source.is_rust() {
        true => ignored_tests(&source.path, &code_only(&source.text)),
        false => Vec::new(),
    });
}

#[test]
fn every_module_opens_with_its_purpose() {
    assert_tidy(|source| match source.is_rust() {
        true => module_docs(&source.path, &source.text),
        false => Vec::new(),
    });
}

#[test]
fn files_are_short_enough_to_read() {
    assert_tidy(|source| match source.is_rust() {
        true => file_length(&source.path, &source.text),
        false => Vec::new(),
    });
    for source in sources().iter().filter(|source| source.is_rust() && !source.is_test()) {
        let lines = source.text.lines().count();
        if lines > LONG_FILE_LINES {
            println!("to be split soon: {} ({lines} lines)", source.path);
        }
    }
}

#[test]
fn functions_are_short_enough_to_read() {
    assert_tidy_code(function_length);
}

#[test]
fn layers_name_only_those_below() {
    assert_tidy_code(layer_edges);
    assert_tidy_code(stack_edges);
}

#[test]
fn manifests_depend_only_downwards() {
    for (package, above) in [("driver", &["stack", "apps"][..]), ("stack", &["apps"])] {
        let manifest = fs::read_to_string(workspace().join(package).join("Cargo.toml")).unwrap();
        for layer in above {
            let name = if *layer == "apps" { "barewire" } else { "barewire-stack" };
            let depends = |line: &str| {
                line.split(['.', '=', ' ']).next().is_some_and(|dependency| dependency == name)
            };
            assert!(!manifest.lines().any(depends), "{package} depends on {name}");
        }
    }
}

#[test]
fn no_machine_shows() {
    assert_tidy(|source| match source.path.as_str() {
        "Cargo.lock" => Vec::new(),
        path => machine_traces(path, &source.text),
    });
}

#[test]
fn scripts_can_be_run() {
    use std::os::unix::fs::PermissionsExt;
    let mut seen = 0;
    for source in sources().iter().filter(|source| source.text.starts_with("#!")) {
        if source.is_rust() {
            continue;
        }
        let meta = fs::metadata(workspace().join(&source.path)).unwrap();
        assert!(meta.permissions().mode() & 0o111 != 0, "{} is not executable", source.path);
        seen += 1;
    }
    assert!(seen >= 3, "the scripts were not found");
}

#[test]
fn what_the_documents_tell_to_run_exists() {
    for document in ["README.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(workspace().join(document)).unwrap();
        let scripts = named_scripts(&text);
        assert!(!scripts.is_empty(), "{document} names no script");
        for script in scripts {
            let path = workspace().join("scripts").join(&script);
            assert!(path.exists(), "{document} names scripts/{script}");
        }
    }
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let commands = named_commands(&readme);
    assert!(!commands.is_empty(), "README.md names no command");
    let help = Command::new(env!("CARGO_BIN_EXE_barewire")).arg("--help").output().unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for command in commands {
        let listed = help.lines().any(|line| line.trim_start().starts_with(&format!("{command} ")));
        assert!(listed, "README.md names `barewire {command}`");
    }
}

#[test]
fn every_promise_names_tests_that_exist() {
    let path = "stack/PROMISES.md";
    let text = fs::read_to_string(workspace().join(path)).unwrap();
    let exists = |file: &str, test: Option<&str>| {
        let Ok(text) = fs::read_to_string(workspace().join(file)) else { return false };
        test.is_none_or(|test| text.contains(&format!("fn {test}(")))
    };
    let rows = text.lines().filter(|line| line.contains(".trace`")).count();
    assert!(rows > 50, "{path} has {rows} rows with a trace");
    let found = promised_tests(&text, exists);
    assert!(found.is_empty(), "{path}:\n{}", found.join("\n"));
}

// The rules against what they must find.

#[test]
fn promises_without_tests_are_found() {
    let table = "| promise | shown by |\n| --- | --- |\n| a | `x.trace`, `f.rs::t` |\n\
                 | b | `y.trace` |\n| c | **missing** |\n| d | surely |\n";
    let exists = |file: &str, test: Option<&str>| match test {
        None => file == "stack/tests/traces/x.trace",
        Some(test) => (file, test) == ("f.rs", "t"),
    };
    let found = promised_tests(table, exists);
    assert_eq!(found, ["line 4: there is no y.trace", "line 6: `d` names no test"]);
}

#[test]
fn comments_and_strings_are_not_code() {
    let text =
        "a // unsafe\nb /* unsafe\n unsafe */ c \"un\\\"safe\" r#\"x\"unsafe\"# '\"' d 'x: e";
    let code = code_only(text);
    assert!(!has_word(&code, "unsafe"), "{code}");
    let words: Vec<_> = code.split_whitespace().collect();
    assert_eq!(words, ["a", "b", "c", "d", "'x:", "e"]);
    assert_eq!(code.lines().count(), text.lines().count());
}

#[test]
fn unsafe_is_found() {
    let code = "fn f() {\n    unsafe { g() }\n}";
    assert_eq!(unsafe_outside("stack/src/lib.rs", code).len(), 1);
    assert!(unsafe_outside("driver/src/mem/pool.rs", code).is_empty());
    assert!(unsafe_outside("stack/src/lib.rs", "#![forbid(unsafe_code)]").is_empty());
}

#[test]
fn unfinished_work_is_found() {
    for text in ["todo!()", "let x = dbg!(1);", "unimplemented!(\"later\")"] {
        assert_eq!(unfinished("a.rs", text, text).len(), 1, "{text}");
    }
    let note = format!("// {}{}: later", "TO", "DO");
    assert_eq!(unfinished("a.rs", &note, &code_only(&note)).len(), 1);
    assert!(unfinished("a.rs", "// to do so", "").is_empty());
    assert_eq!(ignored_tests("a.rs", "#[ignore]\nfn t() {}").len(), 1);
    assert!(ignored_tests("a.rs", "#[ignore = \"takes an hour\"]\nfn t() {}").is_empty());
}

#[test]
fn missing_module_docs_are_found() {
    assert_eq!(module_docs("a.rs", "use std::io;\n//! late\n").len(), 1);
    assert!(module_docs("a.rs", "//! Purpose.\n").is_empty());
    assert!(module_docs("a_tests.rs", "use super::*;\n").is_empty());
}

#[test]
fn length_is_measured() {
    assert_eq!(file_length("a.rs", &"x\n".repeat(MAX_FILE_LINES + 1)).len(), 1);
    assert!(file_length("a.rs", &"x\n".repeat(MAX_FILE_LINES)).is_empty());
    let function = |lines: usize| {
        format!(
            "impl A {{\n    pub fn f(\n        a: u8,\n    ) {{\n{}    }}\n}}\n",
            "        x;\n".repeat(lines - 4)
        )
    };
    assert!(function_length("a.rs", &function(MAX_FUNCTION_LINES)).is_empty());
    let found = function_length("a.rs", &function(MAX_FUNCTION_LINES + 1));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("a.rs:2:"), "{found:?}");
    let short =
        "trait T {\n    fn a(&self);\n    fn b(&self) {}\n}\n".to_owned() + &"x\n".repeat(99);
    assert!(function_length("a.rs", &short).is_empty());
}

#[test]
fn edges_that_point_up_are_found() {
    let uses = |path, code| layer_edges(path, code).len();
    assert_eq!(uses("driver/src/tap.rs", "use barewire_stack::Stack;"), 1);
    assert_eq!(uses("stack/src/lib.rs", "use barewire::net;"), 1);
    assert_eq!(uses("stack/src/lib.rs", "use barewire_driver::Pool;"), 0);
    let inside = |path, code| stack_edges(path, code).len();
    assert_eq!(inside("stack/src/wire/tcp.rs", "use crate::tcp::Tcb;"), 1);
    assert_eq!(inside("stack/src/wire/tcp.rs", "use crate::time::Instant;"), 0);
    assert_eq!(inside("stack/src/tcp/mod.rs", "use crate::{time::{self, x}, socket, Rng};"), 1);
    assert_eq!(inside("stack/src/tcp/mod.rs", "f(crate::engine::now())"), 1);
    assert_eq!(inside("stack/src/novel.rs", ""), 1, "a module without a place");
    assert_eq!(inside("stack/src/lib.rs", "use crate::engine::Core;"), 0);
}

#[test]
fn traces_of_a_machine_are_found() {
    let traces = |text: &str| machine_traces("a", text).len();
    assert_eq!(traces(&["see /wo", "rk/x"].concat()), 1);
    assert_eq!(traces(&["=/ro", "ot/.cargo"].concat()), 1);
    assert_eq!(traces(&["https://index.", "crates.io/"].concat()), 1);
    assert_eq!(traces("bench/work/load and target/root/x"), 0);
}

#[test]
fn named_programs_are_found() {
    let text = "run `scripts/demo --once`, scripts/test.\n\n$ barewire serve --device tap:bw0\n";
    assert_eq!(named_scripts(text), ["demo", "test"]);
    assert_eq!(named_commands(text), ["serve"]);
    assert_eq!(named_commands("the barewire command, `barewire ping`"), ["ping"]);
}
