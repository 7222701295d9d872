use reqwest_resilient::{ConfigError, Event, ResilientConfig};

/// A line for each request that was given up, and for each change of a breaker.
fn quiet() -> Result<ResilientConfig, ConfigError> {
    ResilientConfig::builder()
        .on_event(|event| match event {
            Event::GaveUp(_) | Event::BreakerChanged(_) => eprintln!("{event}"),
            _ => {}
        })
        .build()
}
