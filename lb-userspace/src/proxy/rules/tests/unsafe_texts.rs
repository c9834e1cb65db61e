//! H6: nothing that a client writes becomes a line of a head.

use proptest::prelude::*;

use super::*;

#[test]
fn control_characters_are_refused_after_expansion() {
    let text = |text: &str| text.to_owned();
    let actions = [
        set("x", "%{header:evil}"),
        Action::AddHeader(text("x"), text("a%{header:evil}b")),
        set("host", "%{header:evil}"),
        Action::CacheControl(text("%{header:evil}")),
        Action::SetCookie { name: text("c"), value: text("v"), attributes: text("Path=%{header:evil}") },
    ];
    for evil in ["a\r\nInjected: 1", "a\nb", "a\rb", "a\0b", "a%0d%0aInjected: 1", "%0Ab", "%00", "\x7f"] {
        for action in &actions {
            let mut bench = Bench::on_request(vec![action.clone(), Action::Pool("nodes".to_owned())]);
            let verdict = bench.request(&Request::default().with("evil", evil));
            assert_eq!(verdict, Verdict::Refuse { status: 400 }, "{action:?} with {evil:?}");
        }
        let mut bench = Bench::new(Rules {
            response: vec![rule("r", Condition::Always, vec![actions[0].clone()])],
            ..Rules::default()
        });
        let verdict = bench.response(&Request::default().with("evil", evil), &Response::new(200));
        assert_eq!(verdict, Verdict::Refuse { status: 502 }, "{evil:?}");
    }
}

#[test]
fn spellings_that_only_the_whole_shows_are_refused() {
    let mut bench = Bench::on_request(vec![set("x", "%{header:a}%{header:b}")]);
    let request = Request::default().with("a", "50%").with("b", "0aInjected: 1");
    assert_eq!(bench.request(&request), Verdict::Refuse { status: 400 });
}

#[test]
fn encoded_line_ends_lead_nowhere() {
    let redirect = Action::Redirect { status: 302, to: "https://%{host}".to_owned(), keep_path: true };
    let rewrite = Action::RewritePath { regex: "^/a".to_owned(), with: "/b".to_owned() };
    let set_path = Action::SetPath("/%{parameter:p}".to_owned());
    let set_query = Action::SetQuery("p=%{parameter:p}".to_owned());
    for (action, url) in [
        (redirect.clone(), "/a%0d%0aSet-Cookie:%20x"),
        (redirect, "/a?q=%0D%0A"),
        (rewrite, "/a%0d%0a"),
        (set_path, "/?p=%0d%0ab"),
        (set_query, "/?p=%0d%0ab"),
    ] {
        let mut bench = Bench::on_request(vec![action.clone()]);
        assert_eq!(bench.request(&Request::get(url)), Verdict::Refuse { status: 400 }, "{action:?} on {url}");
    }
}

#[test]
fn a_host_is_a_host() {
    for (host, good) in [
        ("a.example", true),
        ("a.example:8080", true),
        ("[2001:db8::1]:443", true),
        ("10.0.0.1", true),
        ("", false),
        ("a b", false),
        ("a/b", false),
        ("a@b", false),
        ("a,b", false),
        ("a:b", false),
        ("[x]", false),
    ] {
        let mut bench = Bench::on_request(vec![set("host", "%{header:h}")]);
        let verdict = bench.request(&Request::default().with("h", host));
        assert_eq!(verdict == Verdict::Continue, good, "{host:?}");
        assert_eq!(bench.edits.host(), good.then_some(host), "{host:?}");
    }
}

proptest! {
    /// Whatever the client sends: what goes into heads has no line end in any spelling, or the request is refused.
    #[test]
    fn no_text_of_a_client_ends_a_line(value in "(\\PC|[\\x00-\\x20]|%0[0-9a-dA-D]|%)*", url in "/(\\PC|%0[adAD]|[ ?#\\\\])*") {
        let text = str::to_owned;
        let mut bench = Bench::on_request(vec![
            set("x", "%{header:h}%{parameter:q}"),
            Action::SetPath(text("/p/%{header:h}")),
            Action::SetQuery(text("%{header:h}")),
            Action::SetCookie { name: text("c"), value: text("%{header:h}"), attributes: text("") },
            Action::Redirect { status: 302, to: text("%{raw_url}"), keep_path: true },
        ]);
        let request = Request::get(&url).with("h", &value);
        let verdict = bench.request(&request);
        let edits = &bench.edits;
        let fields = edits.request.added().chain(edits.response.added()).map(|(_, value)| value);
        let texts = fields.chain(edits.path()).chain(edits.query().flatten()).chain([edits.location()]);
        for text in texts {
            let lower = text.to_ascii_lowercase();
            prop_assert!(!text.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t'), "{text:?}");
            prop_assert!(!["%0d", "%0a", "%00"].iter().any(|spelling| lower.contains(spelling)), "{text:?}");
        }
        if let Some(path) = edits.path() {
            prop_assert!(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()), "{path:?}");
        }
        if verdict == (Verdict::Redirect { status: 302 }) {
            prop_assert!(!edits.location().starts_with("//") && !edits.location().contains(' '));
        }
    }
}
