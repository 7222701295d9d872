//! What is decided after one attempt, without the loop around it, beside reqwest-retry.

#[path = "support/mod.rs"]
mod support;

use std::{
    hint::black_box,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest_resilient::bench::Answered;
use reqwest_retry::{
    DefaultRetryableStrategy, RetryPolicy, RetryableStrategy, policies::ExponentialBackoff,
};
use support::rounds::{Case, Rounds};
use tokio::time::Instant;

fn main() {
    let (now, url) = (SystemTime::now(), support::chain::get().url().clone());
    let plain = HeaderMap::from_iter([
        (header::CONTENT_LENGTH, HeaderValue::from(0)),
        (header::DATE, HeaderValue::from_static("Wed, 25 Nov 2026 21:00:00 GMT")),
        (header::SERVER, HeaderValue::from_static("bench")),
    ]);
    let mut hinting = plain.clone();
    hinting.insert(header::RETRY_AFTER, HeaderValue::from(2));
    let answered = |status, headers: &HeaderMap| {
        Answered::new(url.clone(), status, headers.clone(), Instant::now())
    };
    let unavailable = answered(StatusCode::SERVICE_UNAVAILABLE, &plain);
    let hinted = answered(StatusCode::SERVICE_UNAVAILABLE, &hinting);
    let missing = answered(StatusCode::NOT_FOUND, &plain);

    let policy = ExponentialBackoff::builder().build_with_max_retries(3);
    let response = http::Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).body("");
    let response = Ok(reqwest::Response::from(response.expect("a response")));
    let cases = [
        Case::new("ours, 503", || {
            black_box(black_box(&unavailable).decide(now, rand::random()));
        }),
        Case::new("ours, 503 and Retry-After", || {
            black_box(black_box(&hinted).decide(now, rand::random()));
        }),
        Case::new("ours, 404", || {
            black_box(black_box(&missing).decide(now, 0.0));
        }),
        Case::new("reqwest-retry, 503", || {
            if DefaultRetryableStrategy.handle(black_box(&response)).is_some() {
                black_box(policy.should_retry(black_box(now), 0));
            }
        }),
    ];
    let rounds = Rounds::of(1, Duration::from_secs(6), &cases);
    rounds.print("a decision");
    let [ours, peer] = ["ours, 503", "reqwest-retry, 503"].map(|it| rounds.of_case(it));
    println!("a decision, ours/reqwest-retry {ours:.1}/{peer:.1} {:.2}", ours / peer);
}
