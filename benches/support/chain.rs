//! Chains of middleware that end in a mock, so that nothing but the chain is measured.

use std::sync::LazyLock;

use http::{Extensions, HeaderValue, Method, Version, header};
use reqwest::{Request, Response, ResponseBuilderExt, Url};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next, Result};

/// An answer without a body.
pub(crate) fn answer(url: &Url, status: u16, version: Version) -> Response {
    let answer = http::Response::builder().status(status).version(version).url(url.clone());
    answer.body("").expect("a response").into()
}

/// The end of the chain: answers 200.
pub(crate) struct Answer;

#[async_trait::async_trait]
impl Middleware for Answer {
    async fn handle(&self, request: Request, _: &mut Extensions, _: Next<'_>) -> Result<Response> {
        Ok(answer(request.url(), 200, Version::HTTP_11))
    }
}

pub(crate) fn client(middleware: impl Middleware, end: impl Middleware) -> ClientWithMiddleware {
    ClientBuilder::new(reqwest::Client::new()).with(middleware).with(end).build()
}

/// A request that costs little to make.
pub(crate) fn get() -> Request {
    Request::new(Method::GET, Url::parse("https://api.example.com/v1").expect("a url"))
}

/// A request as there are many: a copy, because to write one costs more than what is measured, and
/// leaves a heap behind that is another for each case.
pub(crate) fn get_with_headers() -> Request {
    static WRITTEN: LazyLock<Request> = LazyLock::new(|| {
        let mut request = get();
        request.url_mut().set_path("/v1/things/42");
        request.url_mut().set_query(Some("fields=name"));
        for (name, value) in [
            (header::ACCEPT, "application/json"),
            (header::USER_AGENT, "bench/1.0"),
            (header::AUTHORIZATION, "Bearer 0123456789"),
        ] {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        request
    });
    WRITTEN.try_clone().expect("a copy")
}
