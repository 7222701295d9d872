//! A box that is made before the future that goes into it.
//!
//! `Box::pin` makes the future first, on the stack, because the allocation could unwind and then
//! has to drop it; and moves all of it afterwards, with the room for what it does not hold yet.
//! From Rust 1.87 on, `Box::write` does what this file does.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

/// Room for a future. To be made before the future is.
#[derive(Debug)]
pub struct Place<F>(Box<Placed<F>>);

pin_project! {
    #[derive(Debug)]
    struct Placed<F> {
        #[pin]
        future: Option<F>,
    }
}

impl<F> Default for Place<F> {
    #[inline]
    fn default() -> Self {
        // Unlike `Box::new`, this writes into the box and not beside it.
        Self(Box::default())
    }
}

impl<F> Default for Placed<F> {
    #[inline]
    fn default() -> Self {
        Self { future: None }
    }
}

impl<F: Future> Place<F> {
    /// The future, boxed.
    ///
    /// Inlined, because the future is made by the caller.
    #[inline(always)]
    pub fn fill(mut self, future: F) -> Pin<Box<impl Future<Output = F::Output>>> {
        // What it replaces is `None`. To drop that could unwind for all the compiler knows, and it
        // would keep the future aside meanwhile.
        mem::forget(self.0.future.replace(future));
        Box::into_pin(self.0)
    }
}

impl<F: Future> Future for Placed<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().future.as_pin_mut() {
            Some(future) => future.poll(context),
            // It is not given away before it is filled.
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc, task::Waker};

    use super::*;

    #[test]
    fn a_future_runs_in_its_place_and_is_dropped_with_it() {
        let kept = Arc::new(());
        let waits = |held: Arc<()>| async move {
            tokio::task::yield_now().await;
            let count = Arc::strong_count(&held);
            pending::<()>().await;
            count
        };
        let mut context = Context::from_waker(Waker::noop());
        drop(Place::default().fill(waits(Arc::clone(&kept))));
        assert_eq!(Arc::strong_count(&kept), 1, "never polled");
        let mut future = Place::default().fill(waits(Arc::clone(&kept)));
        for _ in 0..2 {
            assert!(future.as_mut().poll(&mut context).is_pending());
            assert_eq!(Arc::strong_count(&kept), 2);
        }
        drop(future);
        assert_eq!(Arc::strong_count(&kept), 1, "dropped while it waits");
        let mut future = Place::default().fill(async { 7 });
        assert_eq!(future.as_mut().poll(&mut context), Poll::Ready(7));
    }
}
