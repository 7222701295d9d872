//! The settings of mirrors.

use super::{TIME_OR_OFF, key, needed, request::ON_OFF};
use crate::config::file::shape::{Key, Kind};
use crate::config::file::value::{Table, Value, get};
use crate::host::mirrors::{MirrorSets, Mirrors};

/// A table of sets, by the base URL of their requests.
pub(super) const MIRRORS: Kind = Kind::Any(&[Kind::Urls(&[SET]), Kind::Off]);

const SET: &[Key] = &[
    needed(
        "endpoints",
        Kind::List(&Kind::Url),
        "The base URLs to ask: that of the requests itself only if it is listed.",
    ),
    key(
        "order",
        Kind::Word(&["ordered", "spread"]),
        "The first that is available, or the quicker and less busy of two. Default: ordered.",
    ),
    key("sticky", TIME_OR_OFF, "How long to stay with an endpoint that succeeded. Default: off."),
    key("trusted", ON_OFF, "Sends credentials to all endpoints. Default: off."),
    key("strict", ON_OFF, "Takes a 404 or 410 of one endpoint as final. Default: off."),
    key(
        "shared_idempotency",
        ON_OFF,
        "Lets a keyed POST move: the endpoints know each other's idempotency keys. Default: off.",
    ),
    key(
        "secret_headers",
        Kind::List(&Kind::Header),
        "Headers for the origin of the request's own URL alone, besides credentials.",
    ),
];

/// Returns the sets of a table.
pub(in crate::config::file) fn sets(table: &Table) -> MirrorSets {
    table.iter().map(|(base, value)| set(base, value)).collect::<Vec<_>>().into()
}

fn set(base: &str, value: &Value) -> Mirrors {
    let Some(table) = value.table() else { return Mirrors::instead_of(base) };
    let items = |name| get(table, name).map_or(&[][..], Value::items);
    let mut mirrors = Mirrors::instead_of(base);
    for endpoint in items("endpoints") {
        if let Value::Url(url) = endpoint {
            mirrors = mirrors.also(url);
        }
    }
    for header in items("secret_headers") {
        if let Value::Header(name) = header {
            mirrors = mirrors.secret_header(name.clone());
        }
    }
    let is_on = |name| get(table, name) == Some(&Value::On);
    let switch = |mirrors: Mirrors, name, set: fn(Mirrors) -> Mirrors| {
        if is_on(name) { set(mirrors) } else { mirrors }
    };
    mirrors = switch(mirrors, "trusted", Mirrors::trusted);
    mirrors = switch(mirrors, "strict", Mirrors::strict);
    mirrors = switch(mirrors, "shared_idempotency", Mirrors::shared_idempotency);
    if get(table, "order") == Some(&Value::Word("spread")) {
        mirrors = mirrors.spread();
    }
    match get(table, "sticky").and_then(Value::time) {
        Some(time) => mirrors.sticky(time),
        None => mirrors,
    }
}
