//! The floors of the house: who may import whom, and where unsafe code may stand.

#![forbid(unsafe_code)]

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
            let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or("").to_owned();
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
            for_tests = line == "#[cfg(test)]" || for_tests && line.starts_with("#[");
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
        "crate::port",
        "crate::clock",
        "crate::worker",
        "crate::engine",
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

#[test]
fn ports_know_no_session() {
    let words = ["session::", "crate::worker", "crate::engine", "crate::framing", "SessionId"];
    let found = lines_with(&sources("port"), &words);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_low_floors_import_nothing_from_above() {
    for place in ["timer.rs", "clock.rs", "sync"] {
        let found = lines_with(
            &sources(place),
            &["crate::port", "crate::session", "crate::worker", "crate::engine", "crate::server"],
        );
        assert!(found.is_empty(), "{found:#?}");
    }
    for place in ["worker", "acceptor.rs", "engine.rs", "handle.rs"] {
        let found = lines_with(&sources(place), &["crate::server"]);
        assert!(found.is_empty(), "{found:#?}");
    }
}

/// What a server does is decided by its options alone. (`for_seeds`, which runs tests, takes the seed of one
/// that failed from the environment.)
#[test]
fn the_library_reads_no_environment() {
    let tests = ["/src/simulation.rs:", "/src/models/"];
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
    for document in ["PROMISES.md", "ARCHITECTURE.md", "docs/hostile.md"] {
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
