//! Mirrors in files.
#![cfg(feature = "serde")]

use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{Resilient, ResilientConfig};

use crate::support::idle_client;

const FILE: &str = r#"
    max_retries = 3
    [mirrors."https://a.example/base/"]
    endpoints = ["https://b.example/x", "https://a.example/base"]
    sticky = "5m"
    trusted = true
    strict = true
    shared_idempotency = true
    secret_headers = ["x-api-key"]
    [mirrors."https://c.example"]
    endpoints = ["https://d.example", "https://e.example"]
    order = "spread"
"#;

#[tokio::test(start_paused = true)]
async fn mirrors_are_read_from_files() {
    let config: ResilientConfig = toml::from_str(FILE).unwrap();
    let shown = format!("{config:?}");
    for part in [
        r#"of: "https://a.example/base", endpoints: ["https://b.example/x", "https://a.example/base"]"#,
        "sticky: Some(300s), trusted: true, strict: true, shared_idempotency: true",
        r#"secret_headers: ["x-api-key"]"#,
        r#"endpoints: ["https://d.example", "https://e.example"], order: Spread"#,
    ] {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
    let script = Script::new([]).for_host("b.example", [Reply::status(503)]);
    let client = reqwest_middleware::ClientBuilder::new(idle_client())
        .with(Resilient::new(config))
        .with(script.clone())
        .build();
    client.get("https://a.example/base/x").send().await.unwrap();
    let urls: Vec<_> = script.sent().iter().map(|it| it.url.to_string()).collect();
    assert_eq!(urls, ["https://b.example/x/x", "https://a.example/base/x"]);
}

#[test]
fn mirrors_are_switched_off_by_files() {
    let text = "mirrors = false";
    let config: ResilientConfig = toml::from_str(text).unwrap();
    assert!(format!("{config:?}").contains("mirrors: None"));
}

#[test]
fn faults_of_mirrors_in_files_show_no_secrets() {
    let text = r#"
        [mirrors."https://user:hunter2@a.example/"]
        endpoints = []
        [mirrors."https://b.example/"]
        order = "shuffled"
        endpoints = ["https://user:hunter2@c.example/", "https://d.example/?token=hunter2", 7]
        [mirrors."https://e.example/"]
    "#;
    let error = toml::from_str::<ResilientConfig>(text).unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
    for part in ["order must be", "endpoints[0] must be", "endpoints[2]", "endpoints is needed"] {
        assert!(error.contains(part), "no {part} in {error}");
    }
}
