//! Keeps the repository's texts true.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn text(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn texts_stay_short() {
    for (file, most) in [("README.md", 150), ("ARCHITECTURE.md", 90), ("CONTRIBUTING.md", 80)] {
        let lines = text(file).lines().count();
        assert!(lines <= most, "{file} has {lines} lines");
    }
}

#[test]
fn the_commands_of_the_readme_are_those_of_ci() {
    let (readme, ci) = (text("README.md"), text(".ci/run"));
    let block = readme.split("```sh\n").nth(1).and_then(|it| it.split("```").next()).unwrap();
    let commands: Vec<_> =
        block.lines().map(|it| it.split('#').next().unwrap_or_default().trim_end()).collect();
    assert_eq!(commands, ["cargo run --example quickstart", "cargo test --all-features"]);
    for command in commands {
        let step = format!("step '{command}'");
        assert!(ci.lines().any(|it| it == step), ".ci/run has no line `{step}`");
    }
}

#[test]
fn every_script_is_explained() {
    let contributing = text("CONTRIBUTING.md");
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")).unwrap() {
        let script = format!("`scripts/{}", entry.unwrap().file_name().to_string_lossy());
        assert!(contributing.contains(&script), "CONTRIBUTING.md does not know {script}`");
    }
}

#[test]
fn the_changelog_knows_this_version() {
    let heading = format!("## [{}]", env!("CARGO_PKG_VERSION"));
    let changelog = text("CHANGELOG.md");
    assert!(changelog.lines().any(|it| it.starts_with(&heading)), "no `{heading}` in CHANGELOG.md");
}

/// Returns all files below a path, or the path itself if it is one.
fn files(path: PathBuf) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path];
    }
    fs::read_dir(path).unwrap().flat_map(|it| files(it.unwrap().path())).collect()
}

#[test]
fn every_file_says_what_it_is() {
    for file in files(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//! "), "{}: no `//!`", file.display());
    }
}

#[test]
fn every_folder_has_its_row_in_the_architecture() {
    let architecture = text("ARCHITECTURE.md");
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        let row = if path.is_dir() { format!("| `{name}/` |") } else { format!("| `{name}` |") };
        assert!(name == "lib.rs" || architecture.contains(&row), "no `{row}` in ARCHITECTURE.md");
    }
}

/// First words of a doc comment that make it a relative clause instead of a sentence.
const CLAUSES: [&str; 5] = ["What", "Whether", "By which", "Who", "How"];

/// Pronouns for unnamed persons: the subject of a comment is a thing.
const PERSONS: [&str; 8] =
    ["nobody", "somebody", "whoever", "anybody", "everybody", "someone", "anyone", "everyone"];

/// The text of a line's comment, or nothing.
fn comment(line: &str) -> &str {
    let line = line.trim_start();
    match line.split_once("//") {
        // Not the slashes of a URL.
        Some((code, comment)) if !code.ends_with(':') => comment.trim_start_matches(['/', '!']),
        _ => "",
    }
}

/// Returns the number of doc comments in a file, those that begin with a clause, and the comments
/// with persons.
fn read_comments(file: &Path) -> (usize, Vec<String>, Vec<String>) {
    let (mut docs, mut clauses, mut persons) = (0, vec![], vec![]);
    let text = fs::read_to_string(file).unwrap();
    let mut in_doc = false;
    for (number, line) in (1..).zip(text.lines()) {
        let place = format!("{}:{number}: {}", file.display(), line.trim());
        let said = comment(line).trim_start();
        let mut words = said.split(|it: char| !it.is_alphanumeric());
        if words.any(|it| PERSONS.contains(&it.to_lowercase().as_str())) {
            persons.push(place.clone());
        }
        let is_doc = ["///", "//!"].iter().any(|it| line.trim_start().starts_with(it));
        if is_doc && !in_doc {
            docs += 1;
            let is_clause = |it: &&str| {
                said.strip_prefix(it).is_some_and(|it| !it.starts_with(char::is_alphanumeric))
            };
            clauses.extend(CLAUSES.iter().any(is_clause).then_some(place));
        }
        in_doc = is_doc;
    }
    (docs, clauses, persons)
}

#[test]
fn comments_are_plain_english() {
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap() {
        let top = entry.unwrap().path();
        let (mut docs, mut clauses, mut persons) = (0, vec![], vec![]);
        for file in files(top) {
            let (number, more_clauses, more_persons) = read_comments(&file);
            docs += number;
            clauses.extend(more_clauses);
            persons.extend(more_persons);
        }
        assert!(persons.is_empty(), "persons in comments:\n{}", persons.join("\n"));
        let is_plain = clauses.len() * 50 <= docs;
        assert!(is_plain, "clauses instead of sentences, in {docs} docs:\n{}", clauses.join("\n"));
    }
}

#[test]
fn every_public_type_has_an_example() {
    let mut without = vec![];
    for file in files(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        // Hidden, for benches.
        if file.ends_with("execution/bench.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let lines: Vec<_> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let kinds = ["pub struct ", "pub enum ", "pub trait "];
            if !kinds.iter().any(|it| line.starts_with(it)) {
                continue;
            }
            let above = lines[..number].iter().rev();
            let mut above = above.take_while(|it| it.starts_with("///") || it.starts_with("#["));
            if !above.any(|it| it.starts_with("/// ```") || it.starts_with("#[doc(hidden)]")) {
                without.push(format!("{}: {line}", file.display()));
            }
        }
    }
    assert!(without.is_empty(), "no example for\n{}", without.join("\n"));
}
