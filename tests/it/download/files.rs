//! Downloads into files, over several processes.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use std::{env, fs};

use bytes::Bytes;
use reqwest_resilient::{
    Constant, DownloadBuilder, DownloadErrorKind as Kind, DownloadExt, Verifier,
};

use super::origin::{Answer, Folder, bytes, client, config, serve, server};
use crate::support::reply::{End, Step};
use crate::support::server::Server;

const TAG: &[(&str, &str)] = &[("etag", "\"v1\"")];

/// Begins a download, and leaves half of it.
async fn leave_half(folder: &Folder, body: &Bytes) -> Server {
    leave_half_as(folder, body, TAG, |it| it).await
}

async fn leave_half_as(
    folder: &Folder,
    body: &Bytes,
    validators: &'static [(&str, &str)],
    settings: fn(DownloadBuilder) -> DownloadBuilder,
) -> Server {
    let (its, broken) = (body.clone(), Arc::new(AtomicBool::new(true)));
    let is_broken = Arc::clone(&broken);
    let server = server(false, move |seen, n| match n {
        0 => serve(&its, validators, seen).cut(its.len() / 2, End::Close),
        // All tries of the first download.
        1..=3 if is_broken.swap(true, SeqCst) => Answer::new(503, ""),
        _ => serve(&its, validators, seen),
    });
    let download = client(false, config().max_retries(0)).get(server.url("/")).download();
    let error = settings(download).max_retries(2).to_file(folder.file("it")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted);
    assert_eq!(folder.names(), ["it.part", "it.part.resume"]);
    assert_eq!(fs::metadata(folder.file("it.part")).unwrap().len(), body.len() as u64 / 2);
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_download_goes_on() {
    let (folder, body) = (Folder::new(), bytes(1, 100_000));
    let server = leave_half(&folder, &body).await;
    let keeps = Counts::default();
    let download = client(false, config()).get(server.url("/")).download();
    let downloaded = download.verify(keeps.clone()).to_file(folder.file("it")).await.unwrap();
    assert_eq!((downloaded.resumes(), downloaded.restarts()), (1, 0));
    assert_eq!(server.seen().last().unwrap().header("range"), Some("bytes=50000-"));
    assert!(fs::read(folder.file("it")).unwrap() == body);
    assert_eq!(folder.names(), ["it"]);
    assert_eq!(*keeps.0.lock().unwrap(), body.iter().map(|it| u64::from(*it)).sum::<u64>());
}

/// Sums up the bytes.
#[derive(Clone, Default)]
struct Counts(Arc<std::sync::Mutex<u64>>);

impl Verifier for Counts {
    fn restart(&mut self) {
        *self.0.lock().unwrap() = 0;
    }

    fn update(&mut self, bytes: &[u8]) {
        *self.0.lock().unwrap() += bytes.iter().map(|it| u64::from(*it)).sum::<u64>();
    }

    fn finish(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_earlier_process_vouches_for_nothing_that_this_one_does_not() {
    let (folder, body) = (Folder::new(), bytes(1, 100_000));
    let server = leave_half_as(&folder, &body, &[], |it| it.immutable()).await;
    let download = client(false, config()).get(server.url("/")).download();
    let downloaded = download.to_file(folder.file("it")).await.unwrap();
    assert_eq!(
        (downloaded.bytes(), server.seen().last().unwrap().header("range")),
        (100_000, None)
    );

    let (folder, body) = (Folder::new(), bytes(1, 100_000));
    let server = leave_half(&folder, &body).await;
    let download = client(false, config()).get(server.url("/")).download().expect_length(200_000);
    let error = download.to_file(folder.file("it")).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Length { expected: 200_000, received: 100_000, .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_meanwhile_starts_over() {
    let (folder, old, new) = (Folder::new(), bytes(1, 100_000), bytes(2, 100_000));
    drop(leave_half(&folder, &old).await);
    // A name, as the port of the second server differs.
    for tag in ["\"v2\"", "\"v1\""] {
        let its = new.clone();
        let server = server(false, move |seen, _| serve(&its, &[("etag", tag)], seen));
        let download = client(false, config()).get(server.url("/")).download();
        let downloaded = download.to_file(folder.file("it")).await.unwrap();
        assert!(fs::read(folder.file("it")).unwrap() == new, "another URL is another resource");
        assert_eq!(downloaded.bytes(), 100_000);
        assert_eq!(folder.names(), ["it"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_resource_goes_on_under_another_url() {
    let (folder, body) = (Folder::new(), bytes(1, 100_000));
    let its = body.clone();
    let server = server(false, move |seen, n| match n {
        0 => serve(&its, TAG, seen).cut(60_000, End::Close),
        1 => Answer::new(404, ""),
        _ => serve(&its, TAG, seen),
    });
    for (url, is_whole) in [("/a?signature=1", false), ("/a?signature=2", true)] {
        let download = client(false, config()).get(server.url(url)).download().resume_key("a");
        let result = download.to_file(folder.file("it")).await;
        assert_eq!(result.is_ok(), is_whole, "{result:?}");
    }
    assert_eq!(server.seen().last().unwrap().header("range"), Some("bytes=60000-"));
    assert!(fs::read(folder.file("it")).unwrap() == body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_does_not_fit_is_not_used() {
    let body = bytes(1, 100_000);
    type Damage = fn(&Folder);
    let damages: [Damage; 5] = [
        |it| fs::write(it.file("it.part.resume"), "nonsense").unwrap(),
        |it| fs::remove_file(it.file("it.part.resume")).unwrap(),
        |it| fs::remove_file(it.file("it.part")).unwrap(),
        |it| fs::write(it.file("it.part"), vec![7; 100_001]).unwrap(),
        |it| {
            let text = fs::read(it.file("it.part.resume")).unwrap();
            fs::write(it.file("it.part.resume"), &text[..text.len() - 9]).unwrap();
        },
    ];
    for damage in damages {
        let folder = Folder::new();
        let server = leave_half(&folder, &body).await;
        damage(&folder);
        let download = client(false, config()).get(server.url("/")).download();
        download.to_file(folder.file("it")).await.unwrap();
        assert_eq!(server.seen().last().unwrap().header("range"), None);
        assert!(fs::read(folder.file("it")).unwrap() == body);
        assert_eq!(folder.names(), ["it"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_is_whole_is_proved_by_its_last_byte() {
    let (folder, body) = (Folder::new(), bytes(1, 100_000));
    let server = leave_half(&folder, &body).await;
    fs::write(folder.file("it.part"), &body).unwrap();
    let download = client(false, config()).get(server.url("/")).download();
    download.to_file(folder.file("it")).await.unwrap();
    assert_eq!(server.seen().last().unwrap().header("range"), Some("bytes=99999-"));
    assert!(fs::read(folder.file("it")).unwrap() == body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_download_keeps_its_part() {
    let (folder, body) = (Folder::new(), bytes(1, 1_000_000));
    let its = body.clone();
    let server = server(false, move |seen, n| {
        let answer = serve(&its, TAG, seen);
        if n == 0 { answer.cut(600_000, End::Stall) } else { answer }
    });
    let download = || client(false, config()).get(server.url("/")).download();
    let first = download().to_file(folder.file("it"));
    assert!(tokio::time::timeout(Duration::from_millis(500), first).await.is_err());
    let part = fs::metadata(folder.file("it.part")).unwrap().len();
    assert!((256 * 1024..=600_000).contains(&part), "{part}");
    download().to_file(folder.file("it")).await.unwrap();
    assert!(server.seen()[1].header("range").is_some());
    assert!(fs::read(folder.file("it")).unwrap() == body);
}

/// The piece that is being written when a download is dropped holds up the next one, no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_that_was_dropped_is_followed_by_another_at_once() {
    let (folder, body) = (Folder::new(), bytes(1, 8_000_000));
    let its = body.clone();
    let server = server(false, move |seen, _| serve(&its, TAG, seen));
    let client = client(false, config());
    let download = || client.get(server.url("/")).download().to_file(folder.file("it"));
    for it in 0..100 {
        let _dropped = tokio::time::timeout(Duration::from_micros(it * 200), download()).await;
        let next = tokio::time::timeout(Duration::from_millis(10), download()).await;
        if let Ok(next) = next {
            next.unwrap_or_else(|error| panic!("dropped after {} µs: {error:#}", it * 200));
        }
    }
    download().await.unwrap();
    assert!(fs::read(folder.file("it")).unwrap() == body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_has_one_download_at_a_time() {
    let (folder, body) = (Folder::new(), bytes(1, 300_000));
    let its = body.clone();
    let server = Server::h1([Step::ask(move |seen| {
        serve(&its, TAG, seen).reply(false).drip(10_000, Duration::from_millis(10))
    })]);
    let download = || client(false, config()).get(server.url("/")).download();
    let (one, other) =
        tokio::join!(download().to_file(folder.file("it")), download().to_file(folder.file("it")),);
    let (good, bad): (Vec<_>, Vec<_>) = [one, other].into_iter().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (1, 1));
    assert_eq!(bad[0].as_ref().unwrap_err().kind(), Kind::Write);
    assert!(fs::read(folder.file("it")).unwrap() == body);
    download().to_file(folder.file("it")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_written_is_an_error_before_anything_is_sent() {
    let folder = Folder::new();
    let server = server(false, move |seen, _| serve(&bytes(1, 10), TAG, seen));
    fs::create_dir(folder.file("folder")).unwrap();
    let in_vain = ["nowhere/it", "folder", "folder/", "it/"].map(|it| folder.file(it));
    for path in in_vain.into_iter().chain(["/".into(), "".into()]) {
        let download = client(false, config()).get(server.url("/")).download();
        let error = download.to_file(path).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Write);
    }
    assert_eq!(server.requests(), 0);
    assert_eq!(folder.names(), ["folder"], "no part is left");
}

/// Rejects everything.
struct Rejects;

impl Verifier for Rejects {
    fn restart(&mut self) {}

    fn update(&mut self, _: &[u8]) {}

    fn finish(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Err("wrong digest".into())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_fails_its_check_is_not_kept() {
    let folder = Folder::new();
    fs::write(folder.file("it"), "an older file").unwrap();
    let server = server(false, move |seen, _| serve(&bytes(1, 10), TAG, seen));
    let download = client(false, config()).get(server.url("/")).download().verify(Rejects);
    let error = download.to_file(folder.file("it")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Verification);
    assert_eq!(folder.names(), ["it"]);
    assert_eq!(fs::read(folder.file("it")).unwrap(), b"an older file");
    // Or by one that is chosen at run time.
    let chosen: Box<dyn Verifier> = Box::new(Rejects);
    let download = client(false, config()).get(server.url("/")).download().verify(chosen);
    let error = download.to_file(folder.file("it")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Verification);
}

/// The other process of the test below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a process of its own"]
async fn child() {
    let (url, path) = (env::var("CHILD_URL").unwrap(), env::var("CHILD_PATH").unwrap());
    client(false, config()).get(url).download().to_file(path).await.unwrap();
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_is_gone_on_with() {
    const LENGTH: usize = 8_000_000;
    let (folder, body) = (Folder::new(), bytes(5, LENGTH));
    let its = body.clone();
    let server = Server::h1([Step::ask(move |seen| {
        serve(&its, TAG, seen).reply(false).drip(64_000, Duration::from_millis(8))
    })]);
    let part = folder.file("it.part");
    let mut kills = 0;
    for least in [1_000_000, 3_000_000] {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "download::files::child", "--ignored"])
            .env("CHILD_URL", server.url("/"))
            .env("CHILD_PATH", folder.file("it"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..1_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if fs::metadata(&part).is_ok_and(|it| it.len() >= least) {
                break;
            }
        }
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(fs::metadata(&part).unwrap().len() >= 3_000_000);
    let config = config().backoff(Constant::new(Duration::from_millis(1)));
    let download = client(false, config).get(server.url("/")).download();
    let downloaded = download.to_file(folder.file("it")).await.unwrap();
    assert_eq!((downloaded.bytes(), downloaded.restarts()), (LENGTH as u64, 0));
    assert!(fs::read(folder.file("it")).unwrap() == body, "a mixture");
    let ranges: Vec<_> = server.seen().iter().map(|it| it.header("range").is_some()).collect();
    assert_eq!(ranges, [false, true, true], "{kills} kills");
}
