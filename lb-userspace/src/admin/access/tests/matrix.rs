//! Every role on every route by every method: nothing is let through that the table does not say.

use serde_json::json;

use super::client::Https;
use crate::{
    admin::{
        routes,
        table::{Needs, Route},
    },
    control::access::Role,
};

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

#[test]
fn nobody_gets_further_than_its_role() {
    let api = Https::start("");
    let rows = routes::rows();
    let mut paths: Vec<&str> = rows.iter().map(|row| row.terms.path).collect();
    paths.dedup();
    let tokens: Vec<_> = Role::ALL.iter().map(|role| (Some(*role), Some(api.token(role.word(), json!([]))))).collect();
    let mut refused = 0;
    for (role, token) in tokens.iter().map(|(role, token)| (*role, token.as_ref())).chain([(None, None)]) {
        for path in &paths {
            for method in METHODS {
                let asked = path.replace(['{', '}', '*'], "");
                let send = || match token {
                    Some(token) => token.send(method, &asked, None),
                    None => api.send(method, &asked, &[], None),
                };
                // So many requests in so short a time are held back; that is tested elsewhere.
                let answer = (0..1000).map(|_| send()).find(|answer| answer.status != 429).unwrap();
                let row = rows.iter().find(|row| row.terms.path == *path && row.terms.method == without_head(method));
                let what = format!("{method} {path} as {role:?}: {} {}", answer.status, answer.body);
                match row {
                    None => assert_eq!(answer.status, 405, "{what}"),
                    Some(row) if may(row, role) => assert!(![401, 403, 405].contains(&answer.status), "{what}"),
                    Some(_) => {
                        refused += 1;
                        assert_eq!(answer.status, if role.is_some() { 403 } else { 401 }, "{what}");
                    }
                }
            }
        }
    }
    assert!(refused > 60, "only {refused} were refused: is the table empty?");
}

fn without_head(method: &str) -> &str {
    if method == "HEAD" { "GET" } else { method }
}

fn may(row: &Route, role: Option<Role>) -> bool {
    match row.terms.needs {
        Needs::Nothing => true,
        Needs::Identity => role.is_some(),
        Needs::Role(needed) => role >= Some(needed),
    }
}

#[test]
fn what_needs_nothing_is_little() {
    let public: Vec<&str> =
        routes::rows().iter().filter(|row| row.terms.needs == Needs::Nothing).map(|row| row.terms.path).collect();
    let expected = [
        "/api/v1/session",
        "/api/v1/setup",
        "/api/v1/openapi.json",
        "/docs",
        "/docs/docs.js",
        "/docs/docs.css",
        "/healthz",
        "/readyz",
    ];
    assert_eq!(public, expected);
}
