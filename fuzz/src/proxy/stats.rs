//! Counters, as rules need them.

// Gauges count what is not compiled here.
#[allow(dead_code)]
mod counter;

pub use counter::Counter;
