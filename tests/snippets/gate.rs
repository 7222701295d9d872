use reqwest_resilient::{ConfigError, ResilientConfig};

/// A server with a limit for each route, asked with one credential: a limit of searches stops no order.
fn per_route() -> Result<ResilientConfig, ConfigError> {
    ResilientConfig::builder()
        .gate_per_key(|request| {
            let route = request.url().path_segments().and_then(|mut it| it.next());
            route.unwrap_or_default().to_owned()
        })
        .build()
}
