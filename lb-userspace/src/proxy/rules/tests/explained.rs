//! What `lbctl trace URL` says of rules.

use super::*;
use crate::control::proxy::trace::Outcome;

#[test]
fn each_rule_is_explained() {
    let api = Condition::Is(Fact::Path, Test::Prefix(texts(&["/api"])));
    let office = Network { address: [10, 0, 0, 0].into(), prefix: 8 };
    let internal = Condition::Is(Fact::ClientAddress, Test::Within(vec![office]));
    let key = Condition::Is(Fact::Header("x-key".to_owned()), Test::Present);
    let rules = Rules {
        request: vec![
            rule("internal", Condition::All(vec![api.clone(), internal]), vec![Action::Drop]),
            rule("mark", api, vec![set("x", "1"), Action::SetPath("/v2".to_owned()), Action::Rate("slow".to_owned())]),
            rule(
                "key",
                Condition::Not(Box::new(key)),
                vec![Action::Redirect { status: 302, to: "https://%{host}%{path}".to_owned(), keep_path: false }],
            ),
            rule("late", Condition::Always, vec![respond(500)]),
        ],
        ..Rules::default()
    };
    let bench = Bench::new(rules);
    let request = Request::get("/api/x");
    for _ in 0..3 {
        // Explaining takes nothing from limits: it says the same each time.
        let told = bench.set.explain(&scope(&request, None, &[]));
        let outcomes: Vec<_> = told.iter().map(|told| (told.rule.as_str(), told.outcome)).collect();
        let expected = [
            ("internal", Outcome::NotMatched),
            ("mark", Outcome::Matched),
            ("key", Outcome::Ended),
            ("late", Outcome::NotReached),
        ];
        assert_eq!(outcomes, expected);
        assert_eq!(told[0].why, "client address 192.0.2.7 is not within 10.0.0.0/8");
        assert_eq!(told[1].why, "path \"/api/x\" begins with one of /api");
        assert_eq!(told[1].did, ["sets header field x", "path is now /v2", "counts in its rate class"]);
        assert_eq!(told[2].why, "there is no header field x-key");
        assert_eq!(told[2].did, ["redirects with 302 to https://example.org/v2"]);
        assert_eq!(told[3].why, "\"key\" ended the list");
    }
}
