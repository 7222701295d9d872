//! The async client in code without async, by `block_on` of a runtime that is there already.

use std::{sync::mpsc, thread, time::Duration};

use reqwest_resilient::{Constant, HostStates, Jitter, ResilientClient, ResilientConfig};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::support::reply::Reply;
use crate::support::server::Server;

/// A client, and a server whose first response is to be retried after a wait: sockets and timers
/// are needed.
fn client_and_server() -> (ResilientClient, Server) {
    let config = ResilientConfig::builder()
        .backoff(Constant::new(Duration::from_millis(20)))
        .jitter(Jitter::None)
        .build()
        .unwrap();
    let client = ResilientClient::builder().config(config).hosts(HostStates::new());
    let server = Server::h1([Reply::status(503).into(), Reply::status(200).body("hello").into()]);
    (client.with_reqwest(|it| it.no_proxy()).build().unwrap(), server)
}

/// Gets a text by a handle, in two waits.
fn text(handle: &Handle, client: &ResilientClient, url: &str) -> String {
    let response = handle.block_on(client.get(url).send()).unwrap();
    handle.block_on(response.text()).unwrap()
}

#[test]
fn a_handle_of_a_runtime_with_threads_serves_every_thread() {
    let (client, server) = client_and_server();
    let runtime = Runtime::new().unwrap();
    let (handle, url) = (runtime.handle().clone(), server.url("/"));
    assert_eq!(text(&handle, &client, &url), "hello");
    assert_eq!(server.requests(), 2);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(text(&handle, &client, &url), "hello"));
        }
    });
    let blocking = tokio::task::spawn_blocking;
    let (handle, client) = (handle.clone(), client.clone());
    let nested = async { blocking(move || text(&handle, &client, &url)).await.unwrap() };
    assert_eq!(runtime.block_on(nested), "hello");
}

#[test]
fn a_runtime_without_threads_drives_requests_by_itself() {
    let (client, server) = client_and_server();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let response = runtime.block_on(client.get(server.url("/")).send()).unwrap();
    assert_eq!(runtime.block_on(response.text()).unwrap(), "hello");
    assert_eq!(server.requests(), 2);
}

#[test]
fn a_handle_of_a_runtime_without_threads_waits_until_another_thread_drives_it() {
    let (client, server) = client_and_server();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (handle, url) = (runtime.handle().clone(), server.url("/"));
    let (done, is_done) = mpsc::channel();
    let worker = thread::spawn(move || done.send(text(&handle, &client, &url)).unwrap());
    let early = is_done.recv_timeout(Duration::from_millis(300));
    assert!(early.is_err(), "nothing drives sockets and timers");
    let text = runtime.block_on(async {
        loop {
            match is_done.try_recv() {
                Ok(text) => break text,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    });
    assert_eq!((text.as_str(), server.requests()), ("hello", 2));
    worker.join().unwrap();
}
