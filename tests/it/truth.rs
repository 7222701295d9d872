//! Holds README and guides to what they say. Their Rust blocks are the files of `tests/snippets`, word
//! for word; each runs here, and prints what its comments promise.

mod https;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, error::Error, fs};

use http::Method;
use reqwest_resilient::{Resilient, ResilientClient};

use self::https::HttpsProxy;
use crate::support::folder::Folder;
use crate::support::reply::{End, Fault, Reply};
use crate::support::server::Server;

/// The pages whose blocks are snippets.
const PAGES: [&str; 20] = [
    "README.md",
    "docs/blocking.md",
    "docs/breaker.md",
    "docs/budget.md",
    "docs/choosing_settings.md",
    "docs/coming_from_aresilient.md",
    "docs/coming_from_reqwest_retry.md",
    "docs/downloads.md",
    "docs/files.md",
    "docs/fleet.md",
    "docs/gate.md",
    "docs/hedging.md",
    "docs/limits.md",
    "docs/mirrors.md",
    "docs/presets.md",
    "docs/retries.md",
    "docs/telemetry.md",
    "docs/testing.md",
    "docs/unknowns.md",
    "docs/waits.md",
];

/// The headings of a page about a feature, in this order.
const SHAPE: [&str; 5] =
    ["What it is for", "Defaults", "How it works", "Settings", "Anti-patterns"];

/// The pages about a feature, besides downloads and testing, which tell a story.
const FEATURES: [&str; 11] = [
    "blocking",
    "breaker",
    "budget",
    "files",
    "gate",
    "limits",
    "presets",
    "retries",
    "telemetry",
    "unknowns",
    "waits",
];

/// Pages about a feature with a picture and many rules.
const LONG_FEATURES: [&str; 3] = ["fleet", "hedging", "mirrors"];

/// The variable with the snippet that this process runs.
const SNIPPET: &str = "RESILIENT_TEST_SNIPPET";
/// The test that runs it.
const NAME: &str = "truth::a_snippet_runs_in_a_process_of_its_own";
/// The comment that promises a line of output.
const PROMISE: &str = "// prints: ";

/// A snippet as a module, with what a test calls of it.
macro_rules! snippet {
    ($file:literal as $name:ident $({ $($call:tt)* })?) => {
        mod $name {
            include!(concat!("../snippets/", $file));
            $($($call)*)?
        }
    };
}

snippet!("first.rs" as first { pub(super) fn run() -> Result<(), Box<dyn std::error::Error>> { main() } });
snippet!("override.rs" as overriding {
    #[tokio::main]
    pub(super) async fn run() -> Result<(), Box<dyn std::error::Error>> {
        Ok(search(&ResilientClient::new(reqwest_resilient::ResilientConfig::default())?).await?)
    }
});
#[cfg(all(feature = "metrics", feature = "tracing"))]
snippet!("observe.rs" as observe {
    #[test]
    fn readme_the_observers_are_valid() { drop(config().unwrap()); }
});
#[cfg(feature = "blocking")]
snippet!("blocking.rs" as blocking {
    pub(super) fn run() -> Result<(), Box<dyn std::error::Error>> { main() }
});
#[cfg(feature = "blocking")]
snippet!("from_aresilient.rs" as from_aresilient {
    pub(super) fn run() -> Result<(), Box<dyn Error>> {
        println!("{}", place("{}", "http://example.com/orders")?);
        Ok(())
    }
});
snippet!("from_reqwest_retry.rs" as from_reqwest_retry {
    pub(super) fn run() -> ClientWithMiddleware { client().unwrap() }
});
snippet!("from_reqwest_retry_before.rs" as from_reqwest_retry_before {
    pub(super) fn run() -> ClientWithMiddleware { client().unwrap() }
});
snippet!("from_sdk.rs" as from_sdk {
    pub(super) fn run() -> ClientWithMiddleware { client(Some(2)).unwrap() }
});
snippet!("from_sdk_before.rs" as from_sdk_before {
    pub(super) fn run() -> ClientWithMiddleware { client(Some(2)).unwrap() }
});
snippet!("from_upload.rs" as from_upload {
    pub(super) async fn run(url: &str, path: &Path) -> Response {
        let client = ResilientClient::builder().build().unwrap();
        upload(&client, url, path).await.unwrap()
    }
});
snippet!("from_upload_before.rs" as from_upload_before {
    pub(super) async fn run(url: &str, path: &Path) -> Response {
        upload(&Client::new(), url, path).await.unwrap()
    }
});
snippet!("reload.rs" as reload {
    pub(super) fn run(handle: &ResilientHandle) { retry_once(handle).unwrap(); }
});
#[cfg(feature = "download")]
snippet!("download.rs" as download {
    #[tokio::main]
    pub(super) async fn run() -> Result<(), Box<dyn std::error::Error>> { fetch().await }
});
snippet!("read_body.rs" as read_body {
    pub(super) fn run() -> ResilientConfig { s3().unwrap() }
});
snippet!("presets.rs" as presets {
    #[cfg(feature = "serde")]
    pub(super) fn run() -> [(&'static str, ResilientConfig); 3] {
        [("service", service().unwrap()), ("crawler", crawler().unwrap()), ("sdk", sdk().unwrap())]
    }
    #[cfg(not(feature = "serde"))]
    #[test]
    fn presets_are_valid() {
        for preset in [service(), crawler(), sdk()] { preset.unwrap(); }
    }
});
snippet!("breaker.rs" as breaker {
    #[test]
    fn the_guide_stops_a_host_for_maintenance() {
        let client = ResilientClient::new(gentle().unwrap()).unwrap();
        stop_for_maintenance(&client);
        let state = client.hosts().breaker("https://api.example.com").state();
        assert_eq!(state, reqwest_resilient::BreakerState::ForcedOpen);
    }
});
snippet!("budget.rs" as budget {
    pub(super) fn run() -> Result<ResilientConfig, ConfigError> { import() }
});
snippet!("fleet.rs" as fleet {
    #[test]
    fn a_client_of_the_guides_fleet_is_built() {
        assert!(one_of_many(&InProcessFleet::new()).is_ok());
    }
});
snippet!("gate.rs" as gate {
    pub(super) fn run() -> Result<ResilientConfig, ConfigError> { per_route() }
});
snippet!("retries.rs" as retries {
    pub(super) fn run() -> Result<ResilientConfig, ConfigError> { shop() }
});
snippet!("telemetry.rs" as telemetry {
    pub(super) fn run() -> Result<ResilientConfig, ConfigError> { quiet() }
});
snippet!("waits.rs" as waits {
    pub(super) fn run() -> Result<ResilientConfig, ConfigError> { poller() }
});
#[cfg(feature = "blocking")]
snippet!("blocking_read.rs" as blocking_read {
    #[test]
    fn the_first_line_of_the_guide_is_read() {
        use crate::support::{reply::Reply, server::Server};

        let server = Server::h1([Reply::status(200).body("one\ntwo").into()]);
        let client = ResilientClient::builder().build().unwrap();
        assert_eq!(first_line(&client, &server.url("/")).unwrap(), "one\n");
    }
});
#[cfg(feature = "serde")]
snippet!("files.rs" as files {
    #[test]
    fn a_file_of_the_guide_is_reloaded_and_an_invalid_one_changes_nothing() {
        let code = ResilientConfig::default();
        let handle = reqwest_resilient::Resilient::new(code.clone()).reload_handle();
        reload(&handle, toml::from_str("max_retries = 9").unwrap(), &code).unwrap();
        reload(&handle, toml::from_str("max_retries = 'many'").unwrap(), &code).unwrap_err();
        assert!(format!("{:?}", handle.config()).contains("max_retries: 9"));
    }
});
snippet!("hedging.rs" as hedging {
    pub(super) fn run() -> Result<ResilientConfig, ConfigError> { config() }
});
snippet!("limits.rs" as limits {
    pub(super) fn run() -> Result<ResilientConfig, ConfigError> { config() }
});
snippet!("mirrors.rs" as mirrors {
    pub(super) fn run() -> Result<ResilientConfig, ConfigError> { config() }
});
// Those are tests by themselves.
snippet!("testing_settings.rs" as testing_settings);
snippet!("testing_failures.rs" as testing_failures);
snippet!("testing_wiremock.rs" as testing_wiremock);
#[cfg(feature = "blocking")]
snippet!("testing_blocking.rs" as testing_blocking);

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns both sides of the diffs of Rust that a page shows.
fn diffs(page: &str) -> Vec<String> {
    let text = text(page);
    let diffs = text.split("\n```").skip(1).step_by(2).filter_map(|it| it.strip_prefix("diff\n"));
    // The others are of Cargo.toml.
    let diffs = diffs.filter(|it| it.contains("fn "));
    let side = |diff: &str, other: char| {
        let lines = diff.lines().filter(|it| !it.starts_with(other));
        lines.fold(String::new(), |all, it| all + it.get(1..).unwrap_or_default() + "\n")
    };
    diffs.flat_map(|it| [side(it, '+'), side(it, '-')]).collect()
}

/// Returns the Rust blocks of a page that have to compile.
fn blocks(page: &str) -> Vec<String> {
    let text = text(page);
    let fenced = text.split("\n```").skip(1).step_by(2);
    let blocks = fenced.filter_map(|it| it.split_once('\n'));
    let blocks = blocks.filter(|(info, _)| info.starts_with("rust") && !info.ends_with("fail"));
    blocks.map(|(_, code)| format!("{code}\n")).collect()
}

#[test]
fn pages_show_the_snippets_that_run_here_and_hide_nothing() {
    let mut snippets: BTreeSet<_> = fs::read_dir(root("tests/snippets"))
        .unwrap()
        .map(|it| fs::read_to_string(it.unwrap().path()).unwrap())
        .collect();
    for page in PAGES {
        for block in blocks(page) {
            // rustdoc would hide such a line, a web page of the repository shows it.
            let hidden = block.lines().find(|it| *it == "#" || it.starts_with("# "));
            assert_eq!(hidden, None, "{page}: a hidden line");
            assert!(snippets.remove(&block), "{page}: no file of tests/snippets has\n{block}");
        }
        for side in diffs(page) {
            assert!(snippets.remove(&side), "{page}: no file of tests/snippets has\n{side}");
        }
    }
    assert!(snippets.is_empty(), "no page shows\n{snippets:?}");
}

#[test]
fn pages_about_features_have_one_shape() {
    let features = FEATURES.map(|it| (it, 90)).into_iter();
    for (name, longest) in features.chain(LONG_FEATURES.map(|it| (it, 135))) {
        let text = text(&format!("docs/{name}.md"));
        let headings: Vec<_> = text.lines().filter_map(|it| it.strip_prefix("# ")).collect();
        assert_eq!(headings, SHAPE, "docs/{name}.md");
        assert!(text.lines().count() <= longest, "docs/{name}.md is too long");
    }
}

#[test]
fn the_settings_of_the_guides_are_valid() {
    for config in [
        budget::run,
        gate::run,
        hedging::run,
        limits::run,
        mirrors::run,
        retries::run,
        telemetry::run,
        waits::run,
    ] {
        drop(config().unwrap());
    }
}

/// Runs a snippet in a process of its own, whose requests go to `server`: as their proxy, or for https
/// by one that has a certificate for `example.com`. Returns what it prints, after a look at what it
/// promises.
fn printed(snippet: &str, server: &Server) -> String {
    let mut command = Command::new(env::current_exe().unwrap());
    let others = ["no_proxy", "NO_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"];
    for variable in others.into_iter().chain(["REQUEST_METHOD", "SSL_CERT_DIR"]) {
        command.env_remove(variable);
    }
    let https = HttpsProxy::of("example.com", server.addr());
    command.env("https_proxy", https.url()).env("SSL_CERT_FILE", https.certificate());
    let folder = Folder::new();
    command.current_dir(&folder.0);
    let command = command.args(["--exact", NAME, "--nocapture"]).env(SNIPPET, snippet);
    let output = command.env("http_proxy", server.url("")).output().unwrap();
    let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{printed}");
    let code = text(&format!("tests/snippets/{snippet}.rs"));
    for promise in code.lines().filter_map(|it| it.trim().strip_prefix(PROMISE)) {
        assert!(printed.lines().any(|it| it == promise), "no line `{promise}` in\n{printed}");
    }
    printed
}

#[test]
fn a_snippet_runs_in_a_process_of_its_own() -> Result<(), Box<dyn Error>> {
    match env::var(SNIPPET).as_deref() {
        Ok("first") => first::run(),
        Ok("override") => overriding::run(),
        #[cfg(feature = "download")]
        Ok("download") => download::run(),
        #[cfg(feature = "blocking")]
        Ok("blocking") => blocking::run(),
        #[cfg(feature = "blocking")]
        Ok("from_aresilient") => from_aresilient::run(),
        Ok(other) => Err(format!("no snippet {other}").into()),
        // A call by the test runner itself.
        Err(_) => Ok(()),
    }
}

/// Returns method and URL of every request that arrived.
fn seen(server: &Server) -> Vec<(Method, String)> {
    server.seen().into_iter().map(|it| (it.method, it.path)).collect()
}

#[cfg(feature = "default-tls")]
#[test]
fn readme_the_first_example_prints_what_it_says() {
    let server = Server::h1([
        Reply::status(200).body("the page").into(),
        Reply::status(503).header("connection", "close").close().into(),
    ]);
    let printed = printed("first", &server);
    assert!(printed.contains("the page"), "{printed}");
    assert_eq!(seen(&server), vec![(Method::GET, "/".to_owned()); 7]);
    let retries = printed.lines().filter(|it| it.contains(": status 503, again in ")).count();
    assert_eq!(retries, 5, "{printed}");
}

#[cfg(feature = "default-tls")]
#[test]
fn readme_an_override_holds_for_one_request_or_one_future() {
    let busy = || Reply::status(503).into();
    let server = Server::h1([busy(), busy(), Reply::status(200).into(), busy()]);
    printed("override", &server);
    let post = || (Method::POST, "/search".to_owned());
    let get = (Method::GET, "/".to_owned());
    assert_eq!(seen(&server), [post(), post(), post(), get]);
}

#[cfg(all(feature = "download", feature = "default-tls"))]
#[test]
fn the_first_download_of_the_guide_goes_on_after_a_break() {
    let whole = Reply::status(200).header("etag", "\"a\"").body("a whole file");
    let rest = Reply::status(206).header("etag", "\"a\"").header("content-range", "bytes 8-11/12");
    let server = Server::h1([whole.cut_body(8, End::Close).into(), rest.body("file").into()]);
    let printed = printed("download", &server);
    assert!(printed.contains("12 bytes, resumed 1 times"), "{printed}");
}

#[tokio::test]
async fn an_error_in_a_body_is_retried_as_the_guide_says() {
    let server = Server::h1([
        Reply::status(200).body("<Error>busy</Error>").into(),
        Reply::status(200).body("done").into(),
    ]);
    let client = ResilientClient::new(read_body::run()).unwrap();
    let body = client.get(server.url("/")).send().await.unwrap().text().await.unwrap();
    assert_eq!((body.as_str(), server.requests()), ("done", 2));
}

#[cfg(all(feature = "blocking", feature = "default-tls"))]
#[test]
fn readme_blocking_code_prints_the_page() {
    let server =
        Server::h1([Reply::status(503).into(), Reply::status(200).body("the page").into()]);
    assert!(printed("blocking", &server).contains("the page"));
    assert_eq!(server.requests(), 2);
}

#[cfg(feature = "blocking")]
#[test]
fn an_order_of_the_guide_is_placed_after_a_refusal_and_never_twice() {
    let refused = Reply::status(429).header("retry-after", "0");
    let server = Server::h1([refused.into(), Reply::status(200).body("placed").into()]);
    let printed = printed("from_aresilient", &server);
    assert!(printed.contains("attempt 2") && printed.contains("placed"), "{printed}");
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn both_clients_of_the_guide_for_reqwest_retry_retry() {
    let server = || {
        Server::h1([
            Reply::status(503).into(),
            Reply::status(409).into(),
            Reply::status(200).into(),
            Reply::status(404).into(),
        ])
    };
    for client in [from_reqwest_retry_before::run(), from_reqwest_retry::run()] {
        let server = server();
        let response = client.get(server.url("/")).send().await.unwrap();
        assert_eq!((response.status().as_u16(), server.requests()), (200, 3));
    }
}

#[tokio::test]
async fn both_clients_of_the_sdk_retry_statuses_alone() {
    for client in [from_sdk_before::run(), from_sdk::run()] {
        let busy = Server::h1([Reply::status(503).into(), Reply::status(200).into()]);
        let response = client.get(busy.url("/")).send().await.unwrap();
        assert_eq!((response.status().as_u16(), busy.requests()), (200, 2));
        let gone = Server::h1([Fault::Unanswered(End::Reset).into(), Reply::status(200).into()]);
        client.get(gone.url("/")).send().await.unwrap_err();
        assert_eq!(gone.requests(), 1);
    }
}

#[tokio::test]
async fn both_uploads_of_the_guide_send_the_file_again() {
    let server = || Server::h1([Reply::status(503).into(), Reply::status(201).into()]);
    let file = root("Cargo.toml");
    let before = server();
    let response = from_upload_before::run(&before.url("/"), &file).await;
    assert_eq!((response.status().as_u16(), before.requests()), (201, 2));
    let after = server();
    let response = from_upload::run(&after.url("/"), &file).await;
    assert_eq!((response.status().as_u16(), after.requests()), (201, 2));
    let bytes = fs::read(&file).unwrap();
    assert!(after.seen().iter().all(|it| it.body == bytes), "whole each time");
}

#[test]
fn a_reload_of_the_guide_leaves_the_code() {
    let config = reqwest_resilient::ResilientConfig::builder().retry_if(|_| true).build().unwrap();
    let resilient = Resilient::new(config);
    reload::run(&resilient.reload_handle());
    assert!(format!("{:?}", resilient.reload_handle().config()).contains("max_retries: 1"));
}

#[cfg(feature = "serde")]
#[test]
fn the_files_of_the_repository_are_the_sets_of_the_guide() {
    use reqwest_resilient::ResilientConfig;

    for (name, config) in presets::run() {
        let text = text(&format!("examples/config/{name}.toml"));
        // Hosts with settings of their own, which come last, are in the file alone.
        let text = text.split("\n[hosts.").next().unwrap();
        let file: ResilientConfig = toml::from_str(text).unwrap();
        assert_eq!(format!("{file:#?}"), format!("{config:#?}"), "{name}.toml");
    }
}
