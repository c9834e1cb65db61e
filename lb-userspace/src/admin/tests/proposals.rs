//! Changes of the configuration over the API.

use serde_json::json;

use super::{Api, TEXT};
use crate::control::revision::{Action, Content, Edit, How, Proposal, Whole};

#[test]
fn changes_of_the_configuration_become_proposals() {
    let api = Api::start();
    assert_eq!(api.get("/api/v1/config")["main"], TEXT);
    assert_eq!(api.get("/api/v1/revisions/3")["revision"]["number"], 3);
    assert_eq!(api.get("/api/v1/config/diff")["text"], "InForce Files");
    assert_eq!(api.get("/api/v1/config/diff?from=3&to=4")["text"], "Revision(3) Revision(4)");
    let big = "#".repeat(1 << 20);
    let edit = r#"[{"path":["pool","web"],"action":{"merge":{"queue":5}}},{"path":["vip","a"],"action":"remove"}]"#;
    for (method, path, body) in [
        ("PUT", "/api/v1/config?comment=why%20not&confirm_s=60&dry_run=true", r##"{"main":"# new"}"##.to_owned()),
        ("PUT", "/api/v1/config?force=true", format!(r#"{{"main":"{big}","fragments":{{"a.toml":"b"}}}}"#)),
        ("PATCH", "/api/v1/config", edit.to_owned()),
        ("POST", "/api/v1/revisions/3/rollback", String::new()),
    ] {
        let (status, _, body) = api.request(method, path, &body);
        assert_eq!((status, body.contains("\"revision\":13")), (200, true), "{method} {path}: {body}");
    }
    let whole = |main: &str, fragments| Content::Whole(Whole { main: main.into(), fragments });
    let edits = vec![
        Edit { path: vec!["pool".into(), "web".into()], action: Action::Merge(json!({"queue": 5})) },
        Edit { path: vec!["vip".into(), "a".into()], action: Action::Remove },
    ];
    let how = How { comment: Some("why not".into()), confirm_s: Some(60), force: false, dry_run: true };
    let expected = [
        Proposal::new(whole("# new", None), None, how),
        Proposal::new(
            whole(&big, Some([("a.toml".into(), "b".into())].into())),
            None,
            How { force: true, ..How::default() },
        ),
        Proposal::new(Content::Edits(edits), None, How::default()),
        Proposal::new(Content::Revision(3), None, How::default()),
    ];
    let given = api.control.proposals.lock().unwrap();
    assert_eq!(given.iter().map(|(proposal, _)| proposal.clone()).collect::<Vec<_>>(), expected);
    assert!(given.iter().all(|(_, author)| !author.is_empty()), "who asks is known by the socket");
    assert_eq!(api.refused("PATCH", "/api/v1/config", r#"[{"path":["a"],"action":{"burn":1}}]"#).0, 422);
    assert_eq!(api.refused("PUT", "/api/v1/config?confirm=5", r#"{"main":""}"#).0, 400);
}
