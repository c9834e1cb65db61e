//! Counters, as rules need them.

// Gauges count what is not compiled here.
#[allow(dead_code, reason = "not all of it is compiled here")]
mod counter;

pub use counter::Counter;
