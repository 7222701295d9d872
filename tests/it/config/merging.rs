//! Keys of one table that meet each other, and what a table inherits: no order of keys matters, and no
//! value is to blame that was not written.

use reqwest_resilient::file::RawConfig;
use reqwest_resilient::{
    BreakerConfig, CircuitBreaker, ResilientConfig, ResilientConfigBuilder, RetryOverride,
};

fn builder() -> ResilientConfigBuilder {
    ResilientConfig::builder()
}

fn shown(config: &ResilientConfig) -> String {
    format!("{config:#?}")
}

/// Returns the files in TOML and JSON that hold these lines in this table, in both orders. A value has
/// the same spelling in both formats.
fn files(table: &str, lines: [(&str, &str); 2]) -> Vec<RawConfig> {
    let [one, other] = lines;
    [[one, other], [other, one]]
        .into_iter()
        .flat_map(|lines| {
            let toml = lines.map(|(key, value)| format!("{key} = {value}")).join("\n");
            let json = lines.map(|(key, value)| format!("{key:?}: {value}")).join(", ");
            [
                toml::from_str(&format!("[{table}]\n{toml}")).unwrap(),
                serde_json::from_str(&format!("{{{table:?}: {{{json}}}}}")).unwrap(),
            ]
        })
        .collect()
}

#[test]
fn off_ends_the_rule_on_failures_in_a_row_of_its_own_name_alone() {
    let three = || 3.try_into().unwrap();
    let always = BreakerConfig::default().or_consecutive(three());
    let while_few = BreakerConfig::default().or_consecutive_while_few(three());
    for (kept, ended, config) in [
        ("consecutive", "consecutive_while_few", always),
        ("consecutive_while_few", "consecutive", while_few),
    ] {
        let breaker = || CircuitBreaker::per_host(config.clone());
        let expected = shown(&builder().circuit_breaker(breaker()).build().unwrap());
        for file in files("circuit_breaker", [(kept, "3"), (ended, "false")]) {
            assert_eq!(shown(&file.build().unwrap()), expected, "{file:?}");
        }
        let of_host = |own: BreakerConfig| {
            let own = RetryOverride::new().circuit_breaker(CircuitBreaker::per_host(own));
            shown(&builder().circuit_breaker(breaker()).host("a", own).build().unwrap())
        };
        for (key, own) in [(ended, config.clone()), (kept, BreakerConfig::default())] {
            let text = format!("circuit_breaker.{kept} = 3\nhosts.a.circuit_breaker.{key} = 'off'");
            assert_eq!(shown(&super::read(&text)), of_host(own), "{text}");
        }
    }
}
