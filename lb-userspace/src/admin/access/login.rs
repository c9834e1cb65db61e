//! Logging in and out, passwords, the first user, and changes of users and tokens: what the routes of `admin::users` do.
//! Methods that hash passwords take tens of milliseconds: they are for blocking threads, a few at a time.

use std::{net::IpAddr, sync::atomic::Ordering, time::Duration};

use super::{
    Access, Caller, Hashed, SETUP, Via, accounts::User, backoff::Attempt, lock, password, random, sessions, unix_s,
};
use crate::control::{
    access::{
        Login, MadeToken, NewToken, NewUser, PasswordChange, Role, SessionView, Setup, TokenView, UserPatch, UserView,
    },
    query::QueryError,
};

/// Why nobody was logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::admin) enum LoginFailure {
    /// Name or password is wrong, or the user may not: nothing tells which.
    Wrong,
    /// Too many failures: not before this time.
    Wait(Duration),
    /// Something else.
    Refused(QueryError),
}

impl From<QueryError> for LoginFailure {
    fn from(error: QueryError) -> Self {
        Self::Refused(error)
    }
}

impl Access {
    /// A place among those who hash passwords: more wait, so that logins never take all cores.
    pub(in crate::admin) async fn may_hash(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        self.hashing.acquire().await.ok()
    }

    /// Opens a session: the value of its cookie, and what there is to say of it.
    pub(in crate::admin) fn login(
        &self,
        login: &Login,
        address: IpAddr,
    ) -> Result<(String, SessionView), LoginFailure> {
        let role = self.prove(&login.name, &login.password, address)?;
        let lifetimes = self.lifetimes();
        let random = (random::<{ sessions::SECRET }>(), random::<{ sessions::SECRET }>());
        let (cookie, csrf) = lock(&self.sessions).open(&login.name, random, self.now(), lifetimes);
        lock(&self.seen).insert(format!("user {}", login.name), unix_s());
        let (idle_left_s, left_s) = (Some(lifetimes.idle.as_secs()), Some(lifetimes.longest.as_secs()));
        let view = SessionView { name: login.name.clone(), role, csrf: Some(csrf), idle_left_s, left_s };
        Ok((cookie, view))
    }

    /// The role of whoever knows the password. Whether the user is there or not takes the same time and the same words.
    fn prove(&self, name: &str, password: &str, address: IpAddr) -> Result<Role, LoginFailure> {
        let now = self.now();
        {
            let mut backoff = lock(&self.backoff);
            if let Some(wait) = backoff.wait(Attempt::User(name), address, now) {
                return Err(LoginFailure::Wait(wait));
            }
            // Counted before it is known, so that attempts at the same time do not all find the count before.
            backoff.failed(Attempt::User(name), address, now);
        }
        let user: Option<User> = lock(&self.accounts).users.get(name).cloned();
        let fits = user.as_ref().map_or(&self.nobody, |user| &user.password).is(password);
        match user.filter(|user| fits && !user.disabled) {
            Some(user) => {
                lock(&self.backoff).succeeded(Attempt::User(name), address);
                Ok(user.role)
            }
            None => {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                // The wait begins with the answer, however long the password took to hash.
                lock(&self.backoff).answered(Attempt::User(name), address, self.now());
                Err(LoginFailure::Wrong)
            }
        }
    }

    /// Ends the session of a caller.
    pub(in crate::admin) fn logout(&self, caller: &Caller) -> Result<(), QueryError> {
        match &caller.via {
            Via::Session { id, .. } => {
                lock(&self.sessions).close(id);
                Ok(())
            }
            Via::Socket { .. } | Via::Token { .. } | Via::Nobody { .. } => {
                Err(QueryError::Conflict("there is no session: only a login has one".to_owned()))
            }
        }
    }

    /// A user sets its own password: all its sessions end.
    pub(in crate::admin) fn change_own_password(
        &self,
        caller: &Caller,
        change: &PasswordChange,
    ) -> Result<(), LoginFailure> {
        let Via::Session { address, .. } = &caller.via else {
            return Err(QueryError::Conflict("only who has logged in changes its own password".to_owned()).into());
        };
        self.prove(&caller.name, &change.old, *address)?;
        let policy = self.settings().password.clone();
        let hashed = self.hash_new(&caller.name, &change.new)?;
        self.change(|accounts| accounts.set_own_password(&caller.name, hashed, &policy, unix_s()))?;
        lock(&self.sessions).close_all(&caller.name);
        Ok(())
    }

    /// Makes the first user, by the one-time token, which is worth nothing from then on.
    pub(in crate::admin) fn set_up(&self, setup: &Setup, address: IpAddr) -> Result<UserView, LoginFailure> {
        /// The account that wrong one-time tokens count for.
        const NAME: &str = "by setup";
        let now = self.now();
        if let Some(wait) = lock(&self.backoff).wait(Attempt::User(NAME), address, now) {
            return Err(LoginFailure::Wait(wait));
        }
        if !self.setup_token().is_some_and(|token| sessions::same(&setup.token, &token)) {
            lock(&self.backoff).failed(Attempt::User(NAME), address, now);
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            return Err(LoginFailure::Wrong);
        }
        let user = NewUser { name: setup.name.clone(), role: Role::Admin, password: setup.password.clone() };
        Ok(self.add_user(&user)?)
    }

    /// Adds a user.
    pub(in crate::admin) fn add_user(&self, user: &NewUser) -> Result<UserView, QueryError> {
        let policy = self.settings().password.clone();
        if let Some(complaint) = password::complaint(&policy, &user.name, &user.password) {
            return Err(QueryError::Invalid(complaint));
        }
        let hashed = Hashed::of(&user.password, random());
        self.change(|accounts| accounts.add(&user.name, user.role, hashed, unix_s()))?;
        if lock(&self.accounts).has_admin() {
            // It is worth nothing any more, whether it can be removed or not.
            let _ = std::fs::remove_file(self.state_dir.join(SETUP));
        }
        self.user(&user.name)
    }

    /// Changes a user. Its sessions end with its password, its role and its right to log in.
    pub(in crate::admin) fn change_user(
        &self,
        caller: &Caller,
        name: &str,
        patch: &UserPatch,
    ) -> Result<UserView, QueryError> {
        let hashed = patch.password.as_ref().map(|password| self.hash_new(name, password)).transpose()?;
        let policy = self.settings().password.clone();
        let must_end = self.change(|accounts| {
            let must_end = accounts.change(name, patch, hashed, &policy, unix_s())?;
            keeps_an_admin(caller, accounts.has_admin())?;
            Ok(must_end)
        })?;
        if must_end {
            lock(&self.sessions).close_all(name);
        }
        self.user(name)
    }

    /// Removes a user, with its sessions and tokens.
    pub(in crate::admin) fn remove_user(&self, caller: &Caller, name: &str) -> Result<(), QueryError> {
        self.change(|accounts| {
            accounts.remove(name)?;
            keeps_an_admin(caller, accounts.has_admin())
        })?;
        lock(&self.sessions).close_all(name);
        Ok(())
    }

    /// The hash of a user's new password, if it is taken.
    fn hash_new(&self, name: &str, new: &str) -> Result<Hashed, QueryError> {
        let policy = self.settings().password.clone();
        if let Some(complaint) = password::complaint(&policy, name, new) {
            return Err(QueryError::Invalid(complaint));
        }
        let used = lock(&self.accounts).user(name)?.used(&policy);
        if used.iter().any(|hashed| hashed.is(new)) {
            let message = format!("the password is one of the last {}: they are not taken again", policy.reuse);
            return Err(QueryError::Invalid(message));
        }
        Ok(Hashed::of(new, random()))
    }

    /// All users, by name.
    pub(in crate::admin) fn users(&self) -> Vec<UserView> {
        let seen = lock(&self.seen).clone();
        let mut users: Vec<UserView> = lock(&self.accounts).users().collect();
        let sessions = lock(&self.sessions);
        for user in &mut users {
            user.last_login_s = seen.get(&format!("user {}", user.name)).copied();
            user.sessions = sessions.count(&user.name);
        }
        users
    }

    /// One user.
    pub(in crate::admin) fn user(&self, name: &str) -> Result<UserView, QueryError> {
        lock(&self.accounts).user(name)?;
        self.users().into_iter().find(|user| user.name == name).ok_or_else(|| QueryError::NotFound(name.to_owned()))
    }

    /// All tokens, by id.
    pub(in crate::admin) fn tokens(&self) -> Vec<TokenView> {
        let seen = lock(&self.seen).clone();
        let mut tokens: Vec<TokenView> = lock(&self.accounts).tokens(unix_s()).collect();
        for token in &mut tokens {
            token.last_used_s = seen.get(&format!("token {}", token.id)).copied();
        }
        tokens
    }

    /// Makes a token.
    pub(in crate::admin) fn make_token(&self, caller: &Caller, wanted: &NewToken) -> Result<MadeToken, QueryError> {
        if caller.role < Some(wanted.role) {
            return Err(QueryError::Invalid("a token may not do more than who makes it".to_owned()));
        }
        // Who comes by the socket is root or of the group, and no user of ours.
        let owner = match &caller.via {
            Via::Session { .. } => Some(caller.name.as_str()),
            Via::Socket { .. } => None,
            Via::Token { .. } | Via::Nobody { .. } => {
                return Err(QueryError::Conflict("a token does not make tokens: log in".to_owned()));
            }
        };
        let by = (owner, caller.name.as_str());
        let (id, secret) = self.change(|accounts| accounts.make_token(wanted, by, &random(), unix_s()))?;
        let token = self.tokens().into_iter().find(|token| token.id == id).unwrap_or_default();
        Ok(MadeToken { secret, token })
    }

    /// Makes a token worthless.
    pub(in crate::admin) fn revoke(&self, id: &str) -> Result<(), QueryError> {
        self.change(|accounts| accounts.revoke(id))
    }
}

/// Over the network nobody removes the last user who may do everything: only root could mend it.
pub(super) fn keeps_an_admin(caller: &Caller, has_admin: bool) -> Result<(), QueryError> {
    if has_admin || matches!(caller.via, Via::Socket { .. }) {
        return Ok(());
    }
    Err(QueryError::Conflict("that is the last user who may do everything: make another one first".to_owned()))
}
