use reqwest_resilient::fleet::{Fleet, FleetState, InProcessFleet};
use reqwest_resilient::{ConfigError, Event, Resilient, ResilientConfig};

/// A node of a fleet, which logs when it loses its store.
fn one_of_many(store: &InProcessFleet) -> Result<Resilient, ConfigError> {
    let config = ResilientConfig::builder().on_event(|event| match event {
        Event::FleetChanged(it) if it.to == FleetState::Unknown => eprintln!("alone: {}", it.host),
        _ => {}
    });
    Ok(Resilient::new(config.build()?).with_fleet(&Fleet::new(store.clone())))
}
