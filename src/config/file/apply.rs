//! Makes settings of the values that were read.

use std::sync::Arc;

use crate::common::fault::ConfigFault;
use crate::config::file::parts::Parts;
use crate::config::file::value::{Table, Value, get, get_table};
use crate::config::overrides::RetryOverride;
use crate::config::{ResilientConfig, ResilientConfigBuilder};

/// Builds what `table` makes of `base`, and adds to `faults` what only shows where values meet.
pub(super) fn builder(
    table: &Table,
    base: &ResilientConfig,
    faults: &mut Vec<ConfigFault>,
) -> ResilientConfigBuilder {
    let preset = preset(table, faults);
    let base = preset.map_or_else(|| base.clone(), |it| it.with_code_of(base));
    let mut general = Parts::of(base.policy());
    let settings = general.apply(table, "", faults);
    let limits = settings.clone().into_patch();
    let mut builder = base.to_builder().settings(settings);
    if let Some(Value::Whole(hosts)) = get(table, "max_hosts") {
        builder = builder.max_hosts(usize::try_from(*hosts).unwrap_or(usize::MAX));
    }
    for (name, value) in get_table(table, "hosts") {
        let Value::Table(table) = value else { continue };
        let mut patch = base.policy().patch_of(name).unwrap_or_default();
        let mut parts = general.clone().patched(&patch);
        let path = format!("hosts.{name:?}.");
        let own = parts.apply(table, &path, faults).into_patch();
        parts.check_shared(&general, table, &path, faults);
        let changed = Arc::make_mut(&mut patch);
        changed.shorten(&own, &limits);
        changed.set_all(&own);
        builder = builder.host(name, RetryOverride::of_patch(patch));
    }
    builder
}

/// Returns the preset to start from, if one is named. A service has no deadline of its own:
/// `max_total_time` is it.
fn preset(table: &Table, faults: &mut Vec<ConfigFault>) -> Option<ResilientConfig> {
    Some(match (get(table, "preset")?, get(table, "max_total_time")) {
        (Value::Word("aresilient"), _) => ResilientConfig::aresilient(),
        (Value::Word("batch"), _) => ResilientConfig::batch(),
        (Value::Word("plain"), _) => ResilientConfig::plain(),
        (Value::Word("service"), Some(Value::Time(it))) => ResilientConfig::service(*it),
        (Value::Word("service"), _) => {
            let rule = "needs max_total_time, its deadline";
            faults.push(ConfigFault::new("preset", rule, "service"));
            ResilientConfig::default()
        }
        _ => ResilientConfig::default(),
    })
}
