//! Properties of any settings, any request and any server.

mod case;
mod story;

use std::time::Duration;

use case::case;
use proptest::prelude::*;
use reqwest_resilient::{Backoff as _, RetryAfter, WaitSource};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn attempts_are_at_most_one_more_than_retries(case in case()) {
        prop_assert!(case.play().sends <= case.retries() as usize + 1);
    }

    #[test]
    fn no_sleep_ends_past_the_deadline(case in case()) {
        let Some(total) = case.total() else { return Ok(()) };
        let story = case.play();
        for step in &story.steps {
            if let Some(wait) = &step.wait {
                prop_assert!(step.ended + wait.length < total, "{step:?}");
            }
        }
        // The timer's tick comes on top.
        prop_assert!(story.took <= total + Duration::from_millis(1));
    }

    #[test]
    fn what_may_have_been_processed_is_not_repeated_unasked(case in case()) {
        let case = case.guarded();
        for step in case.play().steps.iter().filter(|it| it.wait.is_some()) {
            prop_assert!(step.was_not_processed(), "{step:?}");
        }
    }

    #[test]
    fn every_wait_keeps_to_the_hint_and_to_the_cap(case in case()) {
        for step in case.play().steps {
            let Some(wait) = &step.wait else { continue };
            let cap = case.max_wait().min(match wait.source {
                WaitSource::Backoff => case.backoff().max_delay().unwrap_or(Duration::MAX),
                _ => Duration::MAX,
            });
            let hint = step.hint.and_then(|it| match case.settings.retry_after {
                RetryAfter::Ignored => None,
                RetryAfter::Capped(most) => Some(it.min(most).min(case.max_wait())),
                _ => Some(it),
            });
            // The spread comes on top.
            let hint_or_cap = cap.max(hint.unwrap_or_default());
            let spread = (hint_or_cap / 4).clamp(Duration::from_millis(250), Duration::from_secs(5));
            let longest = match &wait.source {
                WaitSource::Gate => Duration::from_secs(30) + spread,
                WaitSource::Hint(_) => hint_or_cap + spread,
                _ => hint_or_cap,
            };
            prop_assert!(wait.length <= longest, "{step:?}");
            prop_assert!(wait.length >= hint.unwrap_or_default(), "{step:?}");
            prop_assert!(wait.slept + Duration::from_nanos(1) > wait.length, "{step:?}");
        }
    }

    #[test]
    fn callbacks_add_up_to_the_attempts(case in case()) {
        let story = case.play();
        prop_assert_eq!(story.requests, story.sends);
        prop_assert_eq!(story.retries, story.sends.saturating_sub(1));
    }

    /// The fast path of an unobserved success at the first attempt has the same result.
    #[test]
    fn who_watches_changes_nothing(case in case()) {
        let case = case.unasked();
        prop_assert_eq!(case.repeated(false), case.repeated(true));
    }

    #[test]
    fn one_end_is_reported(case in case()) {
        let story = case.play();
        prop_assert_eq!((story.successes, story.failures), match story.succeeded {
            true => (1, 0),
            false => (0, 1),
        });
    }
}
