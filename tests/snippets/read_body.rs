use reqwest_resilient::{ConfigError, ResilientConfig, RetryVerdict};

fn s3() -> Result<ResilientConfig, ConfigError> {
    ResilientConfig::builder()
        .read_body(64 * 1024)
        .retry_if(|outcome| {
            let is_error = |body: &[u8]| body.windows(7).any(|it| it == b"<Error>");
            match outcome.status() {
                Some(status) if status.is_success() && outcome.body().is_some_and(is_error) => {
                    RetryVerdict::Retry
                }
                _ => outcome.default_verdict(),
            }
        })
        .build()
}
