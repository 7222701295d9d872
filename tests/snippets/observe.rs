use reqwest_resilient::telemetry::{MetricsObserver, TracingObserver};
use reqwest_resilient::{ConfigError, ResilientConfig};

fn config() -> Result<ResilientConfig, ConfigError> {
    let metrics = MetricsObserver::new().client("payments").label("region", "eu");
    ResilientConfig::builder().observer(TracingObserver::new()).observer(metrics).build()
}
