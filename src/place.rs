//! A box that is there before the future is which it is for: `Box::pin` would have it made on the
//! stack, and then move all of it, with the room for what it does not hold yet.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

/// Room for a future.
#[derive(Debug)]
pub struct Place<F>(Box<Placed<F>>);

pin_project! {
    /// A future that is where it was made.
    #[derive(Debug)]
    pub struct Placed<F> {
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

impl<F> Place<F> {
    /// The future, boxed.
    ///
    /// Inlined, because the future is made by the caller; and nothing is dropped, because the
    /// compiler would keep the future aside meanwhile.
    #[inline(always)]
    pub fn fill(mut self, future: F) -> Pin<Box<Placed<F>>> {
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
            // It was filled before anybody could poll it.
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, task::Waker};

    use super::*;

    #[test]
    fn a_future_runs_where_it_was_made_and_is_dropped_once() {
        let kept = Arc::new(());
        let held = Arc::clone(&kept);
        let mut future = Place::default().fill(async move {
            tokio::task::yield_now().await;
            Arc::strong_count(&held)
        });
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(future.as_mut().poll(&mut context), Poll::Pending);
        assert_eq!(Arc::strong_count(&kept), 2);
        assert_eq!(future.as_mut().poll(&mut context), Poll::Ready(2));
        drop(future);
        assert_eq!(Arc::strong_count(&kept), 1);
        drop(Place::<()>::default());
    }
}
