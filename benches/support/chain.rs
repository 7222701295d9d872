//! Chains of middleware that end in a mock, so that nothing but the chain is measured.

use http::{Extensions, Method};
use reqwest::{Request, Response, ResponseBuilderExt, Url};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next, Result};

/// An answer without a body.
pub(crate) fn answer(url: &Url, status: u16) -> Response {
    let answer = http::Response::builder().status(status).url(url.clone()).body("");
    answer.expect("a response").into()
}

/// The end of the chain: answers 200.
pub(crate) struct Answer;

#[async_trait::async_trait]
impl Middleware for Answer {
    async fn handle(&self, request: Request, _: &mut Extensions, _: Next<'_>) -> Result<Response> {
        Ok(answer(request.url(), 200))
    }
}

pub(crate) fn client(middleware: impl Middleware, end: impl Middleware) -> ClientWithMiddleware {
    ClientBuilder::new(reqwest::Client::new()).with(middleware).with(end).build()
}

/// A request that costs little to make.
pub(crate) fn get() -> Request {
    Request::new(Method::GET, Url::parse("https://api.example.com/v1").expect("a url"))
}
