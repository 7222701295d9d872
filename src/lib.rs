//! Retries, circuit breaker, budgets and telemetry for `reqwest` in one middleware.

mod breaker;
mod registry;
mod time;

pub use breaker::BreakerConfig;
pub use breaker::BreakerSnapshot;
pub use breaker::BreakerState;
pub use breaker::ChangeReason;
pub use breaker::CircuitBreaker;
pub use breaker::CircuitBreakers;
pub use breaker::CircuitOpen;
pub use breaker::Health;
pub use breaker::Percent;
pub use breaker::Permit;
pub use breaker::StateChange;
pub use breaker::Window;
pub use breaker::WindowCounts;
