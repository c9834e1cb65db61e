//! Sessions of browsers: known by a random cookie of which only a digest is kept, dead after a time without requests and
//! after a day's work at the latest. In memory alone: they end with lbd. Pure: times and random bytes come in.

use std::{collections::HashMap, time::Duration};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
};

use crate::state_file::hex;

/// Random bytes of a cookie, and of a CSRF token.
pub(super) const SECRET: usize = 32;

/// Sessions of one user; the one used longest ago goes first.
const MOST_OF_USER: usize = 16;

/// Sessions of all users.
const MOST: usize = 1024;

/// How long sessions live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetimes {
    pub(super) idle: Duration,
    pub(super) longest: Duration,
}

/// Digest of a cookie.
pub(in crate::admin) type SessionId = [u8; 32];

#[derive(Clone, Debug, PartialEq, Eq)]
struct Session {
    user: String,
    csrf: String,
    opened: Duration,
    used: Duration,
}

/// What a cookie stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) id: SessionId,
    pub(super) user: String,
    pub(super) csrf: String,
    /// Until it ends if it is not used.
    pub(super) idle_left: Duration,
    /// Until it ends.
    pub(super) left: Duration,
}

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    open: HashMap<SessionId, Session>,
}

impl Sessions {
    /// A new one; returns the cookie's value and what is to be sent against forged requests.
    pub(super) fn open(
        &mut self,
        user: &str,
        random: ([u8; SECRET], [u8; SECRET]),
        now: Duration,
        lifetimes: Lifetimes,
    ) -> (String, String) {
        self.open.retain(|_, session| session.is_alive(now, lifetimes));
        while self.count(user) >= MOST_OF_USER {
            self.drop_oldest(|session| session.user == user);
        }
        while self.open.len() >= MOST {
            self.drop_oldest(|_| true);
        }
        let (cookie, csrf) = (hex(&random.0), hex(&random.1));
        let session = Session { user: user.to_owned(), csrf: csrf.clone(), opened: now, used: now };
        self.open.insert(id(&cookie), session);
        (cookie, csrf)
    }

    /// What a cookie stands for, if it lives; it is used now.
    pub(super) fn find(&mut self, cookie: &str, now: Duration, lifetimes: Lifetimes) -> Option<Opened> {
        let id = id(cookie);
        let session = self.open.get_mut(&id)?;
        if !session.is_alive(now, lifetimes) {
            self.open.remove(&id);
            return None;
        }
        session.used = now;
        let left = lifetimes.longest.saturating_sub(now.saturating_sub(session.opened));
        let (user, csrf) = (session.user.clone(), session.csrf.clone());
        Some(Opened { id, user, csrf, idle_left: lifetimes.idle.min(left), left })
    }

    /// Whether one lives; that does not use it.
    pub(super) fn lives(&self, id: &SessionId, now: Duration, lifetimes: Lifetimes) -> bool {
        self.open.get(id).is_some_and(|session| session.is_alive(now, lifetimes))
    }

    /// Ends one.
    pub(super) fn close(&mut self, id: &SessionId) {
        self.open.remove(id);
    }

    /// Ends those of a user.
    pub(super) fn close_all(&mut self, user: &str) {
        self.open.retain(|_, session| session.user != user);
    }

    /// Ends all.
    pub(super) fn clear(&mut self) {
        self.open.clear();
    }

    /// Sessions of a user.
    pub(super) fn count(&self, user: &str) -> usize {
        self.open.values().filter(|session| session.user == user).count()
    }

    fn drop_oldest(&mut self, of: impl Fn(&Session) -> bool) {
        let candidates = self.open.iter().filter(|(_, session)| of(session));
        if let Some(id) = candidates.min_by_key(|(_, session)| session.used).map(|(id, _)| *id) {
            self.open.remove(&id);
        }
    }
}

impl Session {
    fn is_alive(&self, now: Duration, lifetimes: Lifetimes) -> bool {
        now.saturating_sub(self.used) < lifetimes.idle && now.saturating_sub(self.opened) < lifetimes.longest
    }
}

/// Whether two secrets are the same; takes as long whether they are or not.
pub(super) fn same(given: &str, wanted: &str) -> bool {
    verify_slices_are_equal(given.as_bytes(), wanted.as_bytes()).is_ok()
}

fn id(cookie: &str) -> SessionId {
    let mut id = [0; 32];
    id.copy_from_slice(digest(&SHA256, cookie.as_bytes()).as_ref());
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVES: Lifetimes = Lifetimes { idle: Duration::from_secs(1800), longest: Duration::from_secs(43_200) };

    fn open(sessions: &mut Sessions, user: &str, seed: u8, now: u64) -> String {
        sessions.open(user, ([seed; SECRET], [seed ^ 255; SECRET]), Duration::from_secs(now), LIVES).0
    }

    fn user(sessions: &mut Sessions, cookie: &str, now: u64) -> Option<String> {
        sessions.find(cookie, Duration::from_secs(now), LIVES).map(|opened| opened.user)
    }

    #[test]
    fn a_session_ends_when_idle_and_after_half_a_day() {
        let mut sessions = Sessions::default();
        let cookie = open(&mut sessions, "ann", 1, 0);
        assert_eq!(user(&mut sessions, &cookie, 1799).as_deref(), Some("ann"));
        assert_eq!(user(&mut sessions, &cookie, 1799 + 1799).as_deref(), Some("ann"), "using it keeps it");
        assert_eq!(user(&mut sessions, &cookie, 1799 + 1799 + 1800), None);
        assert_eq!(user(&mut sessions, &cookie, 1799), None, "dead for good");
        let cookie = open(&mut sessions, "ann", 2, 0);
        assert!((0..43_200).step_by(1000).all(|now| user(&mut sessions, &cookie, now).is_some()));
        assert_eq!(user(&mut sessions, &cookie, 43_200), None);
    }

    #[test]
    fn logging_out_and_a_new_password_end_sessions_at_once() {
        let mut sessions = Sessions::default();
        let (first, second) = (open(&mut sessions, "ann", 1, 0), open(&mut sessions, "ann", 2, 0));
        let other = open(&mut sessions, "bob", 3, 0);
        let id = sessions.find(&first, Duration::ZERO, LIVES).unwrap().id;
        sessions.close(&id);
        assert_eq!(user(&mut sessions, &first, 1), None);
        assert!(user(&mut sessions, &second, 1).is_some());
        sessions.close_all("ann");
        assert_eq!(user(&mut sessions, &second, 1), None);
        assert!(user(&mut sessions, &other, 1).is_some());
    }

    #[test]
    fn nobody_has_sessions_without_number() {
        let mut sessions = Sessions::default();
        let first = open(&mut sessions, "ann", 0, 0);
        for n in 1..=16 {
            open(&mut sessions, "ann", n, u64::from(n));
        }
        assert_eq!(sessions.count("ann"), MOST_OF_USER);
        assert_eq!(user(&mut sessions, &first, 20), None, "the one used longest ago went");
    }

    #[test]
    fn the_cookie_itself_is_not_kept() {
        let mut sessions = Sessions::default();
        let cookie = open(&mut sessions, "ann", 7, 0);
        assert!(!format!("{sessions:?}").contains(&cookie));
        assert!(same(&cookie, &cookie) && !same(&cookie, &cookie[1..]) && !same("", &cookie));
    }
}
