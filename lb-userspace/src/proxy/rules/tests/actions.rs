//! What actions do.

use super::*;
use crate::proxy::rules::edits::NoteKind;

#[test]
fn header_fields_are_edited_in_order() {
    let name = str::to_owned;
    let add = |field: &str, value: &str| Action::AddHeader(name(field), name(value));
    let delete = |field: &str| Action::DeleteHeader(name(field));
    /// Actions, fields added, fields removed.
    type Case = (Vec<Action>, &'static [(&'static str, &'static str)], &'static [&'static str]);
    let cases: [Case; 6] = [
        (vec![set("X-A", " v ")], &[("x-a", "v")], &["x-a"]),
        (vec![add("X-A", "1"), add("X-A", "2")], &[("x-a", "1"), ("x-a", "2")], &[]),
        (vec![add("X-A", "1"), set("X-A", "2"), add("X-A", "3")], &[("x-a", "2"), ("x-a", "3")], &["x-a"]),
        (vec![set("X-A", "1"), delete("x-a")], &[], &["x-a"]),
        (
            vec![add("X-A", "1"), Action::AllowHeaders(texts(&["X-B"])), add("X-C", "2")],
            &[("x-c", "2")],
            &["x-a", "accept"],
        ),
        (vec![Action::AllowHeaders(texts(&["X-A", "X-B"])), Action::AllowHeaders(texts(&["X-B"]))], &[], &["x-a"]),
    ];
    for (actions, added, removed) in cases {
        let mut bench = Bench::on_request(actions.clone());
        assert_eq!(bench.request(&Request::default()), Verdict::Continue);
        assert_eq!(bench.added(), added, "{actions:?}");
        for field in removed {
            assert!(bench.edits.request.removes(field), "{actions:?}: {field}");
        }
        for field in ["host", "content-length", "transfer-encoding", "x-b"] {
            assert!(!bench.edits.request.removes(field), "{actions:?}: {field}");
        }
        assert!(bench.edits.response.is_empty());
    }
}

#[test]
fn macros_are_put_in() {
    let request = Request::get("/a/b?x=1%202").with("x-h", "hv").with("cookie", "c=cv");
    let cases = [
        ("%{client_address}|%{local_address}:%{local_port}", "192.0.2.7|198.51.100.1:8080"),
        ("%{scheme}://%{host}%{path}?%{query}", "http://example.org/a/b?x=1%202"),
        ("%{method} %{raw_url} %{version}", "GET /a/b?x=1%202 1.1"),
        ("%{header:X-H}-%{cookie:c}-%{parameter:x}-%{header:none}", "hv-cv-1 2-"),
        ("%{request_id}", "00000000000000000000000000001234"),
        ("%{virtual_server}", "test"),
        ("[%{tls_version}%{tls_cipher}%{tls_server_name}]", "[]"),
    ];
    for (text, expected) in cases {
        let mut bench = Bench::on_request(vec![set("x", text)]);
        assert_eq!(bench.request(&request), Verdict::Continue, "{text}");
        assert_eq!(bench.added(), [("x", expected)], "{text}");
    }
}

#[test]
fn groups_are_those_of_the_last_regex_that_matched() {
    let regex = |text: &str| Condition::Is(Fact::Path, Test::Regex(text.to_owned()));
    let mut bench = Bench::new(Rules {
        request: vec![
            rule("first", regex("^/(a)/(b)?"), vec![set("x-1", "%{1}%{2}%{3}")]),
            rule("no", regex("^/(z)"), vec![set("x-2", "%{1}")]),
            rule("still", Condition::Always, vec![set("x-3", "%{1}")]),
            rule("any", Condition::Any(vec![regex("^/(nothing)"), regex("/(c)$")]), vec![set("x-4", "%{1}")]),
        ],
        ..Rules::default()
    });
    bench.request(&Request::get("/a/c"));
    assert_eq!(bench.added(), [("x-1", "a"), ("x-3", "a"), ("x-4", "c")]);
}

#[test]
fn redirects_keep_what_they_should() {
    let cases = [
        ("https://%{host}", true, "/a/b?x=1", "https://example.org/a/b?x=1"),
        ("https://%{host}", false, "/a/b?x=1", "https://example.org"),
        ("https://other/", true, "/a", "https://other/a"),
        ("/new", true, "/a?q", "/new/a?q"),
        ("/login?to=%{path}", false, "/a b", "/login?to=/a%20b"),
        ("%{path}", false, "//evil.example/x", "/evil.example/x"),
        ("%{path}x", true, "//evil.example", "/evil.example/evil.example"),
        ("//cdn.example", true, "/x", "//cdn.example/x"),
    ];
    for (to, keep_path, url, expected) in cases {
        let mut bench = Bench::on_request(vec![Action::Redirect { status: 307, to: to.to_owned(), keep_path }]);
        let verdict = bench.request(&Request::get(url));
        assert_eq!(verdict, Verdict::Redirect { status: 307 }, "{to}");
        if to == "%{path}x" {
            assert!(!bench.edits.location().starts_with("//"), "{}", bench.edits.location());
        } else {
            assert_eq!(bench.edits.location(), expected, "{to} for {url}");
        }
    }
}

#[test]
fn paths_are_rewritten_and_normalised_again() {
    let rewrite = |regex: &str, with: &str| Action::RewritePath { regex: regex.to_owned(), with: with.to_owned() };
    let set_path = |path: &str| Action::SetPath(path.to_owned());
    let cases = [
        (rewrite("^/old/(.*)$", "/new/$1"), "/old/x", Some("/new/x")),
        (rewrite("^/old", "/new"), "/other", None),
        (rewrite("a", "b"), "/a/a", Some("/b/b")),
        (rewrite("^/a", "/.."), "/a/b", Some("/b")),
        (set_path("/x%{path}"), "/a", Some("/x/a")),
        (set_path("/x/../y/./%{path}"), "/a", Some("/y/a")),
        (set_path("/%{parameter:f}"), "/a?f=q?r%23%20s", Some("/q%3Fr%23%20s")),
        (set_path("/%{parameter:f}"), "/a?f=../../b", Some("/b")),
    ];
    for (action, url, expected) in cases {
        let mut bench = Bench::on_request(vec![action.clone()]);
        let verdict = bench.request(&Request::get(url));
        assert_eq!(verdict, Verdict::Continue, "{action:?} on {url}");
        assert_eq!(bench.edits.path(), expected, "{action:?} on {url}");
    }
}

#[test]
fn queries_cookies_and_caching() {
    let cookie = |value: &str| Action::SetCookie {
        name: "id".to_owned(),
        value: value.to_owned(),
        attributes: "; Path=/; Secure".to_owned(),
    };
    let mut bench = Bench::on_request(vec![
        Action::SetQuery("%{query}&more=%{header:x}".to_owned()),
        cookie("%{header:x}"),
        Action::DeleteCookie("a".to_owned()),
        Action::CacheControl("no-store".to_owned()),
    ]);
    let request = Request::get("/?q=1").with("x", "v; Domain=evil").with("cookie", "a=1; b=2; a=3");
    assert_eq!(bench.request(&request), Verdict::Continue);
    assert_eq!(bench.edits.query(), Some(Some("q=1&more=v;%20Domain=evil")));
    assert_eq!(bench.added(), [("cookie", "b=2")]);
    let response: Vec<_> = bench.edits.response.added().collect();
    assert_eq!(response, [("set-cookie", "id=v%3B%20Domain=evil; Path=/; Secure"), ("cache-control", "no-store")]);
    assert!(bench.edits.response.removes("cache-control") && !bench.edits.response.removes("set-cookie"));

    let mut bench = Bench::on_request(vec![Action::DeleteCookie("a".to_owned()), Action::SetQuery(String::new())]);
    bench.request(&Request::get("/?q").with("cookie", "a=1"));
    assert!(bench.edits.request.removes("cookie") && bench.added().is_empty());
    assert_eq!(bench.edits.query(), Some(None));
}

#[test]
fn answers_are_escaped_for_what_they_are() {
    for (content_type, expected) in [
        ("text/html; charset=utf-8", "no /&lt;script&gt;\"x&#39;"),
        ("application/problem+json", "no /\\u003cscript\\u003e\"x'"),
        ("text/plain", "no /<script>\"x'"),
        ("image/svg+xml", "no /&lt;script&gt;\"x&#39;"),
    ] {
        let (content_type, body) = (content_type.to_owned(), "no %{path}\"x%{parameter:q}".to_owned());
        let mut bench =
            Bench::on_request(vec![Action::Respond { status: 404, content_type: content_type.clone(), body }]);
        let request = Request { path: "/<script>".to_owned(), query: Some("q='".to_owned()), ..Request::default() };
        assert_eq!(bench.request(&request), Verdict::Respond { status: 404 });
        assert_eq!((bench.edits.body(), bench.edits.content_type()), (expected, content_type.as_str()));
    }
}

#[test]
fn notes_are_kept_with_their_rule() {
    let notes = vec![Action::Log("path %{header:x}".to_owned()), Action::Event("seen".to_owned())];
    let mut bench = Bench::on_request(notes);
    bench.request(&Request::default().with("x", "a\r\nb"));
    let notes: Vec<_> = bench.edits.notes().collect();
    assert_eq!(notes, [(NoteKind::Log, RuleId(0), "path a\\x0d\\x0ab"), (NoteKind::Event, RuleId(0), "seen")]);
}

#[test]
fn limits_end_the_list_when_they_are_reached() {
    let mut bench = Bench::on_request(vec![Action::Rate("slow".to_owned()), respond(200)]);
    assert_eq!(bench.request(&Request::default()), Verdict::Respond { status: 200 });
    let limited = Verdict::Limited { status: 429, retry_after: Some(Duration::from_millis(990)) };
    assert_eq!(bench.request(&Request::default()), limited);
    bench.now += Duration::from_secs(1);
    assert_eq!(bench.request(&Request::default()), Verdict::Respond { status: 200 });

    let mut bench = Bench::on_request(vec![Action::MaxConnections(1), Action::Bandwidth("thin".to_owned())]);
    assert_eq!(bench.request(&Request::default()), Verdict::Continue);
    assert_eq!((bench.edits.leases.len(), bench.edits.bandwidth.len()), (1, 1));
    let held = std::mem::take(&mut bench.edits);
    assert_eq!(bench.request(&Request::default()), Verdict::Limited { status: 503, retry_after: None });
    drop(held);
    assert_eq!(bench.request(&Request::default()), Verdict::Continue);
}

#[test]
fn responses_have_their_rules() {
    let slow = Condition::All(vec![
        Condition::Is(Fact::Status, Test::Range(500, 599)),
        Condition::Is(Fact::ResponseHeader("Server".to_owned()), Test::Prefix(texts(&["old"]))),
    ]);
    let actions = vec![
        set("X-From", "%{pool}/%{node} %{status} %{response_header:server}"),
        Action::DeleteHeader("Server".to_owned()),
        Action::DeleteCookie("id".to_owned()),
    ];
    let mut bench = Bench::new(Rules { response: vec![rule("hide", slow, actions)], ..Rules::default() });
    let response = Response::new(503).with("server", "old/1");
    assert_eq!(bench.request(&Request::default()), Verdict::Continue);
    assert_eq!(bench.response(&Request::default(), &response), Verdict::Continue);
    let added: Vec<_> = bench.edits.response.added().collect();
    assert_eq!(added[0], ("x-from", "nodes/node0 503 old/1"));
    assert!(added[1].1.starts_with("id=; Path=/; Expires=Thu, 01 Jan 1970"), "{added:?}");
    assert!(bench.edits.response.removes("server") && bench.edits.request.is_empty());
    bench.edits.clear();
    bench.response(&Request::default(), &Response::new(200).with("server", "old/1"));
    assert!(bench.edits.response.is_empty());
}

#[test]
fn edits_are_clean_for_the_next_request() {
    let when = Condition::Is(Fact::Path, Test::OneOf(texts(&["/all"])));
    let actions = vec![
        set("x", "1"),
        set("host", "h"),
        Action::SetPath("/p".to_owned()),
        Action::SetQuery("q".to_owned()),
        Action::CacheControl("c".to_owned()),
        Action::Log("l".to_owned()),
        Action::AllowHeaders(vec![]),
        respond(200),
    ];
    let mut bench = Bench::new(Rules { request: vec![rule("r", when, actions)], ..Rules::default() });
    bench.request(&Request::get("/all"));
    assert_eq!(bench.edits.host(), Some("h"));
    bench.request(&Request::get("/none"));
    let edits = &bench.edits;
    assert!(edits.request.is_empty() && edits.response.is_empty() && edits.rule.is_none());
    assert_eq!((edits.host(), edits.path(), edits.query(), edits.content_type()), (None, None, None, ""));
    assert_eq!(edits.notes().count(), 0);
}
