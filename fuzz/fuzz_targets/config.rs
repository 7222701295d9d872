//! Whatever is written in a configuration, it is read or refused, and in every format alike.
//!
//! Inputs are text, read as TOML, as JSON, and line by line as variables of the environment.
#![no_main]

use reqwest_resilient::ResilientConfig;
use reqwest_resilient::file::RawConfig;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(raw) = toml::from_str::<RawConfig>(text) {
        let built = check(&raw);
        assert_eq!(toml::from_str::<ResilientConfig>(text).is_ok(), built);
        // A tree of TOML has no numbers above those of a `u64`, and JSON no infinity.
        let tree = toml::from_str::<toml::Value>(text).ok();
        let json = tree.and_then(|it| serde_json::to_string(&it).ok());
        let json = json.and_then(|it| serde_json::from_str(&it).ok());
        if let Some(again) = json.filter(|_| raw == raw.clone()) {
            assert_eq!((&again, check(&again)), (&raw, built));
        }
    }
    if let Ok(raw) = serde_json::from_str::<RawConfig>(text) {
        let built = check(&raw);
        assert_eq!(serde_json::from_str::<ResilientConfig>(text).is_ok(), built);
    }
    let variables = text.lines().filter_map(|it| it.split_once('='));
    let raw = RawConfig::from_env("X_", variables.clone());
    let built = check(&raw);
    // Without a variable of the prefix it is a mistake.
    let any = variables.clone().any(|(name, _)| name.starts_with("X_"));
    assert_eq!(ResilientConfig::from_env("X_", variables).is_ok(), built && any);
});

/// Whether these settings can be.
fn check(raw: &RawConfig) -> bool {
    let twice = raw.clone().over(raw.clone());
    // What is no number equals not even itself.
    assert!(twice == *raw || *raw != raw.clone(), "{twice:?} {raw:?}");
    match raw.build() {
        Ok(config) => {
            assert!(!format!("{config:?}").is_empty());
            assert!(config.to_builder().build().is_ok(), "{config:?} from {raw:?}");
            true
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!error.faults().is_empty());
            assert!(error.faults().iter().all(|it| text.contains(&it.to_string())), "{text}");
            false
        }
    }
}
