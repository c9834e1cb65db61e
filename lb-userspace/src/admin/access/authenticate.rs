//! From what a request brings along to who sends it: a token, a session's cookie, or nothing. No header is believed that
//! says where a request comes from.

use std::net::IpAddr;

use axum::http::{HeaderMap, Method, header};

use super::{Access, Caller, Via, backoff::Attempt, lock, sessions, unix_s};
use crate::admin::problem::Refusal;

/// The cookie of a session: `__Host-` makes browsers insist on Secure, Path=/ and no Domain.
pub(super) const COOKIE: &str = "__Host-lb";

/// Proves that a request was made by our own page: others cannot set it.
const CSRF: &str = "x-csrf-token";

/// Longest secret that is looked at.
const MAX_SECRET: usize = 256;

impl Access {
    /// Who sends a request that came over HTTPS.
    ///
    /// # Errors
    /// When it brings a token that is not valid, or a session's cookie without proof that the user means it.
    pub(in crate::admin) fn authenticate(
        &self,
        address: IpAddr,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Caller, Refusal> {
        if let Some(authorization) = headers.get(header::AUTHORIZATION) {
            let secret = authorization.to_str().ok().and_then(|text| text.split_once(' '));
            let secret = secret.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, secret)| secret);
            return self.bearer(address, secret.unwrap_or_default().trim());
        }
        let Some(cookie) = cookie(headers) else { return Ok(Caller::nobody(address)) };
        let Some(opened) = lock(&self.sessions).find(cookie, self.now(), self.lifetimes()) else {
            return Ok(Caller::nobody(address));
        };
        let role = lock(&self.accounts).user(&opened.user).ok().filter(|user| !user.disabled).map(|user| user.role);
        let Some(role) = role else { return Ok(Caller::nobody(address)) };
        let is_safe = method == Method::GET || method == Method::HEAD;
        if !(is_safe || is_own_origin(headers) && has_csrf(headers, &opened.csrf)) {
            return Err(Refusal::forged());
        }
        let (idle_left_s, left_s) = (opened.idle_left.as_secs(), opened.left.as_secs());
        let via = Via::Session { address, id: opened.id, csrf: opened.csrf, idle_left_s, left_s };
        Ok(Caller { name: opened.user, role: Some(role), via })
    }

    /// Whether who was let in a while ago would still be: for answers that have no end.
    pub(in crate::admin) fn still_admits(&self, caller: &Caller) -> bool {
        match &caller.via {
            Via::Socket { .. } => true,
            Via::Session { id, .. } => lock(&self.sessions).lives(id, self.now(), self.lifetimes()),
            Via::Token { id, .. } => lock(&self.accounts).role_of_token(id, unix_s()) >= caller.role,
            Via::Nobody { .. } => false,
        }
    }

    fn bearer(&self, address: IpAddr, secret: &str) -> Result<Caller, Refusal> {
        let granted = (secret.len() <= MAX_SECRET).then(|| lock(&self.accounts).bearer(secret, unix_s())).flatten();
        let Some(granted) = granted else { return Err(self.wrong_token(address)) };
        lock(&self.seen).insert(format!("token {}", granted.id), unix_s());
        let via = Via::Token { address, id: granted.id, paths: granted.paths };
        Ok(Caller { name: format!("token {}", granted.name), role: Some(granted.role), via })
    }

    /// Tokens cannot be guessed (256 random bits), so that nobody has to be kept from trying. Whoever tries nevertheless is told to
    /// wait; who has a good token from the same address, behind the same NAT, does not.
    fn wrong_token(&self, address: IpAddr) -> Refusal {
        let (mut backoff, now) = (lock(&self.backoff), self.now());
        if let Some(wait) = backoff.wait(Attempt::Token, address, now) {
            return Refusal::wait(wait);
        }
        backoff.failed(Attempt::Token, address, now);
        self.counters.refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Refusal::unauthenticated()
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lists = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = lists.flat_map(|list| list.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, value)| *name == COOKIE && value.len() <= MAX_SECRET).map(|(_, value)| value)
}

/// Whether the page that made the request is ours.
pub(in crate::admin) fn is_own_origin(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match (text(header::ORIGIN), text(header::HOST)) {
        (Some(origin), Some(host)) => origin.strip_prefix("https://").is_some_and(|own| own.eq_ignore_ascii_case(host)),
        (None, _) | (_, None) => false,
    }
}

fn has_csrf(headers: &HeaderMap, wanted: &str) -> bool {
    headers.get(CSRF).and_then(|value| value.to_str().ok()).is_some_and(|given| sessions::same(given, wanted))
}
