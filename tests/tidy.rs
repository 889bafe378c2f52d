//! The house defends itself: who may know whom, where `unsafe` is, how large things get.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each room of `src/` and the rooms that it may know. The words are the files at the top.
const EDGES: [(&str, &[&str]); 11] = [
    ("words", &["words"]),
    ("os", &["os", "words"]),
    ("format", &["format", "words"]),
    ("shard", &["shard", "os", "format", "words"]),
    ("stream", &["stream", "shard", "os", "format", "words"]),
    ("worker", &["worker", "stream", "os", "format", "words"]),
    ("queue", &["queue", "worker", "stream", "os", "format", "words"]),
    ("verify", &["verify", "stream", "shard", "os", "format", "words"]),
    ("repair", &["repair", "verify", "stream", "shard", "os", "format", "words"]),
    (
        "fuzzing",
        &["fuzzing", "worker", "repair", "verify", "stream", "shard", "os", "format", "words"],
    ),
    ("front door", &["words", "os", "stream", "verify", "repair", "worker", "queue", "manual"]),
];
/// Only these parts of a room are for the room named with them.
const NARROW: [(&str, &str, &[&str]); 3] = [
    ("worker", "format", &["control_row", "names"]),
    ("queue", "format", &["queue_entry", "names"]),
    ("front door", "os", &["clock"]),
];
const MAX_FILE_LINES: usize = 450;
const MAX_LINE_CHARS: usize = 100;
/// All packages of a build without features, ours included.
const MAX_PACKAGES: usize = 18;

fn source_files() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(&root).unwrap().to_owned(), text));
            }
        }
    }
    assert!(files.len() > 20, "the source was found");
    files
}

/// The room that a file of `src/` is in.
fn room_of(file: &Path) -> String {
    let mut parts = file.iter().map(|part| part.to_str().unwrap());
    match (parts.next().unwrap(), parts.next()) {
        ("lib.rs", None) => "front door".into(),
        (_, None) => "words".into(),
        (room, Some(_)) => room.into(),
    }
}

/// Code without comments, text and what is only compiled for tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap();
    let lines = text.lines().map(|line| line.split("//").next().unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

/// What a piece of code names by a path from the crate's root: the first two parts of each.
fn paths_from_root(code: &str) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let rest = &code[at + "crate::".len()..];
        let (first, rest) = rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
        let second: String = match rest.strip_prefix("::") {
            Some(rest) => rest.chars().take_while(|c| is_word(*c)).collect(),
            None => String::new(),
        };
        if first.is_empty() {
            assert!(!rest.starts_with('{'), "write one use a room: crate::{{..}} hides the rooms");
        }
        found.insert((first.to_owned(), second));
    }
    found
}

/// The room that a name at the crate's root leads to.
fn room_of_name(name: &str) -> String {
    let rooms: Vec<_> = EDGES.iter().map(|(room, _)| *room).collect();
    if rooms.contains(&name) || name == "manual" { name.to_owned() } else { "words".into() }
}

#[test]
fn rooms_know_only_the_rooms_below_them() {
    let edges = BTreeMap::from(EDGES);
    for (file, text) in source_files() {
        let room = room_of(&file);
        // The command line is a crate of its own: it sees the library as everybody does.
        if room == "manual" || room == "bin" {
            continue;
        }
        let allowed = edges.get(room.as_str()).unwrap_or_else(|| panic!("what room is {room}?"));
        let code = code(&text);
        for (name, part) in paths_from_root(&code) {
            let other = room_of_name(&name);
            assert!(allowed.contains(&other.as_str()), "{file:?}: {room} must not know {other}");
            for (who, whom, parts) in NARROW {
                let kept = who != room || whom != other || parts.contains(&part.as_str());
                assert!(kept, "{file:?}: {who} may know of {whom} only {parts:?}, not {part}");
            }
        }
    }
}

#[test]
fn the_rooms_have_no_cycles() {
    let edges = BTreeMap::from(EDGES);
    let mut settled = BTreeSet::from(["manual"]);
    while settled.len() <= edges.len() {
        let next = edges.iter().find(|(room, known)| {
            !settled.contains(*room)
                && known.iter().all(|other| other == *room || settled.contains(other))
        });
        let (room, _) = next.expect("some room knows only settled ones");
        settled.insert(room);
    }
}

#[test]
fn no_file_goes_around_the_rooms() {
    for (file, text) in source_files() {
        let mut code = code(&text);
        // The limits of the benchmarks, which are not part of any room.
        if file == Path::new("bin/millstream/bench/mod.rs") {
            let limits = "#[path = \"../../../../benches/figures/limits.rs\"]";
            code = code.replacen(limits, "", 1);
        }
        for way in ["#[path", "super::super", "include!"] {
            assert!(!code.contains(way), "{file:?} has {way}");
        }
    }
}

#[test]
fn unsafe_is_in_one_file_and_every_block_answers_its_contract() {
    for (file, text) in source_files() {
        let code = code(&text);
        let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        let count = words.filter(|word| *word == "unsafe").count();
        if file == Path::new("os/mmap.rs") {
            assert_eq!(count, text.matches("// SAFETY:").count(), "{file:?}");
        } else {
            assert_eq!(count, 0, "{file:?}");
        }
    }
}

#[test]
fn no_file_is_larger_than_one_holds_in_the_head() {
    for (file, text) in source_files() {
        let lines = text.lines().count();
        assert!(lines <= MAX_FILE_LINES, "{file:?} has {lines} lines: divide it by nouns");
        for (number, line) in text.lines().enumerate() {
            let chars = line.chars().count();
            assert!(chars <= MAX_LINE_CHARS, "{file:?}:{} has {chars} characters", number + 1);
        }
    }
}

#[test]
fn the_library_prints_nothing_and_leaves_nothing_undone() {
    for (file, text) in source_files() {
        let code = code(&text);
        for word in ["println!", "eprintln!", "dbg!", "todo!", "unimplemented!"] {
            let allowed = file.starts_with("bin") && word.ends_with("println!");
            assert!(allowed || !code.contains(word), "{file:?} has {word}");
        }
    }
}

#[test]
fn every_seeded_bug_has_to_be_caught_and_is_told_of() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let said = ["tests/torture/teeth.rs", "src/manual/testing.md"]
        .map(|file| fs::read_to_string(root.join(file)).unwrap());
    let sources = source_files();
    let bugs: Vec<_> = sources
        .iter()
        .flat_map(|(_, text)| text.split("bug(\"").skip(1))
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert!(bugs.len() >= 19, "the bugs were found: {bugs:?}");
    for bug in bugs {
        assert!(said[0].contains(&format!("\"{bug}\"")), "{bug} is not in teeth.rs");
        assert!(said[1].contains(&format!("| `{bug}` |")), "{bug} is not in the manual");
    }
}

/// The text of all tests, in `src/` and `tests/`.
fn all_tests() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.extension().is_some_and(|e| e == "rs"));
    let texts = files.map(|path| fs::read_to_string(path).unwrap());
    texts.chain(source_files().into_iter().map(|(_, text)| text)).collect()
}

#[test]
fn the_tests_that_the_manual_names_are_there() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manual");
    let tests = all_tests();
    let is_test = |name: &&str| name.len() > 30 && !name.contains([' ', ':', '(']);
    for (chapter, at_least) in [("workers.md", 10), ("guarantees.md", 15)] {
        let text = fs::read_to_string(manual.join(chapter)).unwrap();
        let names = text.split('`').skip(1).step_by(2).filter(is_test);
        let named = names.inspect(|name| {
            assert!(tests.contains(&format!("fn {name}()")), "there is no test {name}");
        });
        assert!(named.count() >= at_least, "{chapter}");
    }
}

#[test]
fn the_files_that_the_architecture_names_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("src/manual/architecture.md")).unwrap();
    let words = text.split(|c: char| !c.is_alphanumeric() && !"_/.".contains(c));
    let names: BTreeSet<_> =
        words.filter(|word| word.ends_with(".rs") || word.starts_with("worker/")).collect();
    for name in &names {
        let is_there = ["src", ""].iter().any(|at| root.join(at).join(name).try_exists().unwrap());
        assert!(is_there, "there is no {name}");
    }
    assert!(names.len() > 10, "{names:?}");
}

/// The code between fences, in a text whose lines of documentation begin with `prefixes`.
fn examples(text: &str, prefixes: &[&str]) -> String {
    let mut is_code = false;
    let mut code = String::new();
    let mut fences = 0;
    for line in text.lines() {
        let line = line.trim_start();
        let Some(line) = prefixes.iter().find_map(|prefix| line.strip_prefix(prefix)) else {
            continue;
        };
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
            fences += 1;
        } else if is_code {
            code = code + line + "\n";
        }
    }
    assert!(fences % 2 == 0, "a fence is open at the end");
    code
}

#[test]
fn every_public_function_is_used_in_an_example() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manual");
    let mut code = String::new();
    for chapter in fs::read_dir(manual).unwrap().map(|entry| entry.unwrap().path()) {
        code += &examples(&fs::read_to_string(chapter).unwrap(), &[""]);
    }
    let mut public = BTreeSet::new();
    for (file, text) in source_files() {
        if file.starts_with("bin") || file.starts_with("fuzzing") {
            continue;
        }
        code += &examples(&text, &["///", "//!"]);
        for line in text.lines().map(str::trim_start) {
            let line = line.strip_prefix("pub ").unwrap_or_default();
            let line = line.strip_prefix("const ").unwrap_or(line);
            let name = line.strip_prefix("fn ").unwrap_or_default().split(['(', '<']).next();
            public.extend(name.filter(|name| !name.is_empty()).map(str::to_owned));
        }
    }
    let used: BTreeSet<_> = code.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let unused: Vec<_> = public.iter().filter(|name| !used.contains(name.as_str())).collect();
    assert!(public.len() > 100 && unused.is_empty(), "no example has {unused:?}");
}

#[test]
fn every_public_type_trait_and_constant_has_an_example_of_its_own() {
    let mut count = 0;
    for (file, text) in source_files() {
        if file.starts_with("bin") || file.starts_with("fuzzing") {
            continue;
        }
        let mut has_example = false;
        for line in text.lines() {
            let item = line.strip_prefix("pub ").unwrap_or_default().split(' ').next().unwrap();
            if ["struct", "enum", "trait", "const", "static", "type", "union"].contains(&item) {
                // A function is asked for elsewhere.
                let is_function = line.contains("const fn");
                assert!(has_example || is_function, "{file:?} has no example above {line}");
                count += 1;
            }
            // What stands above an item belongs to it: its documentation and its attributes, which
            // may take several lines.
            let is_above = line.starts_with(['/', '#', ' ', ')']);
            has_example = is_above && (has_example || line.starts_with("/// ```"));
        }
    }
    assert!(count > 70, "{count} public items were found");
}

#[test]
fn the_dependency_tree_stays_small() {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--edges",
            "normal",
            "--no-default-features",
            "--prefix",
            "none",
            "--locked",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).unwrap();
    let packages: BTreeSet<_> =
        text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(packages.contains("millstream"), "{text}");
    assert!(packages.len() <= MAX_PACKAGES, "{} packages: {packages:?}", packages.len());
}
