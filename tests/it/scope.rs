//! Overrides of a task: scopes, and the local extensions that carry them.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use reqwest_middleware::ClientWithMiddleware;
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{Constant, RetryOverride};
use task_local_extensions::{Extensions, get_local_item, set_local_item, with_extensions};
use tokio::time::Instant;

use crate::support::{URL, scripted, steady};

/// A client that makes four attempts unless an override says otherwise.
fn client() -> (ClientWithMiddleware, Script) {
    scripted(steady().build().unwrap(), [Reply::status(503)])
}

fn retries(number: u32) -> RetryOverride {
    RetryOverride::new().max_retries(number)
}

/// Returns the number of attempts of one request.
async fn attempts((client, script): &(ClientWithMiddleware, Script)) -> usize {
    let before = script.sent().len();
    client.get(URL).send().await.unwrap();
    script.sent().len() - before
}

#[tokio::test(start_paused = true)]
async fn an_override_among_the_local_extensions_applies() {
    let client = client();
    let mut extensions = Extensions::new();
    extensions.insert(retries(1).backoff(Constant::new(Duration::from_secs(9))));
    let start = Instant::now();
    let (extensions, sent) = with_extensions(extensions, attempts(&client)).await;
    assert_eq!((sent, start.elapsed().as_secs()), (2, 9));

    // A scope wins over it, setting by setting, and an inner one over that.
    let start = Instant::now();
    let scoped = retries(4).scope(retries(2).scope(attempts(&client)));
    let (extensions, sent) = with_extensions(extensions, scoped).await;
    assert_eq!((sent, start.elapsed().as_secs()), (3, 18));

    // So does the override of a request.
    let own = client.0.get(URL).with_extension(retries(0));
    let before = client.1.sent().len();
    with_extensions(extensions, own.send()).await.1.unwrap();
    assert_eq!(client.1.sent().len() - before, 1);
    assert_eq!(attempts(&client).await, 4, "and outside it is gone");
}

#[tokio::test(start_paused = true)]
async fn other_items_of_the_task_stay_visible_within_a_scope() {
    let client = client();
    let mut extensions = Extensions::new();
    extensions.insert(7_u32);
    let scoped = retries(0).scope(async {
        tokio::task::yield_now().await;
        let seen: Option<u32> = get_local_item().await;
        set_local_item("set within").await;
        tokio::task::yield_now().await;
        (seen, attempts(&client).await)
    });
    let (extensions, seen) = with_extensions(extensions, scoped).await;
    assert_eq!(seen, (Some(7), 1));
    assert_eq!(extensions.get(), Some(&"set within"), "and what is set within stays");
}

#[tokio::test(start_paused = true)]
async fn a_panic_inside_a_scope_leaks_nothing_into_the_next_task() {
    let client = client();
    let panics = || async {
        tokio::task::yield_now().await;
        panic!("inside the scope")
    };
    let scope = retries(0).scope(panics());
    assert!(AssertUnwindSafe(scope).catch_unwind().await.is_err());
    assert_eq!(attempts(&client).await, 4);

    // The local extensions of a task that panicked may stay with the thread: not so the scope.
    let scope = retries(0).scope(with_extensions(Extensions::new(), panics()));
    assert!(AssertUnwindSafe(scope).catch_unwind().await.is_err());
    assert_eq!(attempts(&client).await, 4);
    let scope = with_extensions(Extensions::new(), retries(0).scope(panics()));
    assert!(AssertUnwindSafe(scope).catch_unwind().await.is_err());
    assert_eq!(attempts(&client).await, 4);

    // An outer scope is in force again.
    let outer = retries(1).scope(async {
        let inner = retries(0).scope(panics());
        assert!(AssertUnwindSafe(inner).catch_unwind().await.is_err());
        attempts(&client).await
    });
    assert_eq!(outer.await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_scope_is_that_of_its_future_alone() {
    let (one, two, three) = (client(), client(), client());
    let scoped = retries(0).scope(async {
        // Polled in turns with the others.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        attempts(&one).await
    });
    let other = retries(1).scope(attempts(&two));
    assert_eq!(tokio::join!(scoped, other, attempts(&three)), (1, 2, 4));

    let spawned =
        retries(0).scope(async { tokio::spawn(async move { attempts(&three).await }).await });
    assert_eq!(spawned.await.unwrap(), 4, "a task of its own has none");
    let dropped = Box::pin(retries(0).scope(std::future::pending::<()>()));
    assert!(futures_util::poll!(dropped).is_pending());
    assert_eq!(attempts(&two).await, 4);
}
