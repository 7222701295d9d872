//! haproxy under load, reloaded and restarted, over HTTP/1.1 and HTTP/2.

use reqwest_resilient::ResilientConfig;
use tokio::time::sleep;

use super::application;
use crate::real::client::{Load, Setup, all_but_posts, all_succeed, none_twice, reached, report};
use crate::real::ms;
use crate::real::server::{certify, frontend, haproxy, haproxy_in};
use crate::support::folder::Folder;
use crate::support::program::free_address;

/// Reloads three times under load, over HTTP/1.1 or HTTP/2, both over TLS.
async fn under_reloads(test: &str, protocol: &str) {
    let (application, address, folder) = (application(), free_address(), Folder::new());
    let certificate = certify(&folder);
    let bind = format!("ssl crt {}/both.pem alpn {protocol}", folder.0.display());
    // A connection that idles ends with the response to its next request, or with its time.
    let part = format!(
        "{} option idle-close-on-response\n default_backend only\nbackend only\n server only {}\n",
        frontend("front", address, &bind),
        application.addr()
    );
    let Some(server) = haproxy_in(folder, address, &part) else { return };
    let clients = Setup::new().inner(move |it| it.tls_certs_only([certificate.clone()]));
    let clients = clients.contestants();
    let reloads = async {
        for _ in 0..3 {
            sleep(ms(300)).await;
            server.reload();
        }
    };
    let load = Load::steady().by_each(&clients, |who| server.https(&format!("/{who}")));
    let (tallies, ()) = tokio::join!(load, reloads);
    let seen = report(test, &tallies, &server.log(), reached([&application]));
    all_succeed(&tallies);
    none_twice(&seen);
}

#[tokio::test]
async fn a_reload_costs_no_request_of_http1() {
    under_reloads("haproxy h1 reload", "http/1.1").await;
}

#[tokio::test]
async fn a_reload_costs_no_request_of_http2() {
    under_reloads("haproxy h2 reload", "h2").await;
}

#[tokio::test]
async fn a_hard_stop_costs_only_posts_under_way() {
    let (application, address) = (application(), free_address());
    let part = format!(
        "{} default_backend only\nbackend only\n server only {}\n",
        frontend("front", address, ""),
        application.addr()
    );
    let Some(mut server) = haproxy(address, &part) else { return };
    // A stop may cut a body, too.
    let clients = Setup::with(ResilientConfig::builder().read_body(64 << 10)).contestants();
    let url = server.url("/");
    let load = Load::steady().by_each(&clients, |_| url.clone());
    let (tallies, server) = tokio::join!(load, async {
        for _ in 0..2 {
            sleep(ms(400)).await;
            server.restart();
        }
        server
    });
    let seen = report("haproxy hard stop", &tallies, &server.log(), reached([&application]));
    // At most 8 are under way at a stop.
    all_but_posts(&tallies, 16);
    none_twice(&seen);
}
