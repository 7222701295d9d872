//! Clients that are put together by mistake say so, once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{
    Event, Misuse, Resilient, ResilientClient, ResilientConfig, ResilientConfigBuilder,
    RetryOverride,
};

use crate::support::{URL, idle_client, steady};

const SECOND: Duration = Duration::from_secs(1);

/// The mistakes that observers heard of.
#[derive(Clone, Default)]
struct Reported(Arc<Mutex<Vec<Misuse>>>);

impl Reported {
    fn observe(&self, config: ResilientConfigBuilder) -> ResilientConfig {
        let reported = Arc::clone(&self.0);
        let config = config.on_event(move |event| {
            if let Event::Misuse(it) = event {
                assert_eq!((event.request().is_none(), event.to_string()), (true, it.to_string()));
                reported.lock().unwrap().push(*it);
            }
        });
        config.build().unwrap()
    }

    fn take(&self) -> Vec<Misuse> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn chain(with: impl IntoIterator<Item = Resilient>, script: &Script) -> ClientWithMiddleware {
    let chain = with.into_iter().fold(ClientBuilder::new(idle_client()), ClientBuilder::with);
    chain.with(script.clone()).build()
}

#[tokio::test(start_paused = true)]
async fn requests_without_any_known_limit_are_reported_once_by_a_client_and_its_clones() {
    let (reported, script) = (Reported::default(), Script::new([]));
    let resilient = Resilient::new(reported.observe(steady()));
    let handle = resilient.reload_handle();
    for client in [chain([resilient.clone()], &script), chain([resilient], &script)] {
        for _ in 0..2 {
            client.get(URL).send().await.unwrap();
        }
    }
    assert_eq!(reported.take(), [Misuse::NoAttemptTimeout]);
    let text = Misuse::NoAttemptTimeout.to_string();
    assert!(text.contains("attempt_timeout") && text.contains("without_attempt_timeout"));

    // A reload does not make it news.
    handle.reload(reported.observe(steady()));
    let other = chain([Resilient::new(reported.observe(steady()))], &script);
    assert_eq!(reported.take(), []);
    other.get(URL).send().await.unwrap();
    assert_eq!(reported.take(), [Misuse::NoAttemptTimeout], "another client");
}

#[tokio::test(start_paused = true)]
async fn a_limit_anywhere_or_the_word_that_none_is_wanted_is_enough() {
    let (reported, script) = (Reported::default(), Script::new([]));
    let limited = [
        steady().attempt_timeout(SECOND),
        steady().max_total_time(SECOND),
        steady().without_attempt_timeout(),
    ];
    for config in limited {
        let client = chain([Resilient::new(reported.observe(config))], &script);
        client.get(URL).send().await.unwrap();
    }
    let client = chain([Resilient::new(reported.observe(steady()))], &script);
    client.get(URL).timeout(SECOND).send().await.unwrap();
    let limit = RetryOverride::new().attempt_timeout(SECOND);
    client.get(URL).with_extension(limit).send().await.unwrap();

    let client = ResilientClient::builder().config(reported.observe(steady()));
    client.with(script.clone()).build().unwrap().get(URL).send().await.unwrap();
    assert_eq!(reported.take(), []);
}

#[tokio::test(start_paused = true)]
async fn a_client_of_reqwest_in_a_resilient_client_is_not_known_either() {
    let (reported, script) = (Reported::default(), Script::new([]));
    let client = ResilientClient::builder().config(reported.observe(steady()));
    let client = client.reqwest_client(idle_client()).with(script).build().unwrap();
    client.get(URL).send().await.unwrap();
    assert_eq!(reported.take(), [Misuse::NoAttemptTimeout]);
}

#[tokio::test(start_paused = true)]
async fn two_in_one_client_send_as_often_as_one_and_say_so_once() {
    let (reported, script) = (Reported::default(), Script::new([Reply::status(503)]));
    let config = || reported.observe(steady().max_retries(2).without_attempt_timeout());
    // Twice the same by mistake, and two that are configured apart.
    let one = Resilient::new(config());
    for pair in [[one.clone(), one], [config(), config()].map(Resilient::new)] {
        let (client, before) = (chain(pair, &script), script.sent().len());
        for _ in 0..2 {
            assert_eq!(client.get(URL).send().await.unwrap().status(), 503);
        }
        assert_eq!(script.sent().len() - before, 2 * 3);
        assert_eq!(reported.take(), [Misuse::Stacked]);
    }
    // A ResilientClient has one already.
    let client = ResilientClient::builder().config(config()).with(Resilient::new(config()));
    let (client, before) = (client.with(script.clone()).build().unwrap(), script.sent().len());
    client.get(URL).send().await.unwrap();
    assert_eq!((script.sent().len() - before, reported.take()), (3, vec![Misuse::Stacked]));
}

#[cfg(feature = "tracing")]
#[tokio::test(start_paused = true)]
async fn without_an_observer_it_is_a_line_in_the_log() {
    use tracing::instrument::WithSubscriber as _;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).without_time();
    let subscriber = subscriber.with_writer(move || writer.clone()).finish();
    let client = chain([Resilient::default()], &Script::new([]));
    async {
        for _ in 0..2 {
            client.get(URL).send().await.unwrap();
        }
    }
    .with_subscriber(subscriber)
    .await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let expected = format!(" WARN reqwest_resilient: {}\n", Misuse::NoAttemptTimeout);
    assert_eq!(text, expected);
}
