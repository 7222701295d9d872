//! Downloads without async: the same rules.

use std::io::Read;

use reqwest_resilient::DownloadErrorKind as Kind;
use reqwest_resilient::blocking::ResilientClient;

use super::origin::{Answer, Folder, bytes, config, serve, server};
use crate::support::reply::End;

fn client() -> ResilientClient {
    let builder = ResilientClient::builder().config(config().build().unwrap());
    builder.with_reqwest(|it| it.no_proxy()).build().unwrap()
}

#[test]
fn a_blocking_download_goes_on_after_a_break() {
    let body = bytes(1, 300_000);
    let its = body.clone();
    let server = server(false, move |seen, _| {
        serve(&its, &[("etag", "\"a\"")], seen).cut(100_000, End::Close)
    });
    let (client, folder) = (client(), Folder::new());
    let download = || client.get(server.url("/")).download();
    assert!(download().bytes().unwrap() == body);
    let downloaded = download().to_file(folder.file("it")).unwrap();
    assert_eq!((downloaded.bytes(), downloaded.resumes()), (300_000, 2));
    assert!(std::fs::read(folder.file("it")).unwrap() == body);
    let mut all = Vec::new();
    assert_eq!(download().to_writer(&mut all).unwrap().resumes(), 2);
    assert!(all == body);
    let mut reader = download().send().unwrap();
    assert_eq!((reader.status().as_u16(), reader.length()), (200, Some(300_000)));
    let (mut start, mut rest) = ([0; 10], Vec::new());
    reader.read_exact(&mut start).unwrap();
    reader.read_to_end(&mut rest).unwrap();
    assert!([&start[..], &rest].concat() == body);
}

#[test]
fn a_blocking_download_that_fails_says_why() {
    let body = bytes(1, 300_000);
    let server = server(false, move |seen, _| serve(&body, &[], seen).cut(100_000, End::Close));
    let client = client();
    let mut all = Vec::new();
    let error = client.get(server.url("/")).download().to_writer(&mut all).unwrap_err();
    assert!(matches!(error.kind(), Kind::NotResumable(_)) && error.offset() == 100_000);
    let mut download = client.get(server.url("/")).download().send().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // In async code the call is refused, and the download goes on elsewhere.
    let error = runtime.block_on(async { download.chunk().unwrap_err() });
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("async code"));
    assert!(download.chunk().unwrap().is_some());
    assert_eq!(client.get("no url").download().bytes().unwrap_err().kind(), Kind::Request);
}

/// What a command-line tool prints has to name the cause: its user has nothing else.
#[test]
fn the_text_of_a_failed_download_names_its_cause() {
    let body = bytes(1, 300_000);
    let server = server(false, move |seen, _| match seen.path.as_str() {
        "/none?secret=1" => Answer::new(404, ""),
        _ => serve(&body, &[], seen).cut(100_000, End::Close),
    });
    let (client, folder) = (client(), Folder::new());
    let failed = |url: &str, file: &str| {
        let error = client.get(url).download().to_file(folder.file(file)).unwrap_err();
        (error.to_string(), format!("{error:#}"))
    };

    let (short, long) = failed(&server.url("/none?secret=1"), "it");
    assert!(short.ends_with("/none failed at byte 0: a request failed with status 404"), "{short}");
    assert!(long.ends_with("/none failed with status 404") && !long.contains("secret"), "{long}");

    let (_, long) = failed(&server.url("/"), "no-such-folder/it");
    assert!(long.contains("it cannot be written: No such file"), "{long}");

    let (short, _) = failed(&server.url("/"), "it");
    let why = "each break began it anew, as the response has no strong validator";
    assert!(short.contains(why), "{short}");

    let (_, long) = failed("http://127.0.0.1:9/", "it");
    assert!(long.contains("Connection refused"), "{long}");
    let (_, long) = failed("no url", "it");
    assert!(long.contains("relative URL without a base"), "{long}");
}
