//! Connections that nginx ends: by count, by time, and by a reload.

use std::collections::HashSet;

use tokio::time::sleep;

use crate::real::client::{
    Load, MIXED, PEER, Setup, Tally, all_but_posts, all_succeed, none_twice, processed, reached,
    report,
};
use crate::real::ms;
use crate::real::server::{Real, certify, nginx, nginx_in};
use crate::support::folder::Folder;
use crate::support::program::free_address;
use crate::support::reply::Reply;
use crate::support::server::Server;

/// Checks that nothing was lost but POSTs without a key that met their connection in the moment in
/// which nginx closed it: nothing tells the client then that they were not processed, though none of
/// them was. It is none or two of 100 on an idle machine, some more on a busy one.
fn only_races_lose(tallies: &[Tally], processed: impl IntoIterator<Item = String>) {
    all_but_posts(tallies, 50);
    let processed: HashSet<_> = processed.into_iter().collect();
    for tally in tallies.iter().filter(|it| it.who != PEER) {
        let good = processed.iter().filter(|it| it.split(' ').next() == Some(tally.who)).count();
        let posts = tally.asked / MIXED.len();
        assert_eq!(good, posts - tally.failures.len(), "{}: {:#?}", tally.who, tally.failures);
    }
}

#[tokio::test]
async fn keep_alive_limits_cost_no_request() {
    let address = free_address();
    let part = format!(
        "server {{ listen {address}; keepalive_requests 7; keepalive_timeout 50ms;\n\
         location / {{ return 200 'hello'; }} }}"
    );
    let Some(server) = nginx(address, &part) else { return };
    // Pauses around the time after which the server closes an idle connection.
    let load = Load { pause: |number| ms(number as u64 * 7 % 11 * 10), ..Load::new(300, 8, MIXED) };
    let clients = Setup::new().contestants();
    let tallies = load.by_each(&clients, |who| server.url(&format!("/{who}"))).await;
    let log = server.log();
    let seen = report("nginx keep-alive", &tallies, &log, processed(&log));
    only_races_lose(&tallies, processed(&log).filter(|it| it.contains("Post")));
    none_twice(&seen);
}

/// Reloads three times under load.
async fn under_reloads(server: &Real, load: impl Future<Output = Vec<Tally>>) -> Vec<Tally> {
    let reloads = async {
        for _ in 0..3 {
            sleep(ms(300)).await;
            server.reload();
        }
    };
    tokio::join!(load, reloads).0
}

fn application() -> Server {
    Server::h1([Reply::status(200).body("hello").late(ms(10)).into()])
}

fn upstream(application: &Server) -> String {
    format!("upstream application {{ server {}; keepalive 32; }}", application.addr())
}

const PASS: &str = "location / { proxy_pass http://application; proxy_http_version 1.1;\n\
     proxy_set_header connection ''; }";

#[tokio::test]
async fn a_reload_costs_no_request() {
    let (application, address) = (application(), free_address());
    let part = format!("{}\nserver {{ listen {address}; {PASS} }}", upstream(&application));
    let Some(server) = nginx(address, &part) else { return };
    let clients = Setup::new().contestants();
    let load = Load::steady().by_each(&clients, |who| server.url(&format!("/{who}")));
    let tallies = under_reloads(&server, load).await;
    let seen = report("nginx reload", &tallies, &server.log(), reached([&application]));
    only_races_lose(&tallies, reached([&application]));
    none_twice(&seen);
}

#[tokio::test]
async fn a_goaway_costs_no_request() {
    let (application, address, folder) = (application(), free_address(), Folder::new());
    let certificate = certify(&folder);
    let root = folder.0.display();
    // By a reload, and after each fiftieth request of a connection.
    let part = format!(
        "{}\nssl_certificate {root}/certificate.pem; ssl_certificate_key {root}/key.pem;\n\
         server {{ listen {address} ssl http2; keepalive_requests 50; {PASS} }}",
        upstream(&application)
    );
    let Some(server) = nginx_in(folder, address, &part) else { return };
    let clients = Setup::new().inner(move |it| it.tls_certs_only([certificate.clone()]));
    let clients = clients.contestants();
    let load = Load::steady().by_each(&clients, |who| server.https(&format!("/{who}")));
    let tallies = under_reloads(&server, load).await;
    let seen = report("nginx h2 reload", &tallies, &server.log(), reached([&application]));
    all_succeed(&tallies);
    none_twice(&seen);
}
