//! How many requests each caller may make in a second. Pure: time comes in.

use std::{collections::HashMap, time::Duration};

/// Requests per second of one caller, and how many at once.
const RATE: f64 = 100.0;
const BURST: f64 = 200.0;

/// Callers remembered at most; one that has not asked for this long has its whole burst again and may be forgotten.
const MOST: usize = 4096;
const FULL_AFTER: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Duration,
}

/// What is left to each.
#[derive(Debug, Default)]
pub(super) struct Rates {
    buckets: HashMap<String, Bucket>,
}

impl Rates {
    /// Takes one request of a caller, or what costs as much as so many, if it may make one now.
    pub(super) fn take(&mut self, who: &str, cost: f64, now: Duration) -> bool {
        if !self.buckets.contains_key(who) && self.buckets.len() >= MOST {
            self.buckets.retain(|_, bucket| now.saturating_sub(bucket.at) < FULL_AFTER);
            if self.buckets.len() >= MOST {
                return false;
            }
        }
        let bucket = self.buckets.entry(who.to_owned()).or_insert(Bucket { left: BURST, at: now });
        bucket.left = BURST.min(bucket.left + now.saturating_sub(bucket.at).as_secs_f64() * RATE);
        bucket.at = now;
        let may = bucket.left >= cost;
        if may {
            bucket.left -= cost;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_a_hundred_a_second() {
        let mut rates = Rates::default();
        let taken = |rates: &mut Rates, who, now| (0..1000).filter(|_| rates.take(who, 1.0, now)).count();
        assert_eq!(taken(&mut rates, "ann", Duration::from_secs(10)), 200);
        assert_eq!(taken(&mut rates, "bob", Duration::from_secs(10)), 200, "on its own");
        assert_eq!(taken(&mut rates, "ann", Duration::from_secs(11)), 100);
        assert_eq!(taken(&mut rates, "ann", Duration::from_secs(100)), 200);
    }

    #[test]
    fn callers_without_number_are_refused_not_remembered() {
        let mut rates = Rates::default();
        let now = Duration::from_secs(10);
        assert_eq!((0..MOST + 10).filter(|n| rates.take(&n.to_string(), 1.0, now)).count(), MOST);
        assert!(rates.take("later", 1.0, now + FULL_AFTER));
    }
}
