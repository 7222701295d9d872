//! Whether the client followed a redirect while it sent a request.
//!
//! What failed on a later hop says nothing of it: reqwest puts the url that was asked on the error
//! of every hop. Yet a POST whose first hop was answered by 303 may have taken effect, though the
//! second host refused the connection.
//!
//! A client that was built by [`ResilientClient`](crate::ResilientClient) has the [`policy`], which
//! notes every redirect that it follows. In any other client one thing shows from outside: whoever
//! follows a redirect inside the client sets up the next hop and wakes its own task, from within its
//! own poll and by reference, to be polled again. What wakes a task for other reasons does it from
//! another task, or by value. Whoever else did it would cost a POST its retry, not its singleness.

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};

use reqwest::redirect::Policy;

thread_local! {
    /// The attempt that is being polled on this thread.
    static POLLED: RefCell<Option<Arc<Note>>> = const { RefCell::new(None) };
}

/// Returns reqwest's own redirect policy, which tells the attempt under way of every redirect.
pub(crate) fn policy() -> Policy {
    Policy::custom(|attempt| {
        let note = POLLED.with(|it| it.borrow().clone());
        if let Some(note) = note {
            note.lock().followed = true;
        }
        Policy::default().redirect(attempt)
    })
}

/// The future's output, and whether it followed a redirect on the way.
pub(crate) async fn watch<F: Future>(sent: F) -> (F::Output, bool) {
    let note = Arc::<Note>::default();
    let waker = Waker::from(Arc::clone(&note));
    let mut sent = pin!(sent);
    let output = std::future::poll_fn(|cx| {
        let _polled = Polled::enter(&note);
        note.poll(sent.as_mut(), &waker, cx)
    })
    .await;
    let followed = note.lock().followed;
    (output, followed)
}

/// Names the attempt that is being polled on this thread, for as long as it is.
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

/// Stands between a future and the waker of its task.
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
            let mut noted = self.lock();
            noted.polled_on = Some(thread::current().id());
            if !noted.task.as_ref().is_some_and(|it| it.will_wake(cx.waker())) {
                noted.task = Some(cx.waker().clone());
            }
        }
        let polled = sent.poll(&mut Context::from_waker(waker));
        self.lock().polled_on = None;
        polled
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        // The task is woken with the lock released: what it does is its own affair.
        let task = self.lock().task.clone();
        if let Some(task) = task {
            task.wake();
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let here = Some(thread::current().id());
        let mut noted = self.lock();
        noted.followed |= noted.polled_on == here;
        drop(noted);
        Arc::clone(self).wake();
    }
}
