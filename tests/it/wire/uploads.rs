//! Uploads that the server cuts short, as one does that says 413 before it has read them.

#[cfg(feature = "multipart")]
use reqwest::multipart::Form;
use reqwest_resilient::{AttemptLog, StopReason, WaitSource};
#[cfg(feature = "multipart")]
use reqwest_resilient::{BodyFactory, ResilientClient};

use super::{ms, plain, quick, resilient};
use crate::support::reply::{End, Fault, Reply};
use crate::support::server::Server;

#[tokio::test]
async fn a_large_upload_that_is_cut_goes_once_more_and_not_at_once() {
    let server = Server::h1([Fault::After(100_000, End::Reset).into()]);
    let log = AttemptLog::new();
    let put = resilient(quick(), plain()).put(server.url("/")).body(vec![b'x'; 8 << 20]);
    put.with_extension(log.clone()).send().await.unwrap_err();
    let history = log.history();
    assert_eq!((log.attempts(), server.begun()), (2, 2));
    assert_eq!(history.attempts()[0].wait, Some((ms(1), WaitSource::Backoff)));
    assert_eq!(history.stop_reason(), Some(StopReason::Final));
}

#[tokio::test]
async fn an_early_413_is_not_asked_for_again_and_again() {
    let server = Server::h1([Reply::status(413).early().into()]);
    let put = resilient(quick().max_retries(9), plain()).put(server.url("/"));
    // The response may be lost in the reset of the connection.
    if let Ok(response) = put.body(vec![b'x'; 8 << 20]).send().await {
        assert_eq!(response.status().as_u16(), 413);
    }
    assert!(server.begun() <= 2, "{} uploads", server.begun());
}

/// The forms that came, each with the boundary that its header names.
#[cfg(feature = "multipart")]
fn forms(server: &Server) -> Vec<(String, String)> {
    let seen = server.seen();
    let form = |it: &crate::support::log::Seen| {
        let (kind, boundary) = it.header("content-type")?.split_once("; boundary=")?;
        assert_eq!(kind, "multipart/form-data");
        Some((boundary.to_owned(), String::from_utf8_lossy(&it.body).into_owned()))
    };
    seen.iter().map(|it| form(it).unwrap()).collect()
}

#[cfg(feature = "multipart")]
fn is_whole((boundary, body): &(String, String)) -> bool {
    body.starts_with(&format!("--{boundary}\r\n"))
        && body.contains("name=\"name\"\r\n\r\nvalue\r\n")
        && body.ends_with(&format!("--{boundary}--\r\n"))
}

#[cfg(feature = "multipart")]
#[tokio::test]
async fn a_factory_makes_each_attempt_a_form() {
    let server = Server::h1([Reply::status(503).into(), Reply::status(200).into()]);
    let factory = BodyFactory::multipart(async || Ok(Form::new().text("name", "value")));
    let put = resilient(quick(), plain()).put(server.url("/")).header("content-type", "a/b");
    put.with_extension(factory).send().await.unwrap();
    let forms = forms(&server);
    assert!(forms.iter().all(is_whole), "{forms:?}");
    assert!(forms.len() == 2 && forms[0].0 != forms[1].0, "{forms:?}");

    let server = Server::h1([Reply::status(200).into()]);
    let factory = BodyFactory::multipart(async || Err("no file".into()));
    let put = resilient(quick(), plain()).put(server.url("/"));
    let error = put.with_extension(factory).send().await.unwrap_err();
    assert!(format!("{error:?}").contains("no file") && server.requests() == 0, "{error:?}");
}

#[cfg(feature = "multipart")]
#[tokio::test]
async fn a_request_takes_a_form_and_a_password() {
    let server = Server::h1([Reply::status(200).into()]);
    let client = ResilientClient::builder().with_reqwest(|it| it.no_proxy()).build().unwrap();
    let put = client.put(server.url("/")).multipart(Form::new().text("name", "value"));
    put.basic_auth("user", Some("pw")).send_resilient().await.unwrap();
    let put = client.put(server.url("/")).multipart(Form::new().text("name", "value"));
    put.basic_auth("user", None::<&str>).send_resilient().await.unwrap();
    assert!(forms(&server).iter().all(is_whole));
    let seen = server.seen();
    let auth: Vec<_> = seen.iter().map(|it| it.header("authorization").unwrap()).collect();
    assert_eq!(auth, ["Basic dXNlcjpwdw==", "Basic dXNlcjo="]);
}
