//! The errors that a download ends with.

use crate::client::download::broken::Broken;
use crate::client::download::error::{Cause, DownloadError, DownloadErrorKind, Inner};
use crate::client::download::representation::NotResumable;
use crate::client::download::session::Session;
use crate::error::HttpRequestError;
use crate::retry::decision::StopReason;

impl Session {
    /// Builds the error of this download at its present offset.
    pub(crate) fn error(&self, kind: DownloadErrorKind, cause: Cause) -> DownloadError {
        DownloadError::new(Inner {
            kind,
            url: Some(self.url().clone()),
            redact_path: self.context().redact_path(),
            offset: self.received,
            validator: self.validator(),
            is_resumable: self.representation.validator.is_ok(),
            restarted: (self.counts.restarts > 0)
                .then(|| self.representation.validator.as_ref().err().copied())
                .flatten(),
            resumes: self.counts.resumes,
            histories: self.sender.histories.clone(),
            cause,
        })
    }

    pub(super) fn request_failed(&self, error: HttpRequestError) -> DownloadError {
        let kind = match error.stop_reason() {
            StopReason::Deadline => DownloadErrorKind::Deadline,
            _ => DownloadErrorKind::Request,
        };
        self.error(kind, Cause::Request(error))
    }

    pub(super) fn cannot_resume(&self, why: NotResumable, broken: Broken) -> DownloadError {
        let kind = match broken {
            Broken::Stall(_) => DownloadErrorKind::Stalled,
            _ => DownloadErrorKind::NotResumable(why),
        };
        self.error(kind, broken.cause())
    }
}
