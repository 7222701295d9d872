//! Detection of redirects that the client follows while it sends a request.
//!
//! A failure on a later hop does not show them: reqwest puts the original URL on the error of every
//! hop. Yet a POST that got a 303 on its first hop may have taken effect, though the second host
//! refused the connection.
//!
//! A client of [`ResilientClient`](crate::ResilientClient) has the [`policy`], which notes every
//! redirect that it follows. In any other client one sign is visible from outside: code that
//! follows a redirect inside the client sets up the next hop and wakes its own task, from within
//! its own poll and by reference. Other wakes come from another task, or by value. A false sign
//! costs a POST its retry; it never sends one twice.

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};

use reqwest::redirect::Policy;

use crate::common::lock::lock;

thread_local! {
    /// The attempt that is being polled on this thread.
    static POLLED: RefCell<Option<Arc<Note>>> = const { RefCell::new(None) };
}

/// Returns reqwest's own redirect policy, which also notes every redirect on the attempt under way.
pub(crate) fn policy() -> Policy {
    Policy::custom(|attempt| {
        let note = POLLED.with(|it| it.borrow().clone());
        if let Some(note) = note {
            lock(&note.0).followed = true;
        }
        Policy::default().redirect(attempt)
    })
}

/// Returns the future's output, and whether it followed a redirect on the way. `is_own_client` is
/// set if the client has the [`policy`], so that wakes need not be watched.
pub(crate) async fn watch<F: Future>(sent: F, is_own_client: bool) -> (F::Output, bool) {
    let note = Arc::<Note>::default();
    let waker = Waker::from(Arc::clone(&note));
    let mut sent = pin!(sent);
    let output = std::future::poll_fn(|cx| {
        let _polled = Polled::enter(&note);
        match is_own_client {
            true => sent.as_mut().poll(cx),
            false => note.poll(sent.as_mut(), &waker, cx),
        }
    })
    .await;
    let followed = lock(&note.0).followed;
    (output, followed)
}

/// Sets the attempt that is being polled on this thread, until dropped.
struct Polled(Option<Arc<Note>>);

impl Polled {
    fn enter(note: &Arc<Note>) -> Self {
        Self(POLLED.with(|it| it.replace(Some(Arc::clone(note)))))
    }
}

impl Drop for Polled {
    fn drop(&mut self) {
        let outer = self.0.take();
        POLLED.with(|it| it.replace(outer));
    }
}

/// A waker between a future and its task.
#[derive(Default)]
struct Note(Mutex<Noted>);

#[derive(Default)]
struct Noted {
    task: Option<Waker>,
    polled_on: Option<ThreadId>,
    followed: bool,
}

impl Note {
    fn poll<F: Future>(
        &self,
        sent: Pin<&mut F>,
        waker: &Waker,
        cx: &Context<'_>,
    ) -> Poll<F::Output> {
        {
            let mut noted = lock(&self.0);
            noted.polled_on = Some(thread::current().id());
            if !noted.task.as_ref().is_some_and(|it| it.will_wake(cx.waker())) {
                noted.task = Some(cx.waker().clone());
            }
        }
        let polled = sent.poll(&mut Context::from_waker(waker));
        lock(&self.0).polled_on = None;
        polled
    }
}

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        // The task is woken with the lock released: a wake runs foreign code.
        let task = lock(&self.0).task.clone();
        if let Some(task) = task {
            task.wake();
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let here = Some(thread::current().id());
        let mut noted = lock(&self.0);
        noted.followed |= noted.polled_on == here;
        drop(noted);
        Arc::clone(self).wake();
    }
}
