use reqwest_resilient::{ConfigError, ResilientHandle};

fn retry_once(handle: &ResilientHandle) -> Result<(), ConfigError> {
    handle.reload_with(|current| current.to_builder().max_retries(1).build())
}
