//! The route of a request, whose quotas are those of a bucket.

use std::fmt;

use reqwest::Request;

use crate::common::scope::KeyOf;

/// What makes the route of a request, besides its method.
#[derive(Clone)]
pub(super) enum RouteOf {
    /// So many segments of the path.
    #[cfg_attr(not(feature = "serde"), expect(dead_code))]
    Segments(u32),
    /// What the caller finds in the request.
    Own(KeyOf),
}

impl RouteOf {
    /// Returns the route of a request, without its method.
    pub(super) fn find(&self, request: &Request) -> String {
        match self {
            Self::Own(route_of) => route_of(request),
            Self::Segments(count) => {
                let path = request.url().path();
                let mut ends = path.match_indices('/').map(|it| it.0).skip(1);
                let count = usize::try_from(*count).unwrap_or(usize::MAX);
                let end = match count.checked_sub(1) {
                    Some(before) => ends.nth(before).unwrap_or(path.len()),
                    None => 0,
                };
                path.get(..end).unwrap_or(path).to_owned()
            }
        }
    }
}

impl fmt::Debug for RouteOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segments(count) => write!(f, "{count} segments"),
            Self::Own(_) => f.write_str("Own"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_so_many_segments_of_the_path() {
        for (path, count, route) in [
            ("/a/b/c", 0, ""),
            ("/a/b/c", 1, "/a"),
            ("/a/b/c", 2, "/a/b"),
            ("/a/b/c", 3, "/a/b/c"),
            ("/a/b/c", u32::MAX, "/a/b/c"),
            ("/a/b/", 2, "/a/b"),
            ("/", 1, "/"),
        ] {
            let url = format!("https://example.com{path}?q=/x").parse().unwrap();
            let request = Request::new(reqwest::Method::GET, url);
            assert_eq!(RouteOf::Segments(count).find(&request), route, "{path} {count}");
        }
    }
}
