//! haproxy: back ends that are down, queues, reloads, and what its rules do to requests.

mod outages;
mod reloads;
mod rules;

use crate::support::reply::Reply;
use crate::support::server::Server;

use super::ms;

fn application() -> Server {
    Server::h1([Reply::status(200).body("hello").late(ms(10)).into()])
}
