//! The record that the end of a client's own chain keeps of an attempt.
//!
//! A middleware further in may rewrite the request, send it more than once, or fail by itself after
//! a response. The innermost middleware of [`ResilientClient`](crate::ResilientClient) sees what was
//! really sent; in a chain of the user's own there is none.

use http::Extensions;
use reqwest::{Response, Url};

use crate::outcome::Delivery;
use crate::outcome::transport_error::AttemptError;

/// In the extensions of an attempt that needs a connection of its own: to send it over one that is
/// there already would be in vain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnConnection;

/// In the extensions of an attempt whose request reached the end of the chain.
#[derive(Clone, Debug)]
pub(crate) struct SendRecord {
    /// The URL that was sent last.
    pub(crate) url: Url,
    /// Set if an earlier send of this attempt may have been processed.
    before: bool,
    last: Last,
}

/// The result of the last send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    UnderWay,
    Responded,
    /// Ended with an error of the transport.
    Failed(Delivery),
}

impl SendRecord {
    /// Records that a request to `url` is about to be sent.
    pub(crate) fn begin(extensions: &mut Extensions, url: Url) {
        let before = extensions.get::<Self>().is_some_and(Self::may_be_processed);
        extensions.insert(Self { url, before, last: Last::UnderWay });
    }

    /// Records what came of it.
    pub(crate) fn end(extensions: &mut Extensions, result: Result<&Response, &reqwest::Error>) {
        let Some(record) = extensions.get_mut::<Self>() else { return };
        record.last = match result {
            Ok(_) => Last::Responded,
            Err(error) => {
                let (transport, sent) = (Some(error), &record.url);
                let error = AttemptError { error, transport, sent, after_head: false };
                Last::Failed(error.read().delivery)
            }
        };
    }

    /// Returns whether anything that was sent in this attempt may have been processed.
    pub(crate) fn may_be_processed(&self) -> bool {
        let is_unprocessed =
            matches!(self.last, Last::Failed(Delivery::NotSent | Delivery::NotProcessed));
        self.before || !is_unprocessed
    }

    /// Returns whether the last that came of the host was a failure, or nothing yet.
    pub(crate) fn has_no_response(&self) -> bool {
        self.last != Last::Responded
    }

    /// Clears what an earlier request left.
    #[inline]
    pub(crate) fn forget(extensions: &mut Extensions) {
        extensions.remove::<Self>();
    }
}
