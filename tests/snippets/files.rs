use reqwest_resilient::file::RawConfig;
use reqwest_resilient::{ConfigError, ResilientConfig, ResilientHandle};

/// What the program knows, under the file, under variables such as `ORDERS_HTTP_MAX_RETRIES=1`.
fn settings(file: RawConfig, code: &ResilientConfig) -> Result<ResilientConfig, ConfigError> {
    RawConfig::from_env("ORDERS_HTTP_", std::env::vars()).over(file).over_config(code)
}

/// The file has changed. An invalid one changes nothing.
fn reload(
    handle: &ResilientHandle,
    file: RawConfig,
    code: &ResilientConfig,
) -> Result<(), ConfigError> {
    handle.reload(settings(file, code)?);
    Ok(())
}
