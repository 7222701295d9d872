//! The request as it is sent again and again: its copy, its extensions, and the markers in them.

use std::mem;

use http::Extensions;
use reqwest::Request;

use crate::execution::record::SendRecord;
use crate::observe::attempt_log::AttemptLog;
use crate::observe::resend_count::ResendCount;
use crate::outcome::not_sent;
use crate::retry::decision::StopReason;

/// The request of a caller, of which each attempt gets a copy.
pub(crate) struct Original<'a> {
    /// Without headers and body once its last attempt has begun.
    pub(crate) request: &'a mut Request,
    extensions: &'a mut Extensions,
    /// The extensions of the attempt under way; `None` if they are the caller's own.
    own: Option<Extensions>,
    /// Set if a copy of the request is left for another attempt.
    is_copied: bool,
    /// Set if the caller's extensions hold no more than `log`, so that attempts use them in place.
    is_bare: bool,
    /// The log of the request.
    pub(crate) log: Option<AttemptLog>,
    /// The sends by a `Resilient` further out.
    resent: Option<ResendCount>,
    /// Set if a `Resilient` further out hedges the request.
    is_hedged: bool,
}

impl<'a> Original<'a> {
    /// Extensions may be reused: clears the markers of an earlier request.
    #[inline]
    pub(crate) fn new(request: &'a mut Request, extensions: &'a mut Extensions) -> Self {
        let log = extensions.get::<AttemptLog>().cloned();
        let is_bare = |it: &Extensions| it.len() == usize::from(log.is_some());
        let (mut resent, mut is_hedged) = (None, false);
        if !is_bare(extensions) {
            extensions.remove::<GaveUp>();
            not_sent::forget(extensions);
            SendRecord::forget(extensions);
            resent = extensions.get().copied();
            is_hedged = extensions.get::<Hedged>().is_some();
        }
        let is_bare = is_bare(extensions);
        Self { request, extensions, own: None, is_copied: false, is_bare, log, resent, is_hedged }
    }

    /// Returns the request to send: a copy if one is wanted and possible, or else the request itself,
    /// which leaves one without headers and body.
    #[inline]
    pub(crate) fn take(&mut self, copy: bool) -> Request {
        match if copy { self.request.try_clone() } else { None } {
            Some(copy) => {
                self.is_copied = true;
                self.own = (!self.is_bare).then(|| self.extensions.clone());
                copy
            }
            None => {
                (self.is_copied, self.own) = (false, None);
                let bare = Request::new(self.request.method().clone(), self.request.url().clone());
                mem::replace(self.request, bare)
            }
        }
    }

    /// Returns whether a copy was left for another attempt.
    pub(crate) fn is_copied(&self) -> bool {
        self.is_copied
    }

    /// Returns the extensions of the attempt under way.
    pub(crate) fn extensions(&self) -> &Extensions {
        self.own.as_ref().unwrap_or(self.extensions)
    }

    /// Returns the extensions of the attempt under way.
    pub(crate) fn extensions_mut(&mut self) -> &mut Extensions {
        self.own.as_mut().unwrap_or(self.extensions)
    }

    /// Returns the request and the caller's extensions.
    pub(crate) fn parts(&mut self) -> (&mut Request, &Extensions) {
        (self.request, self.extensions)
    }

    /// Returns whether a `Resilient` further out hedges the request.
    pub(crate) fn is_hedged(&self) -> bool {
        self.is_hedged
    }

    /// Gives the attempt under way extensions that are not the caller's own, and marks it as one that
    /// may race with hedges.
    pub(crate) fn isolate(&mut self) {
        let own = self.own.get_or_insert_with(|| match self.is_bare && self.is_copied {
            // `restore` makes them anew.
            true => mem::take(self.extensions),
            false => self.extensions.clone(),
        });
        own.insert(Hedged);
    }

    /// Takes the extensions of the attempt under way out of it.
    pub(crate) fn take_extensions(&mut self) -> Extensions {
        self.own.take().unwrap_or_default()
    }

    /// Keeps the extensions of the attempt that won a race.
    pub(crate) fn keep_extensions(&mut self, mut extensions: Extensions) {
        if !self.is_hedged {
            extensions.remove::<Hedged>();
        }
        self.own = Some(extensions);
    }

    /// Returns the extensions of a hedge, which is the send of this number.
    pub(crate) fn hedge_extensions(&mut self, attempt: u32) -> Extensions {
        if self.is_bare {
            self.restore();
        }
        let mut extensions = self.extensions.clone();
        extensions.insert(self.resends(attempt));
        extensions.insert(Hedged);
        extensions
    }

    /// Tells middleware further in the number of earlier sends.
    pub(crate) fn mark_resend(&mut self, attempt: u32) {
        if attempt > 1 {
            let count = self.resends(attempt);
            self.extensions_mut().insert(count);
        }
    }

    fn resends(&self, attempt: u32) -> ResendCount {
        let before = self.resent.map_or(0, ResendCount::get);
        ResendCount::of(before.saturating_add(attempt.saturating_sub(1)))
    }

    /// Returns whether a `Resilient` further in gave the attempt up.
    pub(crate) fn was_given_up(&self) -> bool {
        self.extensions().get::<GaveUp>().is_some()
    }

    /// Drops the extensions of an attempt that is retried, or whose future is dropped.
    pub(crate) fn retry(&mut self) {
        self.own = None;
        if mem::take(&mut self.is_copied) && self.is_bare {
            self.restore();
        }
    }

    /// Makes the caller's extensions what they were, if they are bare.
    fn restore(&mut self) {
        self.extensions.clear();
        if let Some(log) = &self.log {
            self.extensions.insert(log.clone());
        }
    }

    /// Keeps the extensions of the last attempt, without the number of sends: the next request is
    /// no resend of this one.
    pub(crate) fn end(&mut self, stop: StopReason, attempts: u32) {
        self.is_copied = false;
        if let Some(own) = self.own.take() {
            *self.extensions = own;
        }
        if attempts > 1 {
            match self.resent {
                Some(resent) => self.extensions.insert(resent),
                None => self.extensions.remove::<ResendCount>(),
            };
        }
        if stop != StopReason::Success {
            self.extensions.insert(GaveUp);
        }
    }
}

impl Drop for Original<'_> {
    fn drop(&mut self) {
        self.retry();
    }
}

/// Left in the extensions of a request that was given up, so that a further `Resilient` around
/// this one does not multiply its attempts.
#[derive(Clone, Copy)]
struct GaveUp;

/// In the extensions of attempts that race with hedges: a further `Resilient` inside does not hedge
/// them again.
#[derive(Clone, Copy)]
struct Hedged;
