//! Sees everything that a program's telemetry would.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// Takes down spans, logs and metrics of what it runs.
#[derive(Clone, Default)]
pub(crate) struct Witness {
    lines: Arc<Mutex<Vec<Line>>>,
    recorder: Arc<DebuggingRecorder>,
}

/// A span or a log line.
struct Line {
    depth: usize,
    head: String,
    fields: String,
    is_span: bool,
}

impl Witness {
    /// Runs what `make` makes, on one thread and in virtual time.
    pub(crate) fn run<F: Future>(&self, make: impl FnOnce() -> F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        self.watch(|| {
            metrics::with_local_recorder(&*self.recorder, || {
                let future = make();
                runtime.block_on(future)
            })
        })
    }

    /// Takes down the spans and logs of what `run` does.
    pub(crate) fn watch<T>(&self, run: impl FnOnce() -> T) -> T {
        let subscriber = tracing_subscriber::registry().with(self.clone());
        tracing::subscriber::with_default(subscriber, run)
    }

    /// Spans and logs in order, indented by depth.
    pub(crate) fn lines(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        let text = |it: &Line| format!("{}{}{}", "  ".repeat(it.depth), it.head, it.fields);
        lines.iter().map(text).collect()
    }

    pub(crate) fn spans(&self, name: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|it| it.is_span && it.head == name).count()
    }

    /// Metrics in order of their names; of histograms the samples, of durations only how many.
    pub(crate) fn metrics(&self) -> Vec<String> {
        let mut metrics = BTreeMap::new();
        for (key, _, _, value) in self.recorder.snapshotter().snapshot().into_vec() {
            let key = key.key();
            let labels: Vec<_> =
                key.labels().map(|it| format!("{}={}", it.key(), it.value())).collect();
            let value = match value {
                DebugValue::Counter(count) => count.to_string(),
                DebugValue::Gauge(value) => value.to_string(),
                DebugValue::Histogram(samples) => format!("{samples:?}"),
            };
            metrics.insert(format!("{}{{{}}}", key.name(), labels.join(", ")), value);
        }
        metrics.into_iter().map(|(key, value)| format!("{key} {value}")).collect()
    }
}

/// Returns whether spans and logs of this origin are recorded.
fn is_of_interest(metadata: &tracing::Metadata<'_>) -> bool {
    ["reqwest_resilient", "inside"].contains(&metadata.target())
}

/// Where a span's line is.
struct At(usize);

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Witness {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if !is_of_interest(attributes.metadata()) {
            return;
        }
        let span = context.span(id).unwrap();
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let head = attributes.metadata().name().to_owned();
        let depth = span.scope().count() - 1;
        let mut lines = self.lines.lock().unwrap();
        span.extensions_mut().insert(At(lines.len()));
        lines.push(Line { depth, head, fields: fields.0, is_span: true });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        if let Some(At(line)) = span.extensions().get() {
            let mut fields = Fields::default();
            values.record(&mut fields);
            self.lines.lock().unwrap()[*line].fields.push_str(&fields.0);
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        if !is_of_interest(event.metadata()) {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let depth = context.event_scope(event).map_or(0, Iterator::count);
        let head = event.metadata().level().to_string();
        let line = Line { depth, head, fields: fields.0, is_span: false };
        self.lines.lock().unwrap().push(line);
    }
}

#[derive(Default)]
struct Fields(String);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        write!(self.0, " {field}={value}").unwrap();
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}
