//! Keeps the repository's texts true.

use std::{fs, path::Path};

fn text(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn texts_stay_short() {
    for (file, most) in [("README.md", 120), ("ARCHITECTURE.md", 160), ("CONTRIBUTING.md", 80)] {
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

#[test]
fn every_file_says_what_it_is_and_has_its_line_in_the_codemap() {
    let architecture = text("ARCHITECTURE.md");
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let src = folders[0].clone();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let file = path.strip_prefix(&src).unwrap().display().to_string().replace('\\', "/");
            assert!(fs::read_to_string(&path).unwrap().starts_with("//! "), "{file}: no `//!`");
            assert!(
                architecture.lines().any(|it| it.starts_with(&format!("{file} "))),
                "{file} has no line in ARCHITECTURE.md"
            );
        }
    }
}
