//! Keys of TLS tickets: made here, one for each epoch, the next one ahead of its time so that other machines know it before the
//! first ticket comes to them. Pure but for the random numbers.

use crate::{
    control::proxy::memory::{TICKET_EPOCH_S, TicketKey, TicketKeys},
    proxy::tls::random_secret,
};

/// Most keys of other machines.
const MOST_OTHERS: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tickets(TicketKeys);

impl Tickets {
    pub(super) fn keys(&self) -> &TicketKeys {
        &self.0
    }

    /// Goes on with the keys of the lbd before.
    pub(super) fn inherit(&mut self, keys: TicketKeys) {
        self.0 = keys;
    }

    /// Makes the keys that are missing and forgets those that are of no use. `now` in seconds since 1970. Says whether anything changed.
    pub(super) fn turn(&mut self, now: u64) -> bool {
        let TicketKeys { own, others } = &mut self.0;
        let before = (own.len(), others.len());
        own.retain(|key| is_in_use(key, now));
        others.retain(|key| is_in_use(key, now));
        let mut changed = before != (own.len(), others.len());
        let epoch = now / TICKET_EPOCH_S;
        for epoch in [epoch, epoch + 1] {
            if own.iter().all(|key| key.epoch != epoch)
                && let Some(secret) = random_secret()
            {
                own.push(TicketKey { epoch, secret });
                changed = true;
            }
        }
        changed
    }

    /// Takes in another machine's. Says whether anything changed.
    pub(super) fn hear(&mut self, keys: &[TicketKey], now: u64) -> bool {
        let others = &mut self.0.others;
        let before = others.len();
        for key in keys {
            if is_in_use(key, now) && !others.contains(key) && others.len() < MOST_OTHERS {
                others.push(key.clone());
            }
        }
        others.len() != before
    }
}

/// Whether tickets of its epoch may come: of this one, the one before, and the next.
fn is_in_use(key: &TicketKey, now: u64) -> bool {
    key.epoch.abs_diff(now / TICKET_EPOCH_S) <= 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::proxy::Secret;

    const NOW: u64 = 1_800_000_000;

    fn epochs(keys: &[TicketKey]) -> Vec<u64> {
        keys.iter().map(|key| key.epoch - NOW / TICKET_EPOCH_S).collect()
    }

    #[test]
    fn keys_are_made_ahead_used_for_an_epoch_kept_for_another_and_forgotten() {
        let mut tickets = Tickets::default();
        assert!(tickets.turn(NOW));
        assert!(!tickets.turn(NOW), "they are there");
        assert_eq!(epochs(&tickets.keys().own), [0, 1]);
        let ahead = tickets.keys().own[1].clone();
        assert!(tickets.turn(NOW + TICKET_EPOCH_S));
        assert_eq!(epochs(&tickets.keys().own), [0, 1, 2]);
        assert_eq!(tickets.keys().own[1], ahead, "the key that was told ahead is used");
        tickets.turn(NOW + 2 * TICKET_EPOCH_S);
        assert_eq!(epochs(&tickets.keys().own), [1, 2, 3]);
        tickets.turn(NOW + 9 * TICKET_EPOCH_S);
        assert_eq!(epochs(&tickets.keys().own), [9, 10], "a clock that jumped");
    }

    #[test]
    fn keys_of_others_are_bounded_and_of_this_time() {
        let mut tickets = Tickets::default();
        let epoch = NOW / TICKET_EPOCH_S;
        let key = |epoch, secret: u8| TicketKey { epoch, secret: Secret([secret; 32]) };
        assert!(
            tickets.hear(&[key(epoch, 1), key(epoch + 1, 2), key(epoch - 1, 3), key(epoch + 2, 4), key(0, 5)], NOW)
        );
        assert_eq!(tickets.keys().others.len(), 3);
        assert!(!tickets.hear(&[key(epoch, 1)], NOW), "known");
        let many: Vec<_> = (0..=255).map(|secret| key(epoch, secret)).collect();
        tickets.hear(&many, NOW);
        assert_eq!(tickets.keys().others.len(), MOST_OTHERS);
        tickets.turn(NOW + 3 * TICKET_EPOCH_S);
        assert_eq!(tickets.keys().others, []);
    }
}
