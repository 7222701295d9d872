//! Holds the layout: twelve folders, imports that point down, no circles, purity.

use std::{collections::BTreeMap, fs, path::Path};

/// One row a folder, lowest first: a folder imports only from folders in its row, which stand
/// above.
const FOLDERS: &[(&str, &str)] = &[
    ("common", ""),
    ("breaker", "common"),
    ("retry", "common"),
    ("outcome", "breaker common retry"),
    ("host", "breaker common outcome retry"),
    ("observe", "breaker common host outcome retry"),
    ("config", "breaker common host observe outcome retry"),
    ("error", "breaker common host observe outcome retry"),
    ("testing", "common observe outcome"),
    ("execution", "breaker common config error host observe outcome retry"),
    ("client", "breaker common config error execution host observe outcome retry"),
];

/// The only places that await, sleep, read a clock or draw randomness.
const IMPURE: [&str; 9] = [
    "breaker/permit.rs", // a permit that is used by hand draws its own jitter
    "client/",
    "common/clock.rs",
    "config/overrides.rs", // the scope of an override runs the caller's future
    "execution/",
    "host/gate/mod.rs",      // requests wait at their gate
    "host/limit/limiter.rs", // a permit that comes back is granted as of now
    "host/states.rs",        // a host that is asked for by hand is kept as of now
    "testing/",
];

/// Words that no pure file contains.
const CLOCKS_AND_DICE: [&str; 8] = [
    ".await",
    "::now()",
    "fastrand::",
    "getrandom::",
    "rand::",
    "sleep(",
    "thread_rng",
    "tokio::spawn",
];

#[test]
fn the_top_of_src_is_one_screen() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut entries: Vec<_> = fs::read_dir(src)
        .unwrap()
        .map(|it| it.unwrap().file_name().to_string_lossy().trim_end_matches(".rs").to_owned())
        .collect();
    entries.sort_unstable();
    let mut rows: Vec<_> = FOLDERS.iter().map(|it| it.0).chain(["lib"]).collect();
    rows.sort_unstable();
    assert_eq!(entries, rows, "a new folder has a row in FOLDERS");
    assert!(entries.len() <= 14, "{} entries", entries.len());
}

#[test]
fn imports_point_down() {
    let rows: BTreeMap<_, _> = FOLDERS.iter().copied().collect();
    for (i, (folder, imports)) in FOLDERS.iter().enumerate() {
        for import in imports.split(' ').filter(|it| !it.is_empty()) {
            let above = FOLDERS[..i].iter().any(|(it, _)| *it == import);
            assert!(above, "`{folder}` names `{import}`, which does not stand above it");
        }
    }
    for Source { folder, file, code } in sources() {
        let Some(allowed) = rows.get(folder.as_str()) else { continue };
        assert!(!code.contains("super::super"), "{file}: leave the folder by `crate::…`");
        for target in imports(&code) {
            let target = target.split("::").next().unwrap();
            assert!(
                target == folder || allowed.split(' ').any(|it| it == target),
                "{file}: `{folder}` may not import `{target}`"
            );
        }
    }
}

#[test]
fn no_file_imports_itself_by_way_of_others() {
    let files: BTreeMap<String, Vec<String>> = sources()
        .into_iter()
        .filter(|it| it.folder != "lib")
        .map(|it| (module(&it.file), imports(&it.code)))
        .collect();
    let of = |import: &str| -> Option<&String> {
        // The longest module that the path begins with.
        let found = files.keys().filter(|it| {
            import == it.as_str()
                || import.strip_prefix(it.as_str()).is_some_and(|rest| rest.starts_with("::"))
        });
        found.max_by_key(|it| it.len())
    };
    // A folder's own `mod.rs` re-exports what lies in it: that is no import.
    let edges: BTreeMap<&String, Vec<&String>> = files
        .iter()
        .map(|(file, imports)| {
            let targets = imports.iter().filter_map(|it| of(it));
            (
                file,
                targets.filter(|it| !file.starts_with(&format!("{it}::")) && *it != file).collect(),
            )
        })
        .collect();
    fn visit<'a>(
        at: &'a String,
        edges: &BTreeMap<&'a String, Vec<&'a String>>,
        path: &mut Vec<&'a String>,
        done: &mut Vec<&'a String>,
    ) {
        if let Some(start) = path.iter().position(|it| *it == at) {
            panic!("a circle: {:?}", &path[start..]);
        }
        if done.contains(&at) {
            return;
        }
        path.push(at);
        edges[at].iter().for_each(|it| visit(it, edges, path, done));
        path.pop();
        done.push(at);
    }
    let mut done = vec![];
    for file in edges.keys() {
        visit(file, &edges, &mut vec![], &mut done);
    }
}

#[test]
fn only_the_places_that_do_something_know_clocks_and_dice() {
    for Source { file, code, .. } in sources() {
        if IMPURE.iter().any(|it| file.starts_with(it)) {
            continue;
        }
        for banned in CLOCKS_AND_DICE {
            assert!(!code.contains(banned), "{file}: a pure file uses `{banned}`");
        }
    }
}

struct Source {
    folder: String,
    file: String,
    /// Without comments and unit tests.
    code: String,
}

/// Every path after `crate::`, with the groups of `use` resolved: `a::b`.
fn imports(code: &str) -> Vec<String> {
    fn resolve(prefix: &str, rest: &str, out: &mut Vec<String>) -> usize {
        let bytes = rest.as_bytes();
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
            .unwrap_or(rest.len());
        let path = format!("{prefix}{}", &rest[..end]);
        if bytes.get(end) != Some(&b'{') {
            out.push(path.trim_end_matches("::").to_owned());
            return end;
        }
        let mut at = end + 1;
        while at < bytes.len() && bytes[at] != b'}' {
            match bytes[at] {
                b',' | b' ' | b'\n' => at += 1,
                _ => {
                    let taken = resolve(&path, &rest[at..], out);
                    at += taken.max(1);
                }
            }
        }
        at + 1
    }
    let mut out = vec![];
    for rest in code.split("crate::").skip(1) {
        resolve("", rest, &mut out);
    }
    out
}

/// `breaker/state.rs` as `breaker::state`, `breaker/mod.rs` as `breaker`.
fn module(file: &str) -> String {
    file.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::")
}

fn sources() -> Vec<Source> {
    fn walk(dir: &Path, out: &mut Vec<std::path::PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, out) } else { out.push(path) }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![];
    walk(&src, &mut files);
    files
        .into_iter()
        .filter(|it| !it.ends_with("loom_tests.rs") && !it.ends_with("tests.rs"))
        .map(|path| {
            let file = path.strip_prefix(&src).unwrap().display().to_string().replace('\\', "/");
            let folder = file.split(['/', '.']).next().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("mod tests {").next().unwrap();
            let lines = code.lines().filter(|it| !it.trim_start().starts_with("//"));
            let code = lines.collect::<Vec<_>>().join("\n");
            Source { folder, file, code }
        })
        .collect()
}
