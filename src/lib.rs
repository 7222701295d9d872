//! Retries, circuit breaker, budgets and telemetry for `reqwest` in one middleware.

#[cfg_attr(not(test), expect(dead_code, reason = "the retry loop that asks is not there yet"))]
mod budget;
#[cfg_attr(not(test), expect(dead_code, reason = "the retry loop that asks is not there yet"))]
mod gate;
#[cfg_attr(not(test), expect(dead_code, reason = "the retry loop that asks is not there yet"))]
mod hint;
mod time;

pub use budget::BudgetConfig;
pub use hint::HintFormat;
pub use hint::HintHeaders;
#[cfg(fuzzing)]
#[doc(hidden)]
pub use hint::fuzz_hints;
