//! No secret leaves the origin of the request's own URL, whatever the headers.

use http::header::{AUTHORIZATION, COOKIE, HOST, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{Mirrors, Resilient};

use crate::support::{idle_client, in_virtual_time, steady};

const SECRET: &str = "hunter2";
const OWN: &str = "https://user:hunter2@a.example/base/x";

/// One header of a request.
#[derive(Clone, Debug)]
enum Header {
    /// Such a one is secret by its name.
    Named(HeaderName),
    /// Named by the user.
    Own,
    /// Marked as sensitive.
    Marked(u8),
    Plain(u8),
}

fn header() -> impl Strategy<Value = Header> {
    let named = prop_oneof![Just(AUTHORIZATION), Just(COOKIE), Just(PROXY_AUTHORIZATION)];
    prop_oneof![
        named.prop_map(Header::Named),
        Just(Header::Own),
        (0..3_u8).prop_map(Header::Marked),
        (0..3_u8).prop_map(Header::Plain),
    ]
}

fn request(headers: &[Header]) -> HeaderMap {
    let mut all = HeaderMap::new();
    let name = |it: String| HeaderName::try_from(it).unwrap();
    for header in headers {
        let secret = HeaderValue::from_static(SECRET);
        match header {
            Header::Named(name) => all.append(name, secret),
            Header::Own => all.append("x-api-key", secret),
            Header::Marked(i) => {
                let mut marked = secret;
                marked.set_sensitive(true);
                all.append(name(format!("x-marked-{i}")), marked)
            }
            Header::Plain(i) => {
                all.append(name(format!("x-plain-{i}")), HeaderValue::from_static("plain"))
            }
        };
    }
    all
}

/// The headers as each host got them, in the order of the sends.
fn sent(mirrors: Mirrors, headers: HeaderMap) -> Vec<(String, HeaderMap)> {
    in_virtual_time(async {
        let script = Script::new([Reply::status(503)]);
        let config = steady().mirrors(mirrors.secret_header(HeaderName::from_static("x-api-key")));
        let client = reqwest_middleware::ClientBuilder::new(idle_client())
            .with(Resilient::new(config.max_retries(5).build().unwrap()))
            .with(script.clone())
            .build();
        client.get(OWN).headers(headers).send().await.unwrap();
        let host = |it: &reqwest::Url| it.host_str().unwrap().to_owned();
        script.sent().into_iter().map(|it| (host(&it.url), it.headers)).collect()
    })
}

fn three() -> Mirrors {
    Mirrors::new("https://a.example/base").also("https://b.example/").also("http://a.example/base")
}

fn sorted(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> =
        headers.iter().map(|it| (it.0.to_string(), it.1.as_bytes().to_vec())).collect();
    all.sort();
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Over two rounds: others see no secret, the origin sees all, each time.
    #[test]
    fn mirrors_send_no_secret_to_another_origin(headers in prop::collection::vec(header(), 0..8)) {
        let headers = request(&headers);
        let all = sent(three(), headers.clone());
        prop_assert_eq!(all.len(), 6);
        let origin = &all[0].1;
        for (turn, (host, got)) in all.iter().enumerate() {
            if turn % 3 == 0 {
                prop_assert_eq!(host.as_str(), "a.example");
                prop_assert_eq!(sorted(got), sorted(origin), "what the origin got at first");
                continue;
            }
            let leak = got.values().any(|it| it.as_bytes().windows(7).any(|it| it == SECRET.as_bytes()));
            prop_assert!(!leak, "{host}: {:?}", got.keys());
            let plain = |it: &HeaderMap| {
                it.keys().filter(|it| it.as_str().starts_with("x-plain")).count()
            };
            prop_assert_eq!(plain(got), plain(&headers), "what is no secret stays");
        }
    }
}

#[test]
fn trusted_endpoints_get_credentials_but_not_the_name_of_the_host() {
    let mut headers = request(&[Header::Named(AUTHORIZATION), Header::Own]);
    headers.insert(HOST, HeaderValue::from_static("a.example"));
    for (turn, (_, got)) in sent(three().trusted(), headers).iter().enumerate() {
        assert_eq!(got.get("x-api-key").unwrap(), SECRET);
        assert!(got.contains_key(AUTHORIZATION));
        assert_eq!(got.contains_key(HOST), turn % 3 == 0);
    }
}

/// The userinfo of the URL is a credential, too: another origin does not see it.
#[test]
fn userinfo_stays_at_home() {
    in_virtual_time(async {
        let script = Script::new([Reply::status(503)]);
        let client = reqwest_middleware::ClientBuilder::new(idle_client())
            .with(Resilient::new(steady().mirrors(three()).build().unwrap()))
            .with(script.clone())
            .build();
        client.get(OWN).send().await.unwrap();
        for it in script.sent().iter().skip(1).take(2) {
            assert!(!it.url.as_str().contains(SECRET), "{}", it.url);
            assert!(!it.headers.contains_key(AUTHORIZATION));
        }
    });
}
