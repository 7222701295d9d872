//! Lets a runtime do the work while the calling thread waits.

use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::{error::Error, fmt};

use tokio::runtime::{Handle, Runtime, RuntimeFlavor};
use tokio::task::JoinHandle;
#[cfg(feature = "tracing")]
use tracing::instrument::{Instrument, WithSubscriber};

use crate::common::fault::BuildError;

/// More than the budget of any task of tokio (128): see [`DriveError::AsyncContext`].
const MORE_THAN_A_BUDGET: u32 = 1_024;

/// Why a blocking call could not be made. Nothing was sent by this call, or its result is lost.
///
/// # Examples
///
/// ```
/// use std::error::Error;
/// use reqwest_resilient::blocking::{DriveError, ResilientClient};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn Error>> {
/// let client = ResilientClient::builder().build()?;
/// let error = client.get("https://example.com/").send_resilient().unwrap_err();
/// let why = error.source().and_then(|it| it.downcast_ref());
/// assert_eq!(why, Some(&DriveError::AsyncContext));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DriveError {
    /// Called from async code, whose thread would be blocked, and other tasks with it. Use
    /// [`crate::ResilientClient`] there, or call from within `tokio::task::spawn_blocking`.
    AsyncContext,
    /// The runtime whose handle was given has been shut down. Keep it as long as its client.
    RuntimeStopped,
    /// The response is not one of a blocking client, whose runtime would read it.
    NotBlocking,
}

impl fmt::Display for DriveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AsyncContext => {
                "blocking call from async code: use the async client here, or make the call \
                 within tokio::task::spawn_blocking"
            }
            Self::RuntimeStopped => {
                "the runtime of the blocking client has been shut down: keep it as long as the \
                 client"
            }
            Self::NotBlocking => {
                "the response is not one of a blocking client: read it by the async methods"
            }
        })
    }
}

impl Error for DriveError {}

/// The runtime that drives a client, its requests and its responses; lives as long as the last.
#[derive(Clone, Debug)]
pub(super) struct Driver(Arc<Drives>);

#[derive(Debug)]
enum Drives {
    Given(Handle),
    Own(Option<Runtime>),
}

impl Driver {
    /// A runtime of its own, with one thread: requests wait for servers, not for processors.
    pub(super) fn own() -> Result<Self, BuildError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("reqwest-resilient")
            .enable_all()
            .build()
            .map_err(BuildError::Runtime)?;
        Ok(Self(Arc::new(Drives::Own(Some(runtime)))))
    }

    pub(super) fn given(handle: Handle) -> Result<Self, BuildError> {
        match handle.runtime_flavor() {
            RuntimeFlavor::CurrentThread => Err(BuildError::CurrentThread),
            _ => Ok(Self(Arc::new(Drives::Given(handle)))),
        }
    }

    /// Runs the future to its end.
    ///
    /// It runs as a task rather than by `Handle::block_on`, which panics within async code, and
    /// whose timers panic once the runtime has been shut down; a task is dropped then.
    pub(super) fn run<F>(&self, future: F) -> Result<F::Output, DriveError>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        self.finish(self.start(future)?)
    }

    /// Returns an error if the caller may not wait in this place.
    pub(super) fn check(&self) -> Result<(), DriveError> {
        if is_async_context() { Err(DriveError::AsyncContext) } else { Ok(()) }
    }

    /// Starts a future that the caller means to wait for, in this place.
    pub(super) fn start<F>(&self, future: F) -> Result<JoinHandle<F::Output>, DriveError>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        self.check()?;
        // A task has neither the span nor the subscriber of the thread that waits for it.
        #[cfg(feature = "tracing")]
        let future = future.in_current_span().with_current_subscriber();
        match &*self.0 {
            Drives::Given(handle) => Ok(handle.spawn(future)),
            Drives::Own(Some(runtime)) => Ok(runtime.spawn(future)),
            Drives::Own(None) => Err(DriveError::RuntimeStopped),
        }
    }

    /// Waits for what was started.
    pub(super) fn finish<T>(&self, task: JoinHandle<T>) -> Result<T, DriveError> {
        wait(task).map_err(|error| match error.try_into_panic() {
            // The caller's own code, such as `retry_if`: as if it had been called here.
            Ok(panic) => resume_unwind(panic),
            Err(_) => DriveError::RuntimeStopped,
        })
    }
}

impl Drop for Drives {
    fn drop(&mut self) {
        if let Self::Own(runtime) = self {
            // A plain drop would wait for the runtime's threads, and panic within async code.
            runtime.take().into_iter().for_each(Runtime::shutdown_background);
        }
    }
}

/// Returns whether this thread runs a task, which blocking would hold up, and others with it.
///
/// Being within a runtime says nothing: `spawn_blocking` is, too, and there blocking is welcome.
/// But every task has a budget, which runs out, and a thread that may block has none.
fn is_async_context() -> bool {
    let mut context = Context::from_waker(Waker::noop());
    let mut spends = || pin!(tokio::task::consume_budget()).poll(&mut context).is_ready();
    Handle::try_current().is_ok() && !(0..MORE_THAN_A_BUDGET).all(|_| spends())
}

/// Lets this thread sleep until the future is done; it must be one that others drive.
pub(super) fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Arc::new(Unpark(thread::current())).into();
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}
