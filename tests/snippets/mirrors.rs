use reqwest_resilient::{ConfigError, Mirrors, ResilientConfig};

fn config() -> Result<ResilientConfig, ConfigError> {
    // A request to index.crates.io goes to mirror.example while index.crates.io does not work.
    let index = Mirrors::new("https://index.crates.io/").also("https://mirror.example/crates/");
    ResilientConfig::builder().mirrors(index).build()
}
