//! Whatever a URL and its mirrors are, an attempt goes to the URL itself or under a mirror, and no
//! secret goes to another origin.
//!
//! Inputs are lines: the base, its mirror, the URL of the request.
#![no_main]

use std::{sync::LazyLock, time::Duration};

use http::header::{AUTHORIZATION, COOKIE, HOST};
use reqwest::Url;
use reqwest_middleware::ClientBuilder;
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{Constant, Mirrors, Resilient, ResilientConfig};
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
});
static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(reqwest::Client::new);

libfuzzer_sys::fuzz_target!(|text: &str| {
    let mut lines = text.lines();
    let mut line = || lines.next().unwrap_or_default();
    let (base, mirror, asked) = (line(), line(), line());
    let config = ResilientConfig::builder().mirrors(Mirrors::new(base).also(mirror));
    let Ok(config) = config.max_retries(1).backoff(Constant::new(Duration::ZERO)).build() else { return };
    let Ok(asked) = Url::parse(asked) else { return };
    if !matches!(asked.scheme(), "http" | "https") {
        return;
    }
    let script = Script::new([Reply::status(503), Reply::status(200)]);
    let client = ClientBuilder::new(CLIENT.clone()).with(Resilient::new(config));
    let client = client.with(script.clone()).build();
    let request = client.get(asked.clone()).header(AUTHORIZATION, "secret").header(COOKIE, "secret");
    let response = RUNTIME.block_on(request.header(HOST, "secret").send()).expect("a response");
    assert_eq!(response.status(), 200);
    let asked = without_userinfo(asked);
    let sent = script.sent();
    assert_eq!(sent.len(), 2);
    let base = |text: &str| Url::parse(text).ok().map(|it| it.as_str().trim_end_matches('/').to_owned());
    let (base, mirror) = (base(text.lines().next().unwrap_or_default()), base(mirror));
    assert_eq!(without_userinfo(sent[0].url.clone()), asked, "{base:?}");
    for it in &sent[1..] {
        if without_userinfo(it.url.clone()) == asked {
            continue;
        }
        let (base, mirror) = (base.as_deref().expect("a base"), mirror.as_deref().expect("a base"));
        let rest = it.url.as_str().strip_prefix(mirror).expect("under the mirror");
        assert!(asked.as_str().ends_with(rest), "{rest} of {asked} under {base}");
        if it.url.origin() != asked.origin() {
            assert!(it.url.username().is_empty() && it.url.password().is_none());
            for name in [AUTHORIZATION, COOKIE, HOST] {
                assert!(!it.headers.contains_key(&name), "{name}");
            }
        }
    }
});

/// reqwest makes a header of most userinfo.
fn without_userinfo(mut url: Url) -> Url {
    let _ = (url.set_username(""), url.set_password(None));
    url
}
