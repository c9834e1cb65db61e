//! Every mistake is found and named.

use super::*;

fn mistakes(rules: Rules) -> Vec<String> {
    rules.mistakes().iter().map(ToString::to_string).collect()
}

fn rule(when: Condition, actions: Vec<Action>) -> Rule {
    Rule { name: "r".to_owned(), when, actions }
}

fn is(fact: Fact, test: Test) -> Condition {
    Condition::Is(fact, test)
}

fn one_of(value: &str) -> Test {
    Test::OneOf(vec![value.to_owned()])
}

#[test]
fn mistakes_of_conditions() {
    let network = crate::control::proxy::Network { address: [10, 0, 0, 0].into(), prefix: 8 };
    let texts = |text: &str| vec![text.to_owned()];
    let cases = [
        (is(Fact::Path, Test::Prefix(texts("/a"))), None),
        (is(Fact::Path, Test::Prefix(vec![])), Some("it is empty")),
        (is(Fact::Path, Test::Contains(texts(""))), Some("an empty text is part of every text")),
        (is(Fact::Path, Test::Regex("(".to_owned())), Some("unclosed group")),
        (is(Fact::Path, Test::Regex(r"\w{1000}{1000}".to_owned())), Some("size limit")),
        (is(Fact::ClientAddress, Test::Within(vec![network])), None),
        (is(Fact::Header("x-real-ip".to_owned()), Test::Within(vec![network])), None),
        (is(Fact::ClientAddress, Test::Prefix(texts("10."))), Some("`one_of` or `within`")),
        (is(Fact::ClientAddress, one_of("10.0.0.300")), Some("no IP address")),
        (is(Fact::ClientAddress, Test::Range(1, 2)), Some("give networks")),
        (is(Fact::LocalPort, Test::Within(vec![network])), Some("give a range")),
        (is(Fact::LocalPort, Test::Regex("80".to_owned())), Some("`one_of` or `range`")),
        (is(Fact::LocalPort, one_of("http")), Some("no number")),
        (is(Fact::LocalPort, Test::Range(2, 1)), Some("2 is above 1")),
        (is(Fact::Weekday, one_of("monday")), Some("not one of mon, tue")),
        (is(Fact::Tls, one_of("yes")), Some("not one of true, false")),
        (is(Fact::Version, one_of("2.0")), Some("not one of 1.0, 1.1, 2")),
        (is(Fact::Header("a b".to_owned()), Test::Present), Some("no name of a field")),
        (is(Fact::Status, Test::Present), Some("before there is a response")),
        (Condition::All(vec![]), Some("it is empty")),
        (Condition::Not(Box::new(Condition::Any(vec![]))), Some("when.not.any: it is empty")),
    ];
    for (when, expected) in cases {
        let rules = Rules { request: vec![rule(when.clone(), vec![Action::Drop])], ..Rules::default() };
        let found = mistakes(rules);
        match expected {
            None => assert_eq!(found, Vec::<String>::new(), "{when:?}"),
            Some(part) => {
                assert!(found.len() == 1 && found[0].contains(part), "{when:?}: {found:?}");
                assert!(found[0].starts_with("request rule \"r\", when"), "{found:?}");
            }
        }
    }
    let deep = (0..20).fold(Condition::Always, |inner, _| Condition::Not(Box::new(inner)));
    assert!(mistakes(Rules { request: vec![rule(deep, vec![Action::Drop])], ..Rules::default() })[0].contains("16"));
}

#[test]
fn mistakes_of_actions() {
    let text = str::to_owned;
    let set = |name: &str, value: &str| Action::SetHeader(text(name), text(value));
    let redirect = |status, to: &str| Action::Redirect { status, to: text(to), keep_path: false };
    let respond = |status, body: &str| Action::Respond { status, content_type: text("text/plain"), body: text(body) };
    let cookie = |name: &str, value: &str| Action::SetCookie {
        name: text(name),
        value: text(value),
        attributes: text("Path=/"),
    };
    let cases = [
        (set("X-A", "%{host}"), None),
        (set("X A", "b"), Some("no name of a header field")),
        (set("X-A", "a\r\nb: c"), Some("control characters")),
        (set("X-A", "a%0Ab"), Some("control characters")),
        (set("X-A", "%{nothing}"), Some("unknown macro")),
        (set("X-A", "%{status}"), Some("needs the response")),
        (set("Content-Length", "5"), Some("belongs to the connection")),
        (set("transfer-encoding", "chunked"), Some("belongs to the connection")),
        (Action::DeleteHeader(text("Connection")), Some("belongs to the connection")),
        (Action::DeleteHeader(text("Host")), Some("needs its Host")),
        (Action::AddHeader(text("Host"), text("b")), Some("one Host")),
        (Action::AllowHeaders(vec![text("")]), Some("no name of a header field")),
        (redirect(301, "https://%{host}/"), None),
        (redirect(200, "/"), Some("301, 302, 303, 307 or 308")),
        (redirect(301, "https://a.example/b c"), Some("neither blanks")),
        (redirect(301, "https://a.example/é"), Some("neither blanks")),
        (redirect(301, "https://a.example/#b"), None),
        (Action::SetQuery(text("a=%{host}")), None),
        (Action::SetQuery(text("a=b c")), Some("neither blanks")),
        (Action::SetQuery(text("a#b")), Some("%23")),
        (respond(404, "a\r\nb"), None),
        (respond(101, ""), Some("200 to 599")),
        (Action::SetPath(text("x")), Some("begins with `/`")),
        (Action::SetPath(text("/x\n")), Some("control characters")),
        (Action::RewritePath { regex: text("["), with: text("") }, Some("unclosed character class")),
        (Action::RewritePath { regex: text("a"), with: text("%0d") }, Some("control characters")),
        (cookie("a", "b"), None),
        (cookie("a b", "b"), Some("no name of a cookie")),
        (Action::DeleteCookie(text("")), Some("no name of a cookie")),
        (Action::MaxConnections(0), Some("0 requests")),
        (Action::Log(text("%{")), Some("has no `}`")),
    ];
    for (action, expected) in cases {
        let rules = Rules { request: vec![rule(Condition::Always, vec![action.clone()])], ..Rules::default() };
        let found = mistakes(rules);
        match expected {
            None => assert_eq!(found, Vec::<String>::new(), "{action:?}"),
            Some(part) => assert!(found.len() == 1 && found[0].contains(part), "{action:?}: {found:?}"),
        }
    }
}

#[test]
fn phases_have_their_actions() {
    let pool = Action::Pool("p".to_owned());
    let header = Action::SetHeader("a".to_owned(), "%{status}".to_owned());
    let log = Action::Log("%{status}".to_owned());
    let rules = |action: &Action, phase| {
        let list = vec![rule(Condition::Always, vec![action.clone()])];
        match phase {
            Phase::Request => Rules { request: list, ..Rules::default() },
            Phase::Response => Rules { response: list, ..Rules::default() },
            Phase::Completion => Rules { completion: list, ..Rules::default() },
        }
    };
    let ok = |action: &Action, phase| mistakes(rules(action, phase)).is_empty();
    use Phase::{Completion, Request, Response};
    assert_eq!([Request, Response, Completion].map(|phase| ok(&pool, phase)), [true, false, false]);
    assert_eq!([Request, Response, Completion].map(|phase| ok(&header, phase)), [false, true, false]);
    assert_eq!([Request, Response, Completion].map(|phase| ok(&log, phase)), [false, true, true]);
}

#[test]
fn what_is_never_done_is_told() {
    let never = vec![Action::Drop, Action::Log("x".to_owned())];
    let found = mistakes(Rules { request: vec![rule(Condition::Always, never)], ..Rules::default() });
    assert!(found[0].contains("actions[0]: it ends the list"), "{found:?}");
    let idle = Rules { request: vec![rule(Condition::Always, vec![])], ..Rules::default() };
    assert!(mistakes(idle)[0].contains("does nothing"));
    let many = Rules { request: vec![rule(Condition::Always, vec![Action::Drop]); MAX_RULES + 5], ..Rules::default() };
    assert_eq!(mistakes(many).len(), 1);
}

#[test]
fn safe_texts_have_no_control_characters_in_any_spelling() {
    for (text, expected) in [
        ("", true),
        ("a\tb é %20%2F 100%", true),
        ("%0", true),
        ("%250d", true),
        ("\r", false),
        ("\n", false),
        ("\0", false),
        ("\x7f", false),
        ("a%0d", false),
        ("%0A%41", false),
        ("%00", false),
        ("%%0a", false),
    ] {
        assert_eq!(is_safe(text.as_bytes()), expected, "{text:?}");
    }
}
