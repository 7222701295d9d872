use reqwest_resilient::fleet::{Fleet, FleetState, InProcessFleet};
use reqwest_resilient::{BuildError, Event, ResilientClient, ResilientConfig};

/// A client of a fleet, which logs when it loses its store.
fn one_of_many(store: &InProcessFleet) -> Result<ResilientClient, BuildError> {
    let fleet = Fleet::new(store.clone());
    let config = ResilientConfig::builder().on_event(|event| match event {
        Event::FleetChanged(it) if it.to == FleetState::Unknown => eprintln!("alone: {}", it.host),
        _ => {}
    });
    ResilientClient::builder().config(config.build()?).fleet(&fleet).build()
}
