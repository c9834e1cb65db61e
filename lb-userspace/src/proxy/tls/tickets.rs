//! Session tickets (RFC 8446 §4.6.1, RFC 5077): encrypted by keys that change every twelve hours, and that are different
//! for each virtual server and client-certificate policy, so that no session resumes where it was not made (THREATS.md,
//! T3 and T9). Each machine makes tickets with keys of its own, and understands those of all that told it theirs.

use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Salt},
    rand,
};

use crate::control::proxy::{
    Secret,
    memory::{self, TICKET_EPOCH_S as EPOCH_S, TicketKey},
};

/// Bytes that say by which epoch's key a ticket was made.
const EPOCH_LEN: usize = 8;

/// Most keys of other machines: two epochs of more machines than a cluster has.
const MOST_OTHERS: usize = 64;

/// Where ticket keys come from. A worker keeps one for its whole life, over all plans, so that sessions live on.
#[derive(Clone, Debug, Default)]
pub struct TicketKeys(Arc<RwLock<memory::TicketKeys>>);

impl TicketKeys {
    /// Takes the keys that lbd gives. Tickets that were made with those before are still understood.
    pub fn set(&self, keys: memory::TicketKeys) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *known, keys);
        let newest = known.own.iter().map(|key| key.epoch).max().unwrap_or_default();
        for key in before.own {
            // The last epoch of three that lbd gives has not begun.
            if key.epoch + 2 >= newest && !known.own.contains(&key) && !known.others.contains(&key) {
                known.others.push(key);
            }
        }
        known.others.truncate(MOST_OTHERS);
    }

    /// The secret that tickets are made with in an epoch. Without one of lbd's (which may be gone) it is a random one.
    fn making(&self, epoch: u64) -> Option<Secret> {
        let find =
            |keys: &memory::TicketKeys| keys.own.iter().find(|key| key.epoch == epoch).map(|key| key.secret.clone());
        if let Some(secret) = find(&self.0.read().unwrap_or_else(PoisonError::into_inner)) {
            return Some(secret);
        }
        let fresh = random_secret()?;
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been quicker.
        Some(find(&known).unwrap_or_else(|| {
            known.own.retain(|key| key.epoch + 1 >= epoch);
            known.own.push(TicketKey { epoch, secret: fresh.clone() });
            fresh
        }))
    }

    /// The secrets that tickets of an epoch may have been made with: ours first.
    fn opening(&self, epoch: u64) -> Vec<Secret> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let all = known.own.iter().chain(&known.others);
        all.filter(|key| key.epoch == epoch).map(|key| key.secret.clone()).collect()
    }
}

/// Seals and opens the tickets of one scope.
#[derive(Debug)]
pub(super) struct Ticketer {
    source: Source,
    scope: [u8; 32],
    /// Keys that were used lately; newest first.
    keys: RwLock<Vec<Arc<Key>>>,
}

#[derive(Debug)]
enum Source {
    /// From the configuration: keys of an epoch are derived from it.
    Configured(Secret),
    Given(TicketKeys),
}

#[derive(Debug)]
struct Key {
    epoch: u64,
    /// What it was derived from.
    secret: Secret,
    /// Random nonces may repeat once in 2^48 tickets; this construction survives it (RFC 8452).
    aead: LessSafeKey,
}

impl Ticketer {
    /// For `scope`: a digest of all that a session depends on.
    pub(super) fn new(configured: Option<&Secret>, given: &TicketKeys, scope: [u8; 32]) -> Self {
        let source =
            configured.map_or_else(|| Source::Given(given.clone()), |secret| Source::Configured(secret.clone()));
        Self { source, scope, keys: RwLock::default() }
    }

    /// Least seconds for which a ticket made now can be used.
    pub(super) fn lifetime_s() -> u32 {
        u32::try_from(EPOCH_S).unwrap_or(u32::MAX)
    }

    /// A ticket with this content; `None` when there are no random bytes.
    pub(super) fn seal(&self, plain: &[u8], now: u64) -> Option<Vec<u8>> {
        let epoch = now / EPOCH_S;
        let secret = match &self.source {
            Source::Configured(secret) => secret.clone(),
            Source::Given(given) => given.making(epoch)?,
        };
        let key = self.key(epoch, &secret, now)?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(EPOCH_LEN + NONCE_LEN + plain.len() + AES_256_GCM_SIV.tag_len());
        ticket.extend_from_slice(&epoch.to_be_bytes());
        ticket.extend_from_slice(&nonce);
        let mut sealed = plain.to_vec();
        let aad = Aad::from(epoch.to_be_bytes());
        key.aead.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
        ticket.extend_from_slice(&sealed);
        Some(ticket)
    }

    /// The content of a ticket of this scope that is not too old. The ticket is what a client sent.
    pub(super) fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (epoch, rest) = ticket.split_first_chunk::<EPOCH_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let made = u64::from_be_bytes(*epoch);
        let current = now / EPOCH_S;
        // One epoch ahead is let pass: clocks of a cluster differ a little.
        if made + 1 < current || made > current + 1 {
            return None;
        }
        let secrets = match &self.source {
            Source::Configured(secret) => vec![secret.clone()],
            Source::Given(given) => given.opening(made),
        };
        secrets.iter().find_map(|secret| {
            let key = self.key(made, secret, now)?;
            let mut plain = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let length = key.aead.open_in_place(nonce, Aad::from(*epoch), &mut plain).ok()?.len();
            plain.truncate(length);
            Some(plain)
        })
    }

    fn key(&self, epoch: u64, secret: &Secret, now: u64) -> Option<Arc<Key>> {
        /// Keys in use at a time: all machines' of this epoch, the one before, and the next of a clock that is ahead.
        const KEPT: usize = MOST_OTHERS + 3;
        let find = |keys: &[Arc<Key>]| keys.iter().find(|key| key.epoch == epoch && key.secret == *secret).cloned();
        if let Some(key) = find(&self.keys.read().unwrap_or_else(PoisonError::into_inner)) {
            return Some(key);
        }
        let key = Arc::new(self.derive(epoch, secret)?);
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.retain(|old| old.epoch + 1 >= now / EPOCH_S && !(old.epoch == epoch && old.secret == *secret));
        keys.insert(0, key.clone());
        keys.truncate(KEPT);
        Some(key)
    }

    fn derive(&self, epoch: u64, secret: &Secret) -> Option<Key> {
        struct Len;
        impl KeyType for Len {
            fn len(&self) -> usize {
                AES_256_GCM_SIV.key_len()
            }
        }
        let epoch_bytes = epoch.to_be_bytes();
        let info: [&[u8]; 3] = [b"lb session ticket 1", &self.scope, &epoch_bytes];
        let mut bytes = [0; 32];
        let extracted = Salt::new(HKDF_SHA256, &[]).extract(&secret.0);
        extracted.expand(&info, Len).ok()?.fill(&mut bytes).ok()?;
        let aead = LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &bytes).ok()?);
        Some(Key { epoch, secret: secret.clone(), aead })
    }
}

/// A new secret; `None` when the system has no random bytes.
pub(in crate::proxy) fn random_secret() -> Option<Secret> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).ok().map(|()| Secret(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn ticketer(scope: u8) -> Ticketer {
        Ticketer::new(Some(&Secret([7; 32])), &TicketKeys::default(), [scope; 32])
    }

    fn key(epoch: u64, secret: u8) -> TicketKey {
        TicketKey { epoch, secret: Secret([secret; 32]) }
    }

    #[test]
    fn a_ticket_opens_in_its_scope_and_nowhere_else() {
        let ticket = ticketer(1).seal(b"session", NOW).unwrap();
        assert_eq!(ticketer(1).open(&ticket, NOW).as_deref(), Some(&b"session"[..]), "another machine of the cluster");
        assert_eq!(ticketer(2).open(&ticket, NOW), None);
        for at in 0..ticket.len() {
            let mut forged = ticket.clone();
            forged[at] ^= 1;
            assert_eq!(ticketer(1).open(&forged, NOW), None, "byte {at}");
            assert_eq!(ticketer(1).open(&ticket[..at], NOW), None, "cut at {at}");
        }
    }

    #[test]
    fn tickets_end_within_a_day_and_live_for_twelve_hours() {
        for random in [false, true] {
            let keys = TicketKeys::default();
            let make = || Ticketer::new((!random).then_some(&Secret([7; 32])), &keys, [1; 32]);
            let ticketer = make();
            let ticket = ticketer.seal(b"session", NOW).unwrap();
            // A new plan builds a new setup: the tickets of the old one go on.
            assert!(make().open(&ticket, NOW + EPOCH_S).is_some(), "random {random}");
            assert!(ticketer.open(&ticket, NOW + EPOCH_S).is_some(), "random {random}");
            assert!(ticketer.open(&ticket, NOW + 2 * EPOCH_S).is_none(), "random {random}");
            let later = ticketer.seal(b"session", NOW + 5 * EPOCH_S).unwrap();
            assert!(ticketer.open(&later, NOW + 6 * EPOCH_S).is_some(), "random {random}");
            assert!(make().open(&ticket, NOW + 6 * EPOCH_S).is_none(), "random {random}");
        }
    }

    #[test]
    fn a_ticket_of_any_machine_that_told_its_keys_is_understood_and_of_no_other() {
        let epoch = NOW / EPOCH_S;
        let machine = |own: u8, others: &[u8]| {
            let others = others.iter().flat_map(|other| [key(epoch - 1, *other), key(epoch, *other)]).collect();
            let keys = TicketKeys::default();
            keys.set(memory::TicketKeys { own: vec![key(epoch, own), key(epoch + 1, own)], others });
            (Ticketer::new(None, &keys, [1; 32]), keys)
        };
        let (a, keys) = machine(1, &[2, 3]);
        let (b, c, stranger) = (machine(2, &[1]).0, machine(3, &[]).0, machine(4, &[1, 2, 3]).0);
        for (name, from, understood) in
            [("b", &b, true), ("c", &c, true), ("itself", &a, true), ("other", &stranger, false)]
        {
            let ticket = from.seal(b"session", NOW).unwrap();
            assert_eq!(a.open(&ticket, NOW).is_some(), understood, "{name}");
        }
        let early = b.seal(b"session", NOW + EPOCH_S).unwrap();
        assert_eq!(a.open(&early, NOW), None, "its next key was not told");
        let ticket = a.seal(b"session", NOW).unwrap();
        // Another lbd knows nothing of the keys before.
        keys.set(memory::TicketKeys { own: vec![key(epoch, 9), key(epoch + 1, 9)], others: vec![] });
        assert!(a.open(&ticket, NOW).is_some(), "keys that lbd has replaced");
        assert_eq!(c.open(&a.seal(b"session", NOW).unwrap(), NOW), None);
    }
}
