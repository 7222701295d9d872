//! Bodies with a fault, for [`Chaos`](crate::testing::Chaos) and [`Script`](crate::testing::Script).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{io, time::Duration};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use reqwest::Body;
use tokio::time::Sleep;

use crate::common::clock::Instant;

/// The longest that a slow body takes.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// A fault of a body; a number is an offset, or bytes per second.
#[derive(Clone, Copy)]
pub(crate) enum BodyFault {
    Cut(u64),
    Slow(u64),
    Corrupt(u64),
    Stall(u64),
}

/// A body with a fault.
pub(crate) struct FaultyBody {
    inner: Body,
    fault: BodyFault,
    passed: u64,
    /// `true` if bytes were taken away: more is missing than `inner` knows.
    is_cut: bool,
    start: Instant,
    /// A chunk, and the wait until it may be passed on.
    held: Option<(Bytes, Pin<Box<Sleep>>)>,
}

impl FaultyBody {
    /// Puts a fault into a body.
    pub(crate) fn new(inner: Body, fault: BodyFault) -> Self {
        Self { inner, fault, passed: 0, is_cut: false, start: Instant::now(), held: None }
    }

    /// Cuts or changes a chunk as the fault says.
    fn change(&mut self, mut data: Bytes) -> Bytes {
        let (before, length) = (self.passed, data.len() as u64);
        match self.fault {
            BodyFault::Cut(most) | BodyFault::Stall(most) => {
                let left = most.saturating_sub(before);
                self.is_cut |= length > left;
                data.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            }
            BodyFault::Corrupt(offset) => {
                let at = offset.checked_sub(before).filter(|it| *it < length);
                if let Some(at) = at.and_then(|it| usize::try_from(it).ok()) {
                    let mut changed = data.to_vec();
                    changed[at] ^= 0xff;
                    data = changed.into();
                }
            }
            BodyFault::Slow(_) => {}
        }
        self.passed += data.len() as u64;
        data
    }

    /// Returns the time at which all that has passed may have passed; `None` if that is now.
    fn due(&self) -> Option<Instant> {
        let BodyFault::Slow(rate) = self.fault else { return None };
        let since = Duration::try_from_secs_f64(self.passed as f64 / rate as f64);
        self.start.checked_add(since.unwrap_or(LONGEST))
    }
}

impl http_body::Body for FaultyBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            if let Some((_, sleep)) = &mut self.held {
                ready!(sleep.as_mut().poll(cx));
            }
            if let Some((data, _)) = self.held.take() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            match self.fault {
                BodyFault::Cut(_) if self.is_cut => {
                    let error = io::Error::from(io::ErrorKind::ConnectionReset);
                    return Poll::Ready(Some(Err(error.into())));
                }
                BodyFault::Stall(_) if self.is_cut => return Poll::Pending,
                _ => {}
            }
            let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(frame)) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            let data = self.change(data);
            match self.due() {
                Some(due) => self.held = Some((data, Box::pin(tokio::time::sleep_until(due)))),
                None if data.is_empty() => {}
                None => return Poll::Ready(Some(Ok(Frame::data(data)))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && !self.is_cut && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
