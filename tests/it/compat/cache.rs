//! With http-cache-reqwest, before the retries and after them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use http::{HeaderValue, StatusCode};
use http_cache_reqwest::{
    Cache, CacheManager, CacheMode, HttpCache, HttpCacheOptions, HttpResponse,
};
use http_cache_semantics::CachePolicy;
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::testing::{Reply, Script};
use reqwest_resilient::{AttemptLog, Resilient, ResponseExt};

use crate::support::{URL, idle_client, steady};

/// Keeps what it is given.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<HashMap<String, (HttpResponse, CachePolicy)>>>);

type Kept<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

impl CacheManager for Shelf {
    async fn get(&self, key: &str) -> Kept<Option<(HttpResponse, CachePolicy)>> {
        Ok(self.0.lock().unwrap().get(key).cloned())
    }

    async fn put(
        &self,
        key: String,
        response: HttpResponse,
        policy: CachePolicy,
    ) -> Kept<HttpResponse> {
        self.0.lock().unwrap().insert(key, (response.clone(), policy));
        Ok(response)
    }

    async fn delete(&self, key: &str) -> Kept<()> {
        self.0.lock().unwrap().remove(key);
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Place {
    Before,
    After,
}

/// A client with a cache, and the end of its chain.
fn cached(
    place: Place,
    replies: impl IntoIterator<Item = Reply>,
) -> (ClientWithMiddleware, Script) {
    let manager = Shelf::default();
    let options = HttpCacheOptions::default();
    let cache = Cache(HttpCache { mode: CacheMode::Default, manager, options });
    let resilient = Resilient::new(steady().build().unwrap());
    let script = Script::new(replies);
    let client = ClientBuilder::new(idle_client());
    let client = match place {
        Place::Before => client.with(cache).with(resilient),
        Place::After => client.with(resilient).with(cache),
    };
    (client.with(script.clone()).build(), script)
}

fn fresh(status: u16) -> Reply {
    let hour = HeaderValue::from_static("max-age=3600");
    Reply::status(status).header(CACHE_CONTROL, hour)
}

#[tokio::test(start_paused = true)]
async fn what_is_cached_before_the_retries_never_reaches_them() {
    let replies = [Reply::status(503), fresh(200).body("kept")];
    let (client, script) = cached(Place::Before, replies);
    let first = client.get(URL).send().await.unwrap();
    assert_eq!((first.text().await.unwrap().as_str(), script.sent().len()), ("kept", 2));

    let log = AttemptLog::new();
    let second = client.get(URL).with_extension(log.clone()).send().await.unwrap();
    assert_eq!(second.text().await.unwrap(), "kept");
    assert_eq!((log.attempts(), script.sent().len()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn what_is_cached_after_the_retries_is_an_attempt_like_any_other() {
    let replies = [Reply::status(503), fresh(200).body("kept")];
    let (client, script) = cached(Place::After, replies);
    let first = client.get(URL).send().await.unwrap();
    assert_eq!((first.attempts(), first.text().await.unwrap().as_str()), (2, "kept"));
    let second = client.get(URL).send().await.unwrap();
    assert_eq!((second.attempts(), second.text().await.unwrap().as_str()), (1, "kept"));
    assert_eq!(script.sent().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_on_the_way_is_not_kept() {
    for place in [Place::Before, Place::After] {
        // RFC 9111 lets a cache keep a 503 that says how long it is fresh; a retry must not get
        // that again.
        let (client, script) = cached(place, [fresh(503), fresh(200).body("new")]);
        let response = client.get(URL).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!((response.text().await.unwrap().as_str(), script.sent().len()), ("new", 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_revalidation_is_retried() {
    for place in [Place::Before, Place::After] {
        let stale = Reply::status(200)
            .header(CACHE_CONTROL, HeaderValue::from_static("no-cache"))
            .header(ETAG, HeaderValue::from_static("\"one\""))
            .body("kept");
        let (client, script) = cached(place, [stale, Reply::status(503), Reply::status(304)]);
        client.get(URL).send().await.unwrap();
        let second = client.get(URL).send().await.unwrap();
        assert_eq!(second.status(), StatusCode::OK);
        assert_eq!(second.text().await.unwrap(), "kept");
        let asked: Vec<_> =
            script.sent().iter().map(|it| it.headers.contains_key(IF_NONE_MATCH)).collect();
        assert_eq!(asked, [false, true, true]);
    }
}
