//! Keeps the repository's texts true.

use std::{fs, path::Path};

fn text(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn texts_stay_short() {
    for (file, most) in [("README.md", 120), ("ARCHITECTURE.md", 90), ("CONTRIBUTING.md", 80)] {
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
fn every_file_says_what_it_is() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let text = fs::read_to_string(&path).unwrap();
                    assert!(text.starts_with("//! "), "{}: no `//!`", path.display());
                }
            }
        }
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
