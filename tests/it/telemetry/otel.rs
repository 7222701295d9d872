//! The spans that arrive at an OpenTelemetry backend.

use opentelemetry::trace::{SpanKind, TracerProvider as _};
use opentelemetry::{Key, Value};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use reqwest::{Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use reqwest_resilient::telemetry::{AttemptSpan, TracingObserver};
use reqwest_resilient::{ResendCount, Resilient};
use reqwest_tracing::{
    ReqwestOtelSpanBackend, TracingMiddleware, default_on_request_end, reqwest_otel_span,
};
use tracing_subscriber::layer::SubscriberExt as _;

use super::{SECOND, steady};
use crate::support::reply::{End, Fault, Reply};
use crate::support::server::Server;

/// The spans of one request to a server that fails twice, which is sent through `client`.
fn spans_of(client: impl FnOnce() -> ClientWithMiddleware) -> (Vec<SpanData>, Server) {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    // hyper and the runtime have spans of their own at trace.
    let filter = tracing_subscriber::filter::LevelFilter::INFO;
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    let server = Server::h1([
        Reply::status(503).into(),
        Fault::Unanswered(End::Reset).into(),
        Reply::status(200).into(),
    ]);
    tracing::subscriber::with_default(subscriber, || {
        let client = client();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let response = runtime.block_on(client.get(server.url("/a?token=hunter2")).send()).unwrap();
        assert_eq!(response.status(), 200);
    });
    (exporter.get_finished_spans().unwrap(), server)
}

fn resilient(span: AttemptSpan) -> Resilient {
    let observer = TracingObserver::new().span(span);
    let config = steady().backoff(|_| SECOND / 100).observer(observer);
    Resilient::new(config.build().unwrap())
}

fn value(span: &SpanData, key: &'static str) -> Option<Value> {
    span.attributes.iter().find(|it| it.key == Key::new(key)).map(|it| it.value.clone())
}

fn resend_counts(spans: &[&SpanData]) -> Vec<Option<i64>> {
    let count = |it: &&SpanData| match value(it, "http.request.resend_count")? {
        Value::I64(count) => Some(count),
        other => panic!("{other:?}"),
    };
    spans.iter().map(count).collect()
}

fn clients(spans: &[SpanData]) -> Vec<&SpanData> {
    spans.iter().filter(|it| it.span_kind == SpanKind::Client).collect()
}

#[test]
fn one_client_span_per_attempt() {
    let (spans, server) = spans_of(|| {
        ClientBuilder::new(crate::support::idle_client())
            .with(resilient(AttemptSpan::Client))
            .build()
    });
    let clients = clients(&spans);
    assert_eq!((spans.len(), clients.len(), server.requests()), (3, 3, 3));
    assert_eq!(resend_counts(&clients), [None, Some(1), Some(2)]);
    let text = |it: &SpanData, key| value(it, key).map(|it| it.as_str().into_owned());
    for span in &clients {
        assert_eq!(span.name, "GET");
        assert_eq!(text(span, "http.request.method").as_deref(), Some("GET"));
        assert_eq!(text(span, "server.address").as_deref(), Some("127.0.0.1"));
        assert_eq!(value(span, "server.port"), Some(Value::I64(server.addr().port().into())));
        assert_eq!(text(span, "url.full"), Some(server.url("/a")));
    }
    let errors: Vec<_> = clients.iter().map(|it| text(it, "error.type")).collect();
    assert_eq!(errors, [Some("503".to_owned()), Some("disconnect".to_owned()), None]);
    let failed = |it: &&SpanData| matches!(it.status, opentelemetry::trace::Status::Error { .. });
    assert_eq!(clients.iter().map(failed).collect::<Vec<_>>(), [true, true, false]);
    let statuses: Vec<_> =
        clients.iter().map(|it| value(it, "http.response.status_code")).collect();
    assert_eq!(statuses, [Some(Value::I64(503)), None, Some(Value::I64(200))]);
}

/// reqwest-tracing's own span, and the count that it finds in the extensions.
struct WithResendCount;

impl ReqwestOtelSpanBackend for WithResendCount {
    fn on_request_start(request: &Request, extensions: &mut http::Extensions) -> tracing::Span {
        let resend_count = extensions.get::<ResendCount>().map(|it| i64::from(it.get()));
        reqwest_otel_span!(
            name = request.method().as_str(),
            request,
            http.request.resend_count = resend_count
        )
    }

    fn on_request_end(
        span: &tracing::Span,
        outcome: &reqwest_middleware::Result<Response>,
        _: &mut http::Extensions,
    ) {
        default_on_request_end(span, outcome);
    }
}

#[test]
fn with_reqwest_tracing_inside_its_span_is_the_only_client_span() {
    for (ours, spans_of_ours) in [(AttemptSpan::Internal, 3), (AttemptSpan::Off, 0)] {
        let (spans, server) = spans_of(|| {
            ClientBuilder::new(crate::support::idle_client())
                .with(resilient(ours))
                .with(TracingMiddleware::<WithResendCount>::new())
                .build()
        });
        let clients = clients(&spans);
        assert_eq!((clients.len(), server.requests()), (3, 3), "{ours:?}");
        assert_eq!(spans.len() - clients.len(), spans_of_ours, "{ours:?}");
        assert_eq!(resend_counts(&clients), [None, Some(1), Some(2)], "{ours:?}");
        for client in clients {
            let parent = spans.iter().find(|it| it.span_context.span_id() == client.parent_span_id);
            assert_eq!(parent.is_some(), ours == AttemptSpan::Internal);
        }
        // The server gets the trace of the attempt that reached it.
        assert!(server.seen().iter().all(|it| it.header("authorization").is_none()));
    }
}
