//! Users and API tokens: what is kept of them in `users.json`, and the rules by which they change. Pure: times, salts and
//! hashes come in, and what is wrong goes out in words.

use std::collections::BTreeMap;

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
};
use serde::{Deserialize, Serialize};

use super::password::{Hashed, SALT};
use crate::{
    config::api::PasswordPolicy,
    control::{
        access::{NewToken, Role, TokenView, UserPatch, UserView},
        query::QueryError,
    },
    state_file::hex,
};

/// Users, and tokens, at most.
const MOST: usize = 1000;

/// Longest name.
const MAX_NAME: usize = 63;

/// Paths of one token, and bytes of each.
const MAX_PATHS: usize = 32;
const MAX_PATH: usize = 256;

const DAY_S: i64 = 24 * 60 * 60;

/// How long a token lives, in seconds: without a word, and at most.
const TOKEN_LIFE_S: u64 = 90 * 24 * 60 * 60;
const MAX_TOKEN_LIFE_S: u64 = 10 * 365 * 24 * 60 * 60;

/// What tokens begin with: scanners for leaked secrets know it by that.
const TOKEN_PREFIX: &str = "lbt";

/// Random bytes of a token's id, and of its secret.
const TOKEN_ID: usize = 8;
const TOKEN_SECRET: usize = 32;

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Accounts {
    pub(super) users: BTreeMap<String, User>,
    pub(super) tokens: BTreeMap<String, Token>,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct User {
    pub(super) role: Role,
    #[serde(default)]
    pub(super) disabled: bool,
    pub(super) created_s: i64,
    pub(super) password: Hashed,
    pub(super) password_set_s: i64,
    /// Those before, the newest first.
    #[serde(default)]
    pub(super) former: Vec<Hashed>,
    /// When it changed its password itself, within the last day.
    #[serde(default)]
    changed_s: Vec<i64>,
}

/// A token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Token {
    name: String,
    role: Role,
    #[serde(default)]
    paths: Vec<String>,
    /// The user that made it: without that user it is worth nothing.
    #[serde(default)]
    owner: Option<String>,
    created_by: String,
    created_s: i64,
    expires_s: i64,
    /// SHA-256 of the secret, which is as long as that itself.
    digest: String,
}

/// What a token lets its bearer do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) paths: Vec<String>,
}

/// Random bytes of a token.
pub(super) type TokenBytes = [u8; TOKEN_ID + TOKEN_SECRET];

impl Accounts {
    /// Adds a user.
    pub(super) fn add(&mut self, name: &str, role: Role, password: Hashed, now_s: i64) -> Result<(), QueryError> {
        check_name("user", name)?;
        if self.users.contains_key(name) {
            return Err(QueryError::Conflict(format!("there is a user \"{name}\"")));
        }
        if self.users.len() >= MOST {
            return Err(QueryError::Conflict(format!("there are {MOST} users: no more are kept")));
        }
        let (former, changed_s) = (Vec::new(), Vec::new());
        let user = User { role, disabled: false, created_s: now_s, password, password_set_s: now_s, former, changed_s };
        self.users.insert(name.to_owned(), user);
        Ok(())
    }

    /// Changes a user; `password` is the hash of the patch's. Whether its sessions must end.
    pub(super) fn change(
        &mut self,
        name: &str,
        patch: &UserPatch,
        password: Option<Hashed>,
        policy: &PasswordPolicy,
        now_s: i64,
    ) -> Result<bool, QueryError> {
        let user = self.user_mut(name)?;
        let before = user.clone();
        user.role = patch.role.unwrap_or(user.role);
        user.disabled = patch.disabled.unwrap_or(user.disabled);
        if let Some(password) = password {
            user.set_password(password, policy, now_s);
        }
        Ok(*user != before)
    }

    /// A user sets its own password.
    pub(super) fn set_own_password(
        &mut self,
        name: &str,
        password: Hashed,
        policy: &PasswordPolicy,
        now_s: i64,
    ) -> Result<(), QueryError> {
        let user = self.user_mut(name)?;
        user.changed_s.retain(|at| (0..DAY_S).contains(&(now_s - at)));
        if user.changed_s.len() >= policy.changes_per_day {
            let most = policy.changes_per_day;
            return Err(QueryError::Conflict(format!(
                "the password was changed {most} times within a day: no more today"
            )));
        }
        user.changed_s.push(now_s);
        user.set_password(password, policy, now_s);
        Ok(())
    }

    /// Removes a user, and the tokens that it made.
    pub(super) fn remove(&mut self, name: &str) -> Result<(), QueryError> {
        self.user_mut(name)?;
        self.users.remove(name);
        self.tokens.retain(|_, token| token.owner.as_deref() != Some(name));
        Ok(())
    }

    /// Whether a user could do everything.
    pub(super) fn has_admin(&self) -> bool {
        self.users.values().any(|user| user.role == Role::Admin && !user.disabled)
    }

    pub(super) fn user(&self, name: &str) -> Result<&User, QueryError> {
        self.users.get(name).ok_or_else(|| self.no_user(name))
    }

    fn user_mut(&mut self, name: &str) -> Result<&mut User, QueryError> {
        let missing = self.no_user(name);
        self.users.get_mut(name).ok_or(missing)
    }

    fn no_user(&self, name: &str) -> QueryError {
        let there: Vec<&str> = self.users.keys().map(String::as_str).collect();
        let there =
            if there.is_empty() { "there is none".to_owned() } else { format!("there is: {}", there.join(", ")) };
        QueryError::NotFound(format!("no user \"{name}\"; {there}"))
    }

    /// All users, by name.
    pub(super) fn users(&self) -> impl Iterator<Item = UserView> {
        self.users.iter().map(|(name, user)| UserView {
            name: name.clone(),
            role: user.role,
            disabled: user.disabled,
            created_s: user.created_s,
            password_set_s: Some(user.password_set_s),
            last_login_s: None,
            sessions: 0,
        })
    }

    /// Makes a token: its id, and the secret that is shown this once.
    pub(super) fn make_token(
        &mut self,
        wanted: &NewToken,
        (owner, created_by): (Option<&str>, &str),
        random: &TokenBytes,
        now_s: i64,
    ) -> Result<(String, String), QueryError> {
        check_name("token", &wanted.name)?;
        self.tokens.retain(|_, token| token.expires_s > now_s);
        if self.tokens.len() >= MOST {
            return Err(QueryError::Conflict(format!("there are {MOST} tokens: no more are kept")));
        }
        for path in &wanted.paths {
            let is_path = path.starts_with('/') && path.len() <= MAX_PATH && !path.contains("..");
            if !is_path || wanted.paths.len() > MAX_PATHS {
                let message =
                    format!("{path:?} is no path such as \"/api/v1/pools\", or there are more than {MAX_PATHS}");
                return Err(QueryError::Invalid(message));
            }
        }
        let lifetime = wanted.lifetime_s.unwrap_or(TOKEN_LIFE_S);
        if lifetime == 0 || lifetime >= MAX_TOKEN_LIFE_S {
            return Err(QueryError::Invalid("a token lives between a second and ten years".to_owned()));
        }
        let (id, secret) = random.split_at(TOKEN_ID);
        let (id, secret) = (hex(id), format!("{TOKEN_PREFIX}_{}_{}", hex(id), hex(secret)));
        let token = Token {
            name: wanted.name.clone(),
            role: wanted.role,
            paths: wanted.paths.clone(),
            owner: owner.map(str::to_owned),
            created_by: created_by.to_owned(),
            created_s: now_s,
            expires_s: now_s.saturating_add_unsigned(lifetime),
            digest: hex(digest(&SHA256, secret.as_bytes()).as_ref()),
        };
        self.tokens.insert(id.clone(), token);
        Ok((id, secret))
    }

    /// What a secret lets its bearer do; takes as long for one that is wrong.
    pub(super) fn bearer(&self, secret: &str, now_s: i64) -> Option<Granted> {
        let given = hex(digest(&SHA256, secret.as_bytes()).as_ref());
        let id = secret.strip_prefix(TOKEN_PREFIX)?.strip_prefix('_')?.split('_').next()?;
        let token = self.tokens.get(id);
        let wanted = token.map_or("", |token| token.digest.as_str());
        let same = verify_slices_are_equal(given.as_bytes(), wanted.as_bytes()).is_ok();
        let token = token.filter(|_| same)?;
        let role = self.worth(token, now_s)?;
        Some(Granted { id: id.to_owned(), name: token.name.clone(), role, paths: token.paths.clone() })
    }

    /// The role that a token of this id gives now.
    pub(super) fn role_of_token(&self, id: &str, now_s: i64) -> Option<Role> {
        self.worth(self.tokens.get(id)?, now_s)
    }

    fn worth(&self, token: &Token, now_s: i64) -> Option<Role> {
        if token.expires_s <= now_s {
            return None;
        }
        match &token.owner {
            None => Some(token.role),
            Some(owner) => Some(token.role.min(self.users.get(owner).filter(|user| !user.disabled)?.role)),
        }
    }

    /// Makes a token worthless.
    pub(super) fn revoke(&mut self, id: &str) -> Result<(), QueryError> {
        match self.tokens.remove(id) {
            Some(_) => Ok(()),
            None => Err(QueryError::NotFound(format!("no token \"{id}\"; list them: GET /api/v1/tokens"))),
        }
    }

    /// All tokens that live, by id.
    pub(super) fn tokens(&self, now_s: i64) -> impl Iterator<Item = TokenView> {
        self.tokens.iter().filter(move |(_, token)| token.expires_s > now_s).map(|(id, token)| TokenView {
            id: id.clone(),
            name: token.name.clone(),
            role: token.role,
            paths: token.paths.clone(),
            created_by: token.created_by.clone(),
            created_s: token.created_s,
            expires_s: token.expires_s,
            last_used_s: None,
        })
    }
}

impl User {
    fn set_password(&mut self, password: Hashed, policy: &PasswordPolicy, now_s: i64) {
        let before = std::mem::replace(&mut self.password, password);
        self.former.insert(0, before);
        self.former.truncate(policy.reuse.saturating_sub(1));
        self.password_set_s = now_s;
    }

    /// The passwords that are not taken again.
    pub(super) fn used(&self, policy: &PasswordPolicy) -> Vec<Hashed> {
        std::iter::once(&self.password).chain(&self.former).take(policy.reuse).cloned().collect()
    }
}

/// A salted hash of nothing that anybody can type, to be compared with where there is no user.
pub(super) fn nobody(salt: [u8; SALT]) -> Hashed {
    Hashed::of("\0", salt)
}

fn check_name(what: &str, name: &str) -> Result<(), QueryError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
        return Err(QueryError::Invalid(format!("{what} name {name:?} is not 1 to {MAX_NAME} of A-Z a-z 0-9 . _ - @")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed(password: &str) -> Hashed {
        Hashed::of(password, [1; SALT])
    }

    fn accounts() -> Accounts {
        let mut accounts = Accounts::default();
        accounts.add("ann", Role::Admin, hashed("ann's password"), 1000).unwrap();
        accounts.add("bob", Role::Operator, hashed("bob's password"), 1000).unwrap();
        accounts
    }

    fn token(accounts: &mut Accounts, role: Role, owner: Option<&str>, seed: u8) -> (String, String) {
        let wanted = NewToken { name: "ci".into(), role, lifetime_s: Some(100), ..NewToken::default() };
        accounts.make_token(&wanted, (owner, "ann"), &[seed; TOKEN_ID + TOKEN_SECRET], 1000).unwrap()
    }

    #[test]
    fn names_are_plain_and_unique() {
        let mut accounts = accounts();
        for name in ["", "a b", "a/b", "ü", "a\n", "<b>", &"x".repeat(64)] {
            assert!(
                matches!(accounts.add(name, Role::Viewer, hashed("x"), 0), Err(QueryError::Invalid(_))),
                "{name:?}"
            );
        }
        assert!(matches!(accounts.add("ann", Role::Viewer, hashed("x"), 0), Err(QueryError::Conflict(_))));
        assert!(matches!(accounts.remove("carol"), Err(QueryError::NotFound(_))));
    }

    #[test]
    fn former_passwords_are_remembered_as_the_policy_says() {
        let mut accounts = accounts();
        let policy = PasswordPolicy { reuse: 3, ..PasswordPolicy::default() };
        for n in 0..5 {
            accounts.set_own_password("bob", hashed(&format!("password {n}")), &policy, 2000 + n).unwrap();
        }
        let used = accounts.user("bob").unwrap().used(&policy);
        let known = |password: &str| used.iter().any(|hashed| hashed.is(password));
        assert_eq!([1, 2, 3, 4].map(|n| known(&format!("password {n}"))), [false, true, true, true]);
        assert_eq!(accounts.user("bob").unwrap().password_set_s, 2004);
    }

    #[test]
    fn changes_of_a_day_are_limited() {
        let mut accounts = accounts();
        let policy = PasswordPolicy { changes_per_day: 2, ..PasswordPolicy::default() };
        let mut change = |now_s| accounts.set_own_password("bob", hashed("x"), &policy, now_s).is_ok();
        assert_eq!([0, 10, 20, 86_399, 86_400, 86_401].map(&mut change), [true, true, false, false, true, false]);
        let patch = UserPatch { password: Some("x".into()), ..UserPatch::default() };
        let set = accounts.change("bob", &patch, Some(hashed("y")), &policy, 86_402);
        assert!(set.unwrap(), "an admin may, and ends the sessions");
        assert!(!accounts.change("bob", &UserPatch::default(), None, &policy, 0).unwrap());
    }

    #[test]
    fn tokens_are_known_by_their_secret_until_they_end() {
        let mut accounts = accounts();
        let (id, secret) = token(&mut accounts, Role::Operator, None, 7);
        let granted = accounts.bearer(&secret, 1099).unwrap();
        assert_eq!([1099, 1100].map(|now_s| accounts.role_of_token(&id, now_s)), [Some(Role::Operator), None]);
        assert_eq!((granted.id.as_str(), granted.role), (id.as_str(), Role::Operator));
        assert!(accounts.bearer(&secret, 1100).is_none(), "expired");
        let other = format!("{}0", &secret[..secret.len() - 1]);
        for wrong in ["", "lbt", "lbt_", &format!("lbt_{id}"), &format!("lbt_{id}_"), &other, &secret[4..]] {
            assert!(accounts.bearer(wrong, 1000).is_none(), "{wrong}");
        }
        let kept = serde_json::to_string(&accounts).unwrap();
        assert!(!kept.contains(&secret) && !kept.contains(secret.rsplit('_').next().unwrap()));
        accounts.revoke(&id).unwrap();
        assert!(accounts.bearer(&secret, 1000).is_none());
        assert!(accounts.revoke(&id).is_err());
    }

    #[test]
    fn a_token_is_worth_no_more_than_its_owner() {
        let mut accounts = accounts();
        let (_, secret) = token(&mut accounts, Role::Admin, Some("bob"), 7);
        assert_eq!(accounts.bearer(&secret, 1000).unwrap().role, Role::Operator);
        accounts.users.get_mut("bob").unwrap().disabled = true;
        assert!(accounts.bearer(&secret, 1000).is_none());
        accounts.users.get_mut("bob").unwrap().disabled = false;
        accounts.remove("bob").unwrap();
        assert!(accounts.bearer(&secret, 1000).is_none() && accounts.tokens.is_empty());
    }

    #[test]
    fn tokens_are_asked_for_sensibly() {
        let mut accounts = accounts();
        let rows: [(&str, &[&str], Option<u64>); 6] = [
            ("", &[], None),
            ("ci", &["pools"], None),
            ("ci", &["/api/../users"], None),
            ("ci", &["/a"; 33], None),
            ("ci", &[], Some(0)),
            ("ci", &[], Some(u64::MAX)),
        ];
        for (name, paths, lifetime_s) in rows {
            let paths = paths.iter().map(|path| (*path).to_owned()).collect();
            let wanted = NewToken { name: name.into(), role: Role::Viewer, paths, lifetime_s };
            let made = accounts.make_token(&wanted, (None, "root"), &[0; TOKEN_ID + TOKEN_SECRET], 0);
            assert!(matches!(made, Err(QueryError::Invalid(_))), "{wanted:?}");
        }
    }
}
