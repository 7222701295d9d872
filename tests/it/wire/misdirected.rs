//! 421: the connection is for another host.

use reqwest_resilient::{AttemptLog, HostStates, ResilientClient, StopReason};

use super::{plain, quick, resilient};
use crate::support::reply::Reply;
use crate::support::server::Server;

#[tokio::test]
async fn a_misdirected_request_gets_one_retry_on_a_connection_of_its_own() {
    for body in ["", "not here"] {
        let server = Server::h1([
            Reply::status(200).into(),
            Reply::status(421).body(body).into(),
            Reply::status(200).into(),
        ]);
        let config = quick().build().unwrap();
        let client = ResilientClient::builder().config(config).hosts(HostStates::new());
        let client = client.build().unwrap();
        client.get(server.url("/")).send().await.unwrap();
        let response = client.post(server.url("/")).body("x").send().await.unwrap();
        assert_eq!((response.status().as_u16(), server.requests()), (200, 3));
        let connections: Vec<_> = server.seen().iter().map(|it| it.connection).collect();
        assert_eq!(connections, [1, 1, 2]);
    }
}

#[tokio::test]
async fn a_second_one_is_final() {
    let server = Server::h1([Reply::status(421).into()]);
    let log = AttemptLog::new();
    let client = ResilientClient::builder().config(quick().build().unwrap());
    let client = client.build().unwrap();
    let request = client.get(server.url("/")).with_extension(log.clone());
    assert_eq!(request.send().await.unwrap().status(), 421);
    assert_eq!((server.requests(), log.attempts()), (2, 2));
    assert_eq!(log.history().stop_reason(), Some(StopReason::Final));
}

/// Its pool would choose the same connection again.
#[tokio::test]
async fn it_is_final_in_a_client_of_reqwest() {
    let server = Server::h1([Reply::status(421).into()]);
    let client = resilient(quick(), plain());
    assert_eq!(client.get(server.url("/")).send().await.unwrap().status(), 421);
    assert_eq!(server.requests(), 1);
}
