//! Limits of one source over the settings of another: they shorten, and do not contradict.

use crate::config::file::shape;
use crate::config::file::tree::Tree;

/// Each limit, and what it shortens.
const LIMITS: [(&str, &[&str]); 2] =
    [("max_total_time", &["attempt_timeout"]), ("max_wait_time", &["backoff", "max_delay"])];

/// Shortens the settings in `merged` that `over` does not set itself to the limits of `over`, those of
/// hosts too.
pub(super) fn shorten(over: &Tree, merged: &mut Tree) {
    for (limit, path) in LIMITS {
        let general = over.get(&[limit]);
        if over.get(path).is_none() {
            cut(merged, path, general);
        }
        let Some(Tree::Table(hosts)) = merged.get_mut(&["hosts"]) else { continue };
        for (name, host) in hosts {
            let ours = over.get(&["hosts", name]);
            if ours.is_some_and(|it| it.get(path).is_some()) {
                continue;
            }
            // A limit of the host's own, from whichever source, counts in place of the general one.
            let own = ours.and_then(|it| it.get(&[limit]));
            let limit = if host.get(&[limit]).is_some() { own } else { general };
            cut(host, path, limit);
        }
    }
}

/// Shortens the time at `path` to `limit`, if both are there.
fn cut(table: &mut Tree, path: &[&str], limit: Option<&Tree>) {
    let Some((limit, longest)) = limit.and_then(|it| Some((it, shape::time(it)?))) else { return };
    if let Some(time) = table.get_mut(path) {
        if shape::time(time).is_some_and(|it| it > longest) {
            time.clone_from(limit);
        }
    }
}
