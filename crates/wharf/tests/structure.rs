//! The floors of the house: who may import whom, and where unsafe code may stand.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every source file under `src/<place>`, with its text up to its tests.
fn sources(place: &str) -> Vec<(PathBuf, String)> {
    fn walk(path: &Path, into: &mut Vec<(PathBuf, String)>) {
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                walk(&entry.unwrap().path(), into);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(path).unwrap();
            let product = text.split("\nmod tests {").next().unwrap_or("").to_owned();
            into.push((path.to_owned(), product));
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(place), &mut found);
    assert!(!found.is_empty(), "there is no src/{place}");
    let tests = test_modules(&found);
    found.retain(|(path, _)| !path.iter().any(|part| tests.iter().any(|test| part == &test[..])));
    found
}

/// The names of the files and folders that only tests are made of.
fn test_modules(files: &[(PathBuf, String)]) -> Vec<String> {
    let mut names = Vec::new();
    for (_, text) in files {
        let mut for_tests = false;
        for line in text.lines().map(str::trim) {
            let declaration = line.strip_prefix("mod ").and_then(|line| line.strip_suffix(';'));
            if let Some(name) = declaration.filter(|_| for_tests) {
                names.extend([name.to_owned(), format!("{name}.rs")]);
            }
            // Other attributes may stand between.
            let is_for_tests = line == "#[cfg(test)]" || line.starts_with("#[cfg(all(test");
            for_tests = is_for_tests || for_tests && line.starts_with("#[");
        }
    }
    names
}

/// The lines of code, without comments, that contain one of the words.
fn lines_with(files: &[(PathBuf, String)], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            if words.iter().any(|word| code.contains(word)) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    found
}

/// The floors of the house, from the top down. An import goes down, or stays on its floor.
const FLOORS: &[&[&str]] = &[
    &["lib.rs", "manual"],
    &["simulation"],
    &["server"],
    &["worker"],
    &["face"],
    &["engine"],
    &["port"],
    &["options"],
    &["session"],
    &["framing"],
    &["transport"],
    &["buffer"],
    &["timer.rs"],
    &["guarded.rs", "stats.rs", "histogram.rs", "chunks.rs"],
    &["error", "clock.rs", "sync"],
    &["close.rs", "peer_address.rs", "settings.rs"],
];

/// Rooms that do not know each other, though one stands above the other.
const APART: [(&str, &str); 5] = [
    ("port", "session"),
    ("port", "framing"),
    ("port", "transport"),
    ("session", "framing"),
    ("session", "transport"),
];

/// One import: of which file, in which line, which file.
#[derive(Debug, Clone)]
struct Import {
    from: String,
    line: usize,
    text: String,
    to: String,
}

impl Import {
    fn said(&self, what: &str) -> String {
        let Import { from, line, text, to } = self;
        format!("src/{from}:{line}: `{text}` imports {to}: {what}")
    }
}

/// The files of the library, by their paths in `src/`, with their texts up to their tests.
fn library() -> BTreeMap<String, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let is_product = |name: &str| !name.starts_with("models/") && !name.starts_with("fuzzing/");
    let named = sources("").into_iter().map(|(path, text)| {
        let name = path.strip_prefix(&source).unwrap().to_string_lossy().replace('\\', "/");
        (name, text)
    });
    named.filter(|(name, _)| is_product(name)).collect()
}

/// The folder of a file's child modules.
fn folder_of(file: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    if matches!(parts.last(), Some(&"mod" | &"lib")) {
        parts.pop();
    }
    parts
}

/// The file in which the module of this path is, or the item's that the path ends with.
fn file_of(files: &BTreeMap<String, String>, path: &[&str]) -> Option<String> {
    (0..=path.len()).rev().find_map(|count| {
        let place = path[..count].join("/");
        let names = match count {
            0 => ["lib.rs".to_owned(), String::new()],
            _ => [format!("{place}.rs"), format!("{place}/mod.rs")],
        };
        names.into_iter().find(|name| files.contains_key(name))
    })
}

/// The paths that a `use` names, its braces opened. `tree` is what stands behind `use`.
fn paths_of(tree: &str) -> Vec<String> {
    let Some(open) = tree.find('{') else {
        return vec![tree.split(" as ").next().unwrap_or(tree).trim().to_owned()];
    };
    let (before, inside) = (&tree[..open], tree[open + 1..].trim_end().trim_end_matches('}'));
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for letter in inside.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(letter);
    }
    let parts = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    parts.flat_map(|part| paths_of(&format!("{}{part}", before.trim()))).collect()
}

/// The paths in a file's code, each with its line.
fn paths_in(text: &str) -> Vec<(usize, String)> {
    let is_of_path = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    let (mut found, mut rest, mut line) = (Vec::new(), text, 1_usize);
    while !rest.is_empty() {
        let end = rest.find('\n').map_or(rest.len(), |end| end + 1);
        let code = rest[..end].split("//").next().unwrap_or("").trim();
        let code = code
            .strip_prefix("pub(in ")
            .map_or(code, |code| code.split_once(')').unwrap().1.trim());
        let is_use = code.starts_with("use ") || code.starts_with("pub") && code.contains(" use ");
        if is_use {
            let whole = &rest[..rest.find(';').unwrap_or(rest.len())];
            let tree = whole.split_once("use ").map_or("", |(_, tree)| tree);
            let tree = tree.split_whitespace().collect::<Vec<_>>().join(" ");
            let above = text.lines().nth(line.wrapping_sub(2)).unwrap_or("");
            if above.trim() != "#[cfg(test)]" {
                found.extend(paths_of(&tree).into_iter().map(|path| (line, path)));
            }
            line += whole.matches('\n').count() + 1;
            let after = &rest[whole.len()..];
            rest = after.find('\n').map_or("", |end| &after[end + 1..]);
            continue;
        }
        let paths = code.split(|letter| !is_of_path(letter)).filter(|path| path.contains("::"));
        found.extend(paths.map(|path| (line, path.trim_end_matches(':').to_owned())));
        (line, rest) = (line + 1, &rest[end..]);
    }
    found
}

/// Whether the folder of a file's modules has one of this name.
fn is_module(files: &BTreeMap<String, String>, folder: &[&str], name: &str) -> bool {
    let place = [folder, &[name]].concat().join("/");
    files.contains_key(&format!("{place}.rs")) || files.contains_key(&format!("{place}/mod.rs"))
}

/// All imports between the library's files.
fn imports(files: &BTreeMap<String, String>) -> Vec<Import> {
    let mut found = Vec::new();
    for (from, text) in files {
        for (line, text) in paths_in(text) {
            let mut path = folder_of(from);
            let mut segments = text.split("::").peekable();
            match segments.next() {
                Some("crate") => path.clear(),
                Some("self") => {}
                Some("super") => {
                    path.pop();
                    while segments.next_if_eq(&"super").is_some() {
                        path.pop();
                    }
                }
                // A module of its own, by its name alone.
                Some(first) if is_module(files, &path, first) => path.push(first),
                _ => continue,
            }
            path.extend(segments);
            let Some(to) = file_of(files, &path) else { continue };
            if to != *from {
                found.push(Import { from: from.clone(), line, text, to });
            }
        }
    }
    found
}

/// The floor that a file stands on, counted from the top.
fn floor_of(file: &str) -> Option<usize> {
    let room = file.split('/').next().unwrap_or(file);
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The first circle that is found, in the order of its imports.
fn circle(imports: &[Import]) -> Option<Vec<Import>> {
    let mut out: BTreeMap<&str, Vec<&Import>> = BTreeMap::new();
    imports.iter().for_each(|import| out.entry(&import.from).or_default().push(import));
    let (mut done, mut path): (BTreeSet<&str>, Vec<&Import>) = (BTreeSet::new(), Vec::new());
    fn walk<'a>(
        file: &'a str,
        out: &BTreeMap<&'a str, Vec<&'a Import>>,
        done: &mut BTreeSet<&'a str>,
        path: &mut Vec<&'a Import>,
    ) -> Option<Vec<Import>> {
        for import in out.get(file).into_iter().flatten() {
            path.push(import);
            if let Some(at) = path.iter().position(|before| before.from == import.to) {
                return Some(path[at..].iter().map(|import| (*import).clone()).collect());
            }
            if !done.contains(&import.to[..])
                && let Some(found) = walk(&import.to, out, done, path)
            {
                return Some(found);
            }
            path.pop();
        }
        done.insert(file);
        None
    }
    out.keys().find_map(|file| walk(file, &out, &mut done, &mut path))
}

#[test]
fn imports_only_go_down() {
    let files = library();
    let mut wrong: Vec<String> = files
        .keys()
        .filter(|file| floor_of(file).is_none())
        .map(|file| format!("src/{file} stands on no floor: name its room in FLOORS"))
        .collect();
    let is_there = |room: &&&str| files.keys().any(|file| file.split('/').next() == Some(**room));
    let gone = FLOORS.iter().copied().flatten().filter(|room| !is_there(room));
    wrong.extend(gone.map(|room| format!("src/{room} is on a floor, and is not there")));
    let imports = imports(&files);
    assert!(imports.len() > 300, "{}", imports.len());
    for import in &imports {
        let (from, to) = (floor_of(&import.from), floor_of(&import.to));
        let is_in = |file: &str, room: &str| file.split('/').next() == Some(room);
        if from > to {
            wrong.push(import.said("up"));
        }
        for (a, b) in APART {
            if is_in(&import.from, a) && is_in(&import.to, b) {
                wrong.push(import.said("these rooms do not know each other"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_import_runs_round_in_a_circle() {
    let found = circle(&imports(&library())).unwrap_or_default();
    let said: Vec<_> = found.iter().map(|import| import.said("round in a circle")).collect();
    assert!(said.is_empty(), "{said:#?}");
}

#[test]
fn sessions_and_framings_know_no_socket_no_clock_and_no_operating_system() {
    let words = [
        "socket2",
        "libc",
        "mio::",
        "io_uring",
        "std::net",
        "std::io",
        "std::os",
        "std::time",
        "std::fs",
        "std::env",
        "std::thread",
        "crate::clock",
        "crate::timer",
    ];
    for place in ["session", "framing", "buffer"] {
        // A gathered send names its pieces by `IoSlice`, which is a slice and does nothing.
        let mut found = lines_with(&sources(place), &words);
        // Asking whether a panic is under way is no use of threads.
        found.retain(|line| !line.contains("use std::io::IoSlice;"));
        found.retain(|line| !line.contains("std::thread::panicking()"));
        assert!(found.is_empty(), "{found:#?}");
    }
}

/// What a server does is decided by its options alone. (`simulation::check`, which runs tests, takes the
/// seed of one that failed from the environment.)
#[test]
fn the_library_reads_no_environment() {
    let tests = ["/src/simulation/check.rs:", "/src/models/"];
    let mut found = lines_with(&sources(""), &["env::var", "env::args"]);
    found.retain(|line| !tests.iter().any(|test| line.replace('\\', "/").contains(test)));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn unsafe_code_stands_only_in_the_ports_and_sessions_and_says_why_it_is_safe() {
    for (path, text) in sources("") {
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            if !code.contains("unsafe ") || code.contains("unsafe_code") {
                continue;
            }
            let place = path.to_string_lossy().replace('\\', "/");
            let allowed = ["/src/port/", "/src/session/", "/src/models/"];
            let allowed = allowed.iter().any(|room| place.contains(room));
            assert!(allowed, "{}:{}: unsafe code", path.display(), number + 1);
            let above = &lines[number.saturating_sub(8)..number];
            // A function says what its callers must see to; a block, why it is safe.
            let note = if code.contains("unsafe fn ") { "# Safety" } else { "SAFETY:" };
            let noted = above.iter().any(|line| line.contains(note));
            assert!(noted, "{}:{}: no SAFETY note", path.display(), number + 1);
        }
    }
}

/// The names in backquotes that a document says something is held by, if they are names of tests: long, and of
/// many words.
fn tests_named_in(document: &str) -> Vec<String> {
    let is_test = |name: &&str| {
        let mut letters = name.chars();
        name.matches('_').count() >= 4
            && letters.all(|letter| {
                letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_'
            })
    };
    let quoted = document.split('`').skip(1).step_by(2);
    quoted
        .map(|name| name.rsplit("::").next().unwrap_or(name))
        .filter(is_test)
        .map(str::to_owned)
        .collect()
}

/// The documents that say what holds what.
const DOCUMENTS: [&str; 4] =
    ["PROMISES.md", "ARCHITECTURE.md", "docs/hostile.md", "docs/evidence.md"];

/// The paths in backquotes that a document names: the first word, if it begins with a folder of ours.
fn paths_named_in(document: &str) -> Vec<&str> {
    let folders = ["tests/", "models/", "worker/", "port/", "crates/", "ci/", "lab/", "bench/"];
    let quoted = document.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|quoted| quoted.split_whitespace().next())
        .filter(|path| folders.iter().any(|folder| path.starts_with(folder)))
        .collect()
}

#[test]
fn every_file_that_a_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let bases = ["", "crates/wharf/", "crates/wharf/src/"].map(|base| root.join(base));
    let mut named = 0;
    for document in DOCUMENTS {
        for path in paths_named_in(&fs::read_to_string(root.join(document)).unwrap()) {
            let is_there = bases
                .iter()
                .any(|base| base.join(path).exists() || base.join(format!("{path}.rs")).exists());
            assert!(is_there, "{document} names {path}");
            named += 1;
        }
    }
    assert!(named > 100, "{named}");
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut code = String::new();
    for crate_folder in
        fs::read_dir(root.join("crates")).unwrap().chain(fs::read_dir(root.join("bench")).unwrap())
    {
        add_code(&crate_folder.unwrap().path(), &mut code);
    }
    let mut named = 0;
    for document in DOCUMENTS {
        for test in tests_named_in(&fs::read_to_string(root.join(document)).unwrap()) {
            let is_there = ["(", "<"].iter().any(|then| code.contains(&format!("fn {test}{then}")));
            assert!(is_there, "{document} names {test}");
            named += 1;
        }
    }
    assert!(named > 100, "{named}");
}

/// All Rust below a place, but for what was built there.
fn add_code(path: &Path, to: &mut String) {
    if path.is_dir() && !path.ends_with("target") {
        for entry in fs::read_dir(path).unwrap() {
            add_code(&entry.unwrap().path(), to);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        to.push_str(&fs::read_to_string(path).unwrap());
    }
}

#[test]
fn the_walks_of_the_map_enter_each_file_once() {
    let map = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ARCHITECTURE.md");
    let map = fs::read_to_string(map).unwrap();
    let walks =
        map.split("The same as files, each entered once:").nth(1).expect("the walks are there");
    let walks = walks.split("\n\n").nth(1).unwrap().split("\n- ");
    let mut lengths = Vec::new();
    for walk in walks {
        let files: Vec<_> = walk.split('`').filter(|word| word.ends_with(".rs")).collect();
        for file in &files {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
            assert!(path.is_file(), "{file} is on a walk, and is not there");
        }
        let once: BTreeSet<_> = files.iter().collect();
        assert_eq!(once.len(), files.len(), "a file is entered twice: {files:?}");
        lengths.push(files.len());
    }
    assert!(lengths.len() == 2 && lengths.iter().all(|files| *files > 5), "{lengths:?}");
}

/// README's text cannot be compiled where it stands.
#[test]
fn what_readme_tests_under_simulation_is_what_is_run() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(here.join("../../README.md")).unwrap();
    let sums = fs::read_to_string(here.join("tests/sums.rs")).unwrap();
    let (_, code) = sums.split_once("forbid(unsafe_code)]\n\n").unwrap();
    assert!(readme.contains(&format!("```rust,ignore\n{code}```")), "README has another text");
}
