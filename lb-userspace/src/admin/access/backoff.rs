//! Who has failed to log in waits: 1 s after the fifth failure, doubling to 15 minutes, for each account and address
//! together, so that nobody can lock out another; and, after many more failures, for the address alone. Wrong tokens count by
//! themselves: a program with a token that has expired locks out nobody. Pure.

use std::{collections::HashMap, net::IpAddr, time::Duration};

/// Failures that cost nothing, of an account from an address.
const FREE: u32 = 5;

/// Failures that cost nothing, of an address whatever the account.
const FREE_OF_ADDRESS: u32 = 50;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Failures are forgotten after this time without another.
const MEMORY: Duration = Duration::from_secs(60 * 60);

/// Pairs and addresses remembered at most; beyond, those that failed longest ago are forgotten.
const MOST: usize = 10_000;

/// Bytes of a name that tell accounts apart here: what is longer is no user's.
const NAME: usize = 64;

/// How somebody tries to get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt<'n> {
    /// As this user, whether there is one or not.
    User(&'n str),
    /// By a token, whichever.
    Token,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Pair(String, IpAddr),
    Token(IpAddr),
    Address(IpAddr),
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Duration,
}

/// Failed attempts.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: HashMap<Key, Failures>,
}

impl Backoff {
    /// How long an attempt must wait still; `None`: it may be made. Times are those of one monotonic clock.
    pub(super) fn wait(&self, attempt: Attempt<'_>, address: IpAddr, now: Duration) -> Option<Duration> {
        let left = keys(attempt, address).into_iter().flatten().filter_map(|(key, free)| {
            let failures = self.failures.get(&key)?;
            (failures.last + delay(failures.count, free)).checked_sub(now)
        });
        left.max().filter(|left| !left.is_zero())
    }

    /// An attempt has failed.
    pub(super) fn failed(&mut self, attempt: Attempt<'_>, address: IpAddr, now: Duration) {
        for (key, _) in keys(attempt, address).into_iter().flatten() {
            if !self.failures.contains_key(&key) {
                self.make_room(now);
            }
            let failures = self.failures.entry(key).or_insert(Failures { count: 0, last: now });
            if now.saturating_sub(failures.last) > MEMORY {
                failures.count = 0;
            }
            *failures = Failures { count: failures.count.saturating_add(1), last: now };
        }
    }

    /// An attempt that was counted as failed is answered now.
    pub(super) fn answered(&mut self, attempt: Attempt<'_>, address: IpAddr, now: Duration) {
        for (key, _) in keys(attempt, address).into_iter().flatten() {
            if let Some(failures) = self.failures.get_mut(&key) {
                failures.last = now;
            }
        }
    }

    /// An attempt that was counted as failed has succeeded: the account's own failures are forgotten, those of the address
    /// are not.
    pub(super) fn succeeded(&mut self, attempt: Attempt<'_>, address: IpAddr) {
        for (key, _) in keys(attempt, address).into_iter().flatten() {
            match key {
                Key::Pair(..) | Key::Token(_) => drop(self.failures.remove(&key)),
                Key::Address(_) => {
                    if let Some(failures) = self.failures.get_mut(&key) {
                        failures.count = failures.count.saturating_sub(1);
                    }
                }
            }
        }
    }

    fn make_room(&mut self, now: Duration) {
        if self.failures.len() < MOST {
            return;
        }
        self.failures.retain(|_, failures| now.saturating_sub(failures.last) <= MEMORY);
        if self.failures.len() < MOST {
            return;
        }
        // A tenth at once, so that a flood of names does not sort the table for each of them.
        let mut times: Vec<Duration> = self.failures.values().map(|failures| failures.last).collect();
        let (_, limit, _) = times.select_nth_unstable(MOST / 10);
        let limit = *limit;
        let mut most = MOST / 10;
        self.failures.retain(|_, failures| {
            let goes = failures.last <= limit && most > 0;
            most -= usize::from(goes);
            !goes
        });
    }
}

/// What an attempt counts for, and how many failures of it cost nothing.
fn keys(attempt: Attempt<'_>, address: IpAddr) -> [Option<(Key, u32)>; 2] {
    let address = network(address);
    match attempt {
        Attempt::Token => [Some((Key::Token(address), FREE)), None],
        Attempt::User(name) => {
            let name: String = name.chars().take(NAME).collect();
            [Some((Key::Pair(name, address), FREE)), Some((Key::Address(address), FREE_OF_ADDRESS))]
        }
    }
}

/// Who has one IPv6 address has a network of them.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        },
    }
}

fn delay(failures: u32, free: u32) -> Duration {
    match failures.checked_sub(free) {
        None => Duration::ZERO,
        Some(beyond) => LONGEST.min(FIRST.saturating_mul(1_u32.checked_shl(beyond).unwrap_or(u32::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "192.0.2.1";

    fn at(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    #[test]
    fn the_wait_doubles_and_ends() {
        let mut backoff = Backoff::default();
        let mut now = Duration::from_secs(1000);
        let mut waits = Vec::new();
        for _ in 0..17 {
            waits.push(backoff.wait(Attempt::User("ann"), at(HERE), now).map_or(0, |wait| wait.as_secs()));
            now += backoff.wait(Attempt::User("ann"), at(HERE), now).unwrap_or_default();
            assert_eq!(backoff.wait(Attempt::User("ann"), at(HERE), now), None);
            backoff.failed(Attempt::User("ann"), at(HERE), now);
        }
        assert_eq!(waits, [0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
        backoff.succeeded(Attempt::User("ann"), at(HERE));
        assert_eq!(backoff.wait(Attempt::User("ann"), at(HERE), now), None);
    }

    #[test]
    fn nobody_locks_out_another() {
        let mut backoff = Backoff::default();
        let now = Duration::from_secs(1);
        (0..40).for_each(|_| backoff.failed(Attempt::User("ann"), at(HERE), now));
        assert!(backoff.wait(Attempt::User("ann"), at(HERE), now).is_some());
        assert!(backoff.wait(Attempt::User("ann"), at("192.0.2.2"), now).is_none());
        assert!(backoff.wait(Attempt::User("bob"), at(HERE), now).is_none());
    }

    #[test]
    fn one_address_does_not_try_many_accounts() {
        let mut backoff = Backoff::default();
        let now = Duration::from_secs(1);
        (0..60).for_each(|n| backoff.failed(Attempt::User(&format!("user{n}")), at("2001:db8::1"), now));
        assert!(backoff.wait(Attempt::User("another"), at("2001:db8::ffff"), now).is_some(), "the same network");
        assert!(backoff.wait(Attempt::User("another"), at("2001:db8:0:1::1"), now).is_none());
        assert!(backoff.wait(Attempt::User("another"), at("2001:db8::1"), now + MEMORY).is_none());
    }

    #[test]
    fn a_program_with_an_old_token_locks_out_nobody() {
        let mut backoff = Backoff::default();
        let now = Duration::from_secs(1);
        (0..1000).for_each(|_| backoff.failed(Attempt::Token, at(HERE), now));
        assert!(backoff.wait(Attempt::Token, at(HERE), now).is_some());
        assert!(backoff.wait(Attempt::User("ann"), at(HERE), now).is_none());
    }

    #[test]
    fn logging_in_often_is_no_failure() {
        let mut backoff = Backoff::default();
        for n in 0..200 {
            assert_eq!(backoff.wait(Attempt::User("ann"), at(HERE), Duration::from_secs(n)), None);
            backoff.failed(Attempt::User("ann"), at(HERE), Duration::from_secs(n));
            backoff.succeeded(Attempt::User("ann"), at(HERE));
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let mut backoff = Backoff::default();
        for n in 0..3 * u32::try_from(MOST).unwrap() {
            backoff.failed(Attempt::User("ann"), IpAddr::V4(n.into()), Duration::from_millis(n.into()));
        }
        assert!(backoff.failures.len() <= MOST);
        let last = 3 * u32::try_from(MOST).unwrap() - 1;
        assert!(backoff.failures.contains_key(&Key::Address(IpAddr::V4(last.into()))), "the newest is there");
    }
}
