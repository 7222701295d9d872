//! The events of one request, by every kind of listener.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use reqwest_resilient::{Delivery, Event, ResilientConfigBuilder, WaitSource};
use tokio::time::Instant;

use super::case::Case;

/// The events of one case.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) steps: Vec<Step>,
    pub(super) sends: usize,
    pub(super) requests: usize,
    pub(super) retries: usize,
    pub(super) successes: usize,
    pub(super) failures: usize,
    pub(super) succeeded: bool,
    pub(super) took: Duration,
}

/// One attempt, and the wait after it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) ended: Duration,
    pub(super) delivery: Delivery,
    pub(super) status: Option<StatusCode>,
    pub(super) hint: Option<Duration>,
    pub(super) wait: Option<Wait>,
}

#[derive(Clone, Debug)]
pub(super) struct Wait {
    pub(super) length: Duration,
    pub(super) source: WaitSource,
    pub(super) slept: Duration,
}

impl Step {
    pub(super) fn was_not_processed(&self) -> bool {
        match self.status.map(|it| it.as_u16()) {
            Some(425 | 429) => true,
            Some(503) => self.hint.is_some(),
            Some(_) => false,
            None => matches!(self.delivery, Delivery::NotSent | Delivery::NotProcessed),
        }
    }
}

/// Listens to one request in every way there is.
#[derive(Clone)]
pub(super) struct Told {
    case: Arc<Case>,
    start: Instant,
    story: Arc<Mutex<Story>>,
}

impl Told {
    pub(super) fn new(case: Case) -> Self {
        let story = Story {
            steps: vec![],
            sends: 0,
            requests: 0,
            retries: 0,
            successes: 0,
            failures: 0,
            succeeded: false,
            took: Duration::ZERO,
        };
        Self { case: Arc::new(case), start: Instant::now(), story: Arc::new(Mutex::new(story)) }
    }

    pub(super) fn listen(&self, config: ResilientConfigBuilder) -> ResilientConfigBuilder {
        let count = |which: fn(&mut Story) -> &mut usize| {
            let story = Arc::clone(&self.story);
            move || *which(&mut story.lock().unwrap()) += 1
        };
        let (request, retry) = (count(|it| &mut it.requests), count(|it| &mut it.retries));
        let (success, failure) = (count(|it| &mut it.successes), count(|it| &mut it.failures));
        let told = self.clone();
        config
            .on_request(move |_| request())
            .on_retry(move |_| retry())
            .on_success(move |_| success())
            .on_failure(move |_| failure())
            .on_event(move |event| told.observe(event))
    }

    fn observe(&self, event: &Event<'_>) {
        let mut story = self.story.lock().unwrap();
        let now = self.start.elapsed();
        match event {
            Event::AttemptStarted(_) => {
                if let Some(Step { ended, wait: Some(wait), .. }) = story.steps.last_mut() {
                    wait.slept = now - *ended;
                }
            }
            Event::AttemptEnded(outcome) => story.steps.push(Step {
                ended: now,
                delivery: outcome.delivery(),
                status: outcome.status(),
                // A reply that was cut off said nothing.
                hint: outcome.status().and_then(|_| self.case.hint(outcome.attempt())),
                wait: None,
            }),
            Event::Waiting(info) => {
                let wait =
                    Wait { length: info.wait, source: info.source.clone(), slept: Duration::ZERO };
                story.steps.last_mut().unwrap().wait = Some(wait);
            }
            Event::Succeeded(_) => story.succeeded = true,
            _ => {}
        }
    }

    pub(super) fn story(&self, sends: usize) -> Story {
        let mut story = self.story.lock().unwrap();
        let steps = std::mem::take(&mut story.steps);
        let Story { requests, retries, successes, failures, succeeded, .. } = *story;
        let took = self.start.elapsed();
        Story { steps, sends, requests, retries, successes, failures, succeeded, took }
    }
}
