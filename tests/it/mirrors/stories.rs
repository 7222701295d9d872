//! Whatever three endpoints do: sends are bounded, a POST is not processed twice, and a GET succeeds
//! if one of them works.

use std::io;

use http::{HeaderValue, Method, header};
use proptest::prelude::*;
use reqwest_middleware::ClientBuilder;
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{Mirrors, Resilient, ResilientConfig, ResponseExt};

use crate::support::{idle_client, in_virtual_time};

/// What an endpoint does to a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Succeed,
    Miss,
    Limit,
    Fail,
    Refuse,
    Reset,
}

impl Does {
    fn reply(self) -> Reply {
        match self {
            Self::Succeed => Reply::status(200),
            Self::Miss => Reply::status(404),
            Self::Limit => {
                Reply::status(429).header(header::RETRY_AFTER, HeaderValue::from_static("7"))
            }
            Self::Fail => Reply::status(503),
            Self::Refuse => Reply::io_error(io::ErrorKind::ConnectionRefused),
            Self::Reset => Reply::io_error(io::ErrorKind::ConnectionReset),
        }
    }

    /// Returns whether the request may have been processed.
    fn may_process(self) -> bool {
        !matches!(self, Self::Limit | Self::Refuse)
    }
}

fn does() -> impl Strategy<Value = Does> {
    use Does::{Fail, Limit, Miss, Refuse, Reset, Succeed};
    prop::sample::select(vec![Succeed, Miss, Limit, Fail, Refuse, Reset])
}

/// The hosts that were asked, what each did, and the status of the end.
fn run(method: Method, acts: &[Vec<Does>], spread: bool) -> (Vec<(usize, Does)>, Option<u16>) {
    let host = |at: usize| format!("{at}.example");
    in_virtual_time(async {
        let script = acts.iter().enumerate().fold(Script::new([]), |script, (at, acts)| {
            script.for_host(host(at), acts.iter().map(|it| it.reply()))
        });
        let base = |at| format!("https://{}/x", host(at));
        let mut mirrors = Mirrors::new(&base(0)).also(&base(1)).also(&base(2));
        if spread {
            mirrors = mirrors.spread();
        }
        let config = ResilientConfig::builder().mirrors(mirrors).build().unwrap();
        let client = ClientBuilder::new(idle_client())
            .with(Resilient::new(config))
            .with(script.clone())
            .build();
        let result = client.request(method, format!("{}/y", base(0))).send().await;
        if let Ok(response) = &result {
            let endpoint = response.endpoint().unwrap();
            assert_eq!(endpoint.host_str(), response.url().host_str());
        }
        let mut counts = [0; 3];
        let sent = script.sent().into_iter().map(|it| {
            let at = (0..3).find(|at| it.url.host_str() == Some(&host(*at))).unwrap();
            assert_eq!(it.url.path(), "/x/y");
            let act = acts[at][counts[at].min(acts[at].len() - 1)];
            counts[at] += 1;
            (at, act)
        });
        let sent = sent.collect();
        (sent, result.ok().map(|it| it.status().as_u16()))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn mirrors_get_succeeds_if_one_endpoint_works(
        mut acts in prop::collection::vec(prop::collection::vec(does(), 1..4), 3),
        good in 0..3_usize,
        spread in any::<bool>(),
    ) {
        acts[good] = vec![Does::Succeed];
        let (sent, status) = run(Method::GET, &acts, spread);
        prop_assert_eq!(status, Some(200), "{:?}", sent);
        prop_assert!(sent.len() <= 3, "each is asked once: {sent:?}");
    }

    #[test]
    fn mirrors_sends_are_bounded(
        acts in prop::collection::vec(prop::collection::vec(does(), 1..4), 3),
        spread in any::<bool>(),
    ) {
        let (sent, status) = run(Method::GET, &acts, spread);
        prop_assert!((1..=4).contains(&sent.len()), "{sent:?}");
        let missing: Vec<_> = sent.iter().filter(|it| it.1 == Does::Miss).collect();
        if missing.len() == sent.len() {
            prop_assert_eq!(status, Some(404));
        }
        if status == Some(200) {
            prop_assert_eq!(sent.last().unwrap().1, Does::Succeed);
        }
        if status == Some(404) && sent.len() < 4 {
            // With a retry left it is the end only if no endpoint may have the resource.
            prop_assert_eq!(missing.len(), 3, "{:?}", sent);
        }
    }

    #[test]
    fn mirrors_post_is_processed_once_at_most(
        acts in prop::collection::vec(prop::collection::vec(does(), 1..4), 3),
        spread in any::<bool>(),
    ) {
        let (sent, _) = run(Method::POST, &acts, spread);
        let processed = sent.iter().filter(|it| it.1.may_process()).count();
        prop_assert!(processed <= 1, "{sent:?}");
    }
}
