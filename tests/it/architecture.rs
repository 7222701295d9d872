//! Keeps the module arrows true: who may import whom, and who must stay pure.

use std::{collections::BTreeMap, fs, path::Path};

/// One line a module, lowest first: a module may import only what stands above it *and* is named.
const ARROWS: &[(&str, &str)] = &[
    ("time", ""),
    ("sources", ""),
    ("redact", ""),
    ("fault", ""),
    ("outcome", ""),
    ("decision", ""),
    ("backoff", ""),
    ("hint", ""),
    ("headers", ""),
    ("idempotency", ""),
    ("registry", ""),
    ("hosts", ""),
    ("rules", "fault hosts"),
    ("breaker", "fault registry rules time"),
    ("budget", "fault registry rules time"),
    ("gate", "registry time"),
    ("failure", "outcome"),
    ("history", "decision outcome"),
    ("error", "breaker decision failure fault gate history outcome redact"),
    ("event", "breaker decision error outcome redact"),
    ("classify", "breaker hint idempotency outcome"),
    ("kept", "breaker budget gate registry time"),
    (
        "policy",
        "backoff breaker budget classify event fault gate headers hint hosts idempotency kept \
         outcome registry sources time",
    ),
    ("retry", "classify decision hint outcome policy time"),
    ("guard", "breaker budget gate kept policy registry time"),
    ("overrides", "fault policy"),
    ("body", "error time"),
    ("followed", ""),
    ("place", ""),
    ("send", "body error failure followed outcome policy time"),
    (
        "call",
        "body breaker classify decision error event gate guard hint history idempotency outcome \
         policy redact retry send time",
    ),
    ("config", "fault overrides policy"),
    ("bench", "breaker budget classify config decision gate hint outcome place retry rules time"),
    (
        "settings",
        "backoff breaker budget classify config event gate headers hint idempotency outcome \
         overrides policy registry",
    ),
    ("telemetry", "breaker decision event outcome"),
    (
        "file",
        "backoff breaker budget classify config fault headers hint hosts idempotency overrides \
         policy",
    ),
    ("reload", "breaker budget config fault gate hosts overrides policy"),
    (
        "middleware",
        "body call config decision error guard history outcome overrides place policy reload send \
         time",
    ),
    ("adapter", "body error failure middleware send"),
    ("request", "decision error failure fault history"),
    ("client", "config fault middleware reload request"),
    ("blocking", "client config error fault outcome redact reload request"),
    ("guide", ""),
    ("testing", "redact time"),
];

/// `now` comes in as an argument, a decision comes out: no clock, no timer, no task.
const PURE: &str = "redact outcome decision backoff breaker/config breaker/open_time breaker/percent breaker/probing breaker/rules breaker/state breaker/window budget budget/bucket gate headers hint hint/date hint/headers hint/number \
                    hint/quota failure history classify kept policy policy/patch retry fault error event hosts rules file file/apply file/keys file/schema file/shape \
                    file/tree";

#[test]
fn arrows_point_down() {
    let arrows: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    for (i, (module, imports)) in ARROWS.iter().enumerate() {
        for import in imports.split(' ').filter(|it| !it.is_empty()) {
            let below = ARROWS[..i].iter().any(|(it, _)| *it == import);
            assert!(below, "`{module}` names `{import}`, which does not stand above it");
        }
    }
    for (module, file, code) in sources() {
        if module == "lib" {
            continue;
        }
        let allowed = arrows
            .get(module.as_str())
            .unwrap_or_else(|| panic!("{file}: `{module}` has no line in ARROWS"));
        assert!(
            !code.contains("super::super"),
            "{file}: leave the folder by `crate::…`, not `super::super`"
        );
        for target in code.split("crate::").skip(1) {
            let target: String =
                target.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            assert!(!target.is_empty(), "{file}: one module a `use crate::…` line, please");
            assert!(
                target == module || allowed.split(' ').any(|it| it == target),
                "{file}: `{module}` may not import `{target}`"
            );
        }
    }
}

#[test]
fn pure_modules_stay_pure() {
    for (_, file, code) in sources() {
        if PURE.split(' ').any(|it| it == file.trim_end_matches(".rs").trim_end_matches("/mod")) {
            for banned in [".await", "tokio::", "::now()", "thread_rng", "fastrand::Rng::new"] {
                assert!(!code.contains(banned), "{file}: pure module uses `{banned}`");
            }
        }
    }
}

/// Every file of `src/`: its top-level module, its path, its code without comments and unit tests.
fn sources() -> Vec<(String, String, String)> {
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
        .map(|path| {
            let file = path.strip_prefix(&src).unwrap().display().to_string().replace('\\', "/");
            let module = file.split(['/', '.']).next().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            let code = code
                .lines()
                .filter(|it| !it.trim_start().starts_with("//"))
                .collect::<Vec<_>>()
                .join("\n");
            (module, file, code)
        })
        .collect()
}
