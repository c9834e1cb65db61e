//! Users, tokens and sessions over real HTTPS, as a browser, a script and an attacker use them.

mod client;
mod limits;
mod matrix;

use std::{io::Read, net::TcpStream};

use rustls::{ClientConnection, StreamOwned};
use serde_json::{Value, json};

use self::client::{Https, PASSWORD, Session};

#[test]
fn the_first_user_is_made_by_a_one_time_token() {
    let api = Https::start("");
    let file = api.local.state("setup-token");
    let token = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    assert_eq!(api.get("/api/v1/status").status, 401, "there is no default password");
    let setup = |token: &str, password: &str| {
        let body = json!({"token": token, "name": "ann", "password": password});
        api.send("POST", "/api/v1/setup", &[], Some(body))
    };
    assert_eq!(setup(&"0".repeat(64), PASSWORD).status, 401);
    assert_eq!(setup(&token, "short").status, 422);
    let made = setup(&token, PASSWORD);
    assert_eq!((made.status, &made.json()["role"]), (200, &json!("admin")), "{}", made.body);
    assert!(!file.exists());
    assert_eq!(setup(&token, PASSWORD).status, 401, "it is worth nothing any more");
    assert_eq!(api.log_in("ann", PASSWORD).unwrap().get("/api/v1/status").status, 200);
}

#[test]
fn a_session_is_a_cookie_that_only_our_own_page_can_use() {
    let api = Https::start("");
    api.add("ann", "operator");
    let body = json!({"name": "ann", "password": PASSWORD});
    let answer = api.send("POST", "/api/v1/session", &[], Some(body.clone()));
    let cookie = answer.header("set-cookie").unwrap();
    for attribute in ["__Host-lb=", "Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    let foreign = [("origin", "https://evil.example")];
    assert_eq!(
        api.send("POST", "/api/v1/session", &foreign, Some(body)).status,
        403,
        "nobody is logged in from elsewhere"
    );

    let session = api.log_in("ann", PASSWORD).unwrap();
    assert_eq!(session.get("/api/v1/session").json()["name"], "ann");
    let change = |headers: &[(&str, &str)]| {
        let cookie = [("cookie", session.cookie.as_str())];
        let headers: Vec<_> = cookie.iter().chain(headers).copied().collect();
        api.send("PATCH", "/api/v1/pools/web", &headers, Some(json!({"forwarding": "nat"}))).status
    };
    let (origin, csrf) = (("origin", api.origin.as_str()), ("x-csrf-token", session.csrf.as_str()));
    assert_eq!(change(&[]), 403);
    assert_eq!(change(&[csrf]), 403, "no origin");
    assert_eq!(change(&[origin]), 403, "no token");
    assert_eq!(change(&[csrf, ("origin", "https://evil.example")]), 403);
    assert_eq!(change(&[csrf, ("origin", "null")]), 403);
    assert_eq!(change(&[origin, ("x-csrf-token", "0")]), 403);
    assert_eq!(change(&[origin, csrf]), 200);
    // A browser sends forms without asking; they are not understood.
    let form = [("cookie", session.cookie.as_str()), origin, csrf, ("content-type", "text/plain")];
    assert_eq!(api.send("PATCH", "/api/v1/pools/web", &form, Some(json!({"forwarding": "nat"}))).status, 415);
}

#[test]
fn a_session_dies_at_logout_with_its_password_and_with_its_role() {
    let api = Https::start("");
    api.add("ann", "operator");
    let log_in = |password: &str| api.log_in("ann", password).unwrap();
    let is_alive = |session: &Session<'_>| session.get("/api/v1/status").status == 200;

    let (first, second) = (log_in(PASSWORD), log_in(PASSWORD));
    assert_ne!(first.cookie, second.cookie, "each login has its own");
    assert_eq!(first.send("DELETE", "/api/v1/session", None).status, 200);
    assert!(!is_alive(&first) && is_alive(&second));

    let change =
        |old: &str, new: &str| second.send("PUT", "/api/v1/session/password", Some(json!({"old": old, "new": new})));
    assert_eq!(change("wrong", "another good password").status, 401);
    assert_eq!(change(PASSWORD, PASSWORD).status, 422, "the same again");
    assert_eq!(change(PASSWORD, "another good password").status, 200);
    assert!(!is_alive(&second));
    assert!(api.log_in("ann", PASSWORD).is_none());

    let third = log_in("another good password");
    assert_eq!(api.local.request("PATCH", "/api/v1/users/ann", r#"{"role":"viewer"}"#).0, 200);
    assert!(!is_alive(&third), "a new role is a new session");
    let fourth = log_in("another good password");
    assert_eq!(api.local.request("PATCH", "/api/v1/users/ann", r#"{"disabled":true}"#).0, 200);
    assert!(!is_alive(&fourth) && api.log_in("ann", "another good password").is_none());
}

#[test]
fn a_stream_ends_with_what_opened_it() {
    let api = Https::start("");
    api.add("ann", "viewer");
    // The last chunk, after whatever was told.
    let ends = |mut stream: StreamOwned<ClientConnection, TcpStream>| {
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        while !answer.ends_with(b"0\r\n\r\n") {
            let count = stream.read(&mut buffer).expect("it ends, before nothing is heard for long");
            answer.extend_from_slice(&buffer[..count]);
            if count == 0 {
                break;
            }
        }
    };
    let session = api.log_in("ann", PASSWORD).unwrap();
    let stream = api.listen(("cookie", &session.cookie));
    assert_eq!(session.send("DELETE", "/api/v1/session", None).status, 200);
    ends(stream);

    let token = api.token("viewer", json!([]));
    let stream = api.listen(("authorization", &format!("Bearer {}", token.secret)));
    let revoked = api.local.request("DELETE", &format!("/api/v1/tokens/{}", token.id()), "");
    assert_eq!(revoked.0, 200, "{revoked:?}");
    ends(stream);
}

#[test]
fn secrets_of_the_configuration_are_for_admins() {
    let api = Https::start("");
    let text = |role: &str, path: &str| api.token(role, json!([])).get(path).body;
    for path in ["/api/v1/config", "/api/v1/revisions/1", "/api/v1/config/dataplane", "/api/v1/config/alerts"] {
        let (admin, operator) = (text("admin", path), text("operator", path));
        assert!(admin.contains("CANARY") && !operator.contains("CANARY"), "{path}: {operator}");
        assert!(operator.contains("(redacted)"), "{path}: {operator}");
    }
    let diff = |role: &str| api.token(role, json!([])).get("/api/v1/config/diff").json();
    assert!(diff("admin")["text"] != "" && diff("operator")["text"] == "");
}

#[test]
fn guessing_becomes_slow_and_tells_nothing() {
    let api = Https::start("");
    api.add("ann", "operator");
    let attempt = |name: &str, password: &str| {
        api.send("POST", "/api/v1/session", &[], Some(json!({"name": name, "password": password})))
    };
    let (known, unknown) = (attempt("ann", "wrong"), attempt("nobody", "wrong"));
    assert_eq!((known.status, &known.body), (unknown.status, &unknown.body));
    assert_eq!(known.status, 401);
    let statuses: Vec<u16> = (0..5).map(|_| attempt("ann", "wrong").status).collect();
    assert_eq!(statuses, [401, 401, 401, 401, 429]);
    let right = attempt("ann", PASSWORD);
    assert_eq!(right.status, 429, "also the right one waits");
    let wait: u64 = right.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    api.add("bob", "viewer");
    assert!(api.log_in("bob", PASSWORD).is_some(), "others do not wait");
}

#[test]
fn the_last_who_may_do_everything_stays() {
    let api = Https::start("");
    api.add("ann", "admin");
    let session = api.log_in("ann", PASSWORD).unwrap();
    for (method, body) in
        [("DELETE", None), ("PATCH", Some(json!({"role": "viewer"}))), ("PATCH", Some(json!({"disabled": true})))]
    {
        assert_eq!(session.send(method, "/api/v1/users/ann", body).status, 409);
    }
    assert_eq!(session.get("/api/v1/users/ann").status, 200);
    assert_eq!(api.local.request("DELETE", "/api/v1/users/ann", "").0, 200, "root may");
    assert_eq!(session.get("/api/v1/users/ann").status, 401);
}

#[test]
fn tokens_do_what_they_are_for() {
    let api = Https::start("");
    let scoped = api.token("operator", json!(["/api/v1/pools"]));
    assert_eq!(scoped.get("/api/v1/pools").status, 200);
    assert_eq!(scoped.get("/api/v1/pools/web").status, 200);
    assert_eq!(scoped.get("/api/v1/status").status, 403);
    assert_eq!(scoped.send("PATCH", "/api/v1/pools/web", Some(json!({"forwarding": "nat"}))).status, 200);
    assert_eq!(scoped.get("/api/v1/pools/../status").status, 400);
    assert_eq!(api.token("operator", json!([])).get("/api/v1/users").status, 403);
    let admin = api.token("admin", json!([]));
    let more = json!({"name": "x", "role": "viewer"});
    assert_eq!(admin.send("POST", "/api/v1/tokens", Some(more)).status, 409, "a stolen one makes no others");
    let id = scoped.id();
    assert_eq!(admin.send("DELETE", &format!("/api/v1/tokens/{id}"), None).status, 200);
    assert_eq!(scoped.get("/api/v1/pools").status, 401);
    let other = api.send("GET", "/healthz", &[("authorization", "Basic YTpi")], None);
    assert_eq!(other.status, 401, "what is given must be right, also where nothing is needed");
}

#[test]
fn wrong_tokens_lock_nobody_out_behind_the_same_address() {
    let api = Https::start("");
    api.add("ann", "admin");
    let good = api.token("viewer", json!([]));
    let wrong =
        || api.send("GET", "/api/v1/status", &[("authorization", "Bearer lbt_0011223344556677_old")], None).status;
    let statuses: Vec<u16> = (0..60).map(|_| wrong()).collect();
    assert_eq!((statuses[0], statuses[59]), (401, 429), "who tries on is told to wait");
    assert_eq!(good.get("/api/v1/status").status, 200);
    assert!(api.log_in("ann", PASSWORD).is_some());
}

#[test]
fn what_is_changed_is_written_down_and_no_secret_is() {
    const CANARY: &str = "CANARY-7f3a long enough";
    let api = Https::start("");
    let add = json!({"name": "ann", "role": "operator", "password": CANARY});
    assert_eq!(api.local.request("POST", "/api/v1/users", &add.to_string()).0, 200);
    let session = api.log_in("ann", CANARY).unwrap();
    assert_eq!(session.send("PATCH", "/api/v1/pools/web", Some(json!({"forwarding": "nat"}))).status, 200);
    let change = json!({"old": CANARY, "new": format!("{CANARY} 2")});
    assert_eq!(session.send("PUT", "/api/v1/session/password", Some(change)).status, 200);
    assert!(api.log_in("ann", &format!("{CANARY} 3")).is_none());
    let secret = api.token("viewer", json!([])).secret;

    let page = api.local.get("/api/v1/audit?limit=100");
    let entries = page["entries"].as_array().unwrap();
    let line = |what: &str, status: u16| {
        let found = entries.iter().find(|entry| entry["what"] == what && entry["status"] == status);
        found.cloned().unwrap_or_else(|| panic!("no {what} {status} in {page:#}"))
    };
    assert_eq!(line("POST /api/v1/users", 200)["from"], "socket");
    assert_eq!(line("POST /api/v1/users", 200)["after"]["name"], "ann");
    assert_eq!(line("POST /api/v1/session", 200)["who"], "ann");
    assert_eq!(line("POST /api/v1/session", 401)["who"], "ann");
    let changed = line("PATCH /api/v1/pools/web", 200);
    assert_eq!((&changed["who"], &changed["role"]), (&json!("ann"), &json!("operator")));
    assert_eq!((&changed["before"]["forwarding"], &changed["after"]["forwarding"]), (&json!("dsr"), &json!("nat")));
    assert_eq!(api.local.get("/api/v1/audit/verification")["intact"], json!(true));

    let mut seen =
        page.to_string() + &api.local.get("/api/v1/users").to_string() + &api.local.get("/api/v1/tokens").to_string();
    for path in ["audit/audit.log", "users.json"] {
        seen += &std::fs::read_to_string(api.local.state(path)).unwrap();
    }
    assert!(!seen.contains("CANARY-7f3a") && !seen.contains(&secret) && !seen.contains(&session.cookie[10..]));
}

#[test]
fn users_and_the_chain_survive_a_restart_and_damage_lets_nobody_in() {
    let mut api = Https::start("");
    api.add("ann", "operator");
    let token = api.token("viewer", json!([])).secret.clone();
    let session = api.log_in("ann", PASSWORD).unwrap().cookie;
    api.restart();
    assert!(api.log_in("ann", PASSWORD).is_some());
    let with = |name: &'static str, value: &str| api.send("GET", "/api/v1/status", &[(name, value)], None).status;
    assert_eq!(with("authorization", &format!("Bearer {token}")), 200);
    assert_eq!(with("cookie", &session), 401, "sessions end with lbd");
    assert_eq!(api.local.get("/api/v1/audit/verification")["intact"], json!(true));

    let users = api.local.state("users.json");
    let text = std::fs::read_to_string(&users).unwrap();
    std::fs::write(&users, text.replacen("operator", "admin", 1)).unwrap();
    api.restart();
    assert!(api.log_in("ann", PASSWORD).is_none());
    assert!(api.local.state("users.json.damaged").exists());
    let status: Value = api.local.get("/api/v1/users");
    assert_eq!(status, json!([]));
}
