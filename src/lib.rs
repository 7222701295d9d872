//! Retries, circuit breaker, budgets and telemetry for `reqwest` in one middleware.
