//! Edits of a document: what they set, and that comments and order stay.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::config::changes::Parts;

const TEXT: &str = r#"# Ours. Ask ops before you touch it.
version = 1

[pool.web] # the shop
forwarding = "nat"   # no DSR here
scheduler = "maglev"
persistence = { type = "source", timeout = "5m" } # carts

# The old one.
[pool.web.node.n1]
address = "10.0.0.1:80"
weight = 1 # weak

[pool.web.node.n2]
address = "10.0.0.2:80"

# Mail is elsewhere.
[pool.mail]
forwarding = "nat"
"#;

fn texts(main: &str) -> Texts {
    Texts { main: main.to_owned(), fragments: BTreeMap::new() }
}

fn path(path: &str) -> Vec<String> {
    path.split('.').map(str::to_owned).collect()
}

fn edited(place: &str, action: Action) -> Result<String, EditError> {
    let (before, edits) = (texts(TEXT), [Edit { path: path(place), action }]);
    let mut editor = Editor::of(&before)?;
    editor.edit(&edits)?;
    let after = editor.write(&before);
    let parts = Parts::of(&before).edited(&editor, &edits);
    assert_eq!(parts, Parts::of(&after), "{place}: only what the edit touched is another part");
    Ok(after.main)
}

#[test]
fn an_edit_changes_its_place_and_nothing_else() {
    let cases = [
        (
            "a value keeps its comment",
            "pool.web.node.n1.weight",
            Action::Set(json!(3)),
            "weight = 1 # weak",
            "weight = 3 # weak",
        ),
        ("the same value", "pool.web.node.n1.weight", Action::Set(json!(1)), "", ""),
        ("a key within an inline table", "pool.web.persistence.timeout", Action::Set(json!("9m")), "\"5m\"", "\"9m\""),
        (
            "a new key",
            "pool.web.node.n2.weight",
            Action::Set(json!(2)),
            "\"10.0.0.2:80\"\n",
            "\"10.0.0.2:80\"\nweight = 2\n",
        ),
        (
            "a merge",
            "pool.web",
            Action::Merge(json!({"scheduler": null, "refusal": "drop"})),
            "scheduler = \"maglev\"\npersistence = { type = \"source\", timeout = \"5m\" } # carts\n",
            "persistence = { type = \"source\", timeout = \"5m\" } # carts\nrefusal = \"drop\"\n",
        ),
        (
            "a merge goes down",
            "pool",
            Action::Merge(json!({"web": {"node": {"n1": {"weight": 7}}}})),
            "weight = 1",
            "weight = 7",
        ),
        ("a key goes, with what is behind it", "pool.web.node.n1.weight", Action::Remove, "weight = 1 # weak\n", ""),
        (
            "a node goes, with its comment",
            "pool.web.node.n1",
            Action::Remove,
            "\n# The old one.\n[pool.web.node.n1]\naddress = \"10.0.0.1:80\"\nweight = 1 # weak\n",
            "",
        ),
        (
            "a node comes behind the others of its pool",
            "pool.web.node.n3",
            Action::Set(json!({"address": "10.0.0.3:80"})),
            "\n# Mail is",
            "\n[pool.web.node.n3]\naddress = \"10.0.0.3:80\"\n\n# Mail is",
        ),
        (
            "a table is set to other keys",
            "pool.web.node.n1",
            Action::Set(json!({"address": "10.0.0.9:80"})),
            "address = \"10.0.0.1:80\"\nweight = 1 # weak\n",
            "address = \"10.0.0.9:80\"\n",
        ),
        (
            "the first of its kind",
            "vip.web",
            Action::Set(json!({"addresses": ["192.0.2.1"], "raise": true})),
            "[pool.mail]\nforwarding = \"nat\"\n",
            "[pool.mail]\nforwarding = \"nat\"\n\n[vip.web]\naddresses = [\"192.0.2.1\"]\nraise = true\n",
        ),
        (
            "with an inner table",
            "virtual_server.s",
            Action::Set(json!({"tls": {"certificates": ["a"]}})),
            "[pool.mail]\nforwarding = \"nat\"\n",
            "[pool.mail]\nforwarding = \"nat\"\n\n[virtual_server.s]\ntls = { certificates = [\"a\"] }\n",
        ),
    ];
    for (name, place, action, old, new) in cases {
        assert!(TEXT.contains(old), "{name}");
        let expected = if old.is_empty() { TEXT.to_owned() } else { TEXT.replacen(old, new, 1) };
        assert_eq!(edited(place, action).unwrap(), expected, "{name}");
    }
}

#[test]
fn what_cannot_be_edited_is_refused() {
    let cases = [
        ("pool.nope", Action::Remove, "there is no pool.nope"),
        ("pool.web.node.n1.address.port", Action::Set(json!(80)), "pool.web.node.n1.address is not a table"),
        ("pool.web.queue", Action::Set(Value::Null), "null"),
        ("pool.web", Action::Merge(json!(3)), "merged with an object"),
    ];
    for (place, action, why) in cases {
        let error = edited(place, action).unwrap_err().to_string();
        assert!(error.contains(why), "{place}: {error}");
    }
    assert!(edit(&texts(TEXT), &[Edit { path: Vec::new(), action: Action::Remove }]).is_err());
    assert!(edit(&texts(TEXT), &[Edit { path: path(&"a.".repeat(40)), action: Action::Remove }]).is_err());
    let broken = edit(&texts("version = "), &[]).unwrap_err();
    assert!(matches!(broken, EditError::Syntax { .. }), "{broken}");
}

#[test]
fn a_part_is_edited_in_the_file_that_has_it() {
    let mail = "[pool.mail]\nforwarding = 'nat'  # as it was typed\n";
    let files = Texts { main: "version=1\n".to_owned(), fragments: [("mail.toml".to_owned(), mail.to_owned())].into() };
    let set = |place: &str, value: Value| Edit { path: path(place), action: Action::Set(value) };
    let after = edit(&files, &[set("pool.mail.scheduler", json!("random"))]).unwrap();
    assert_eq!(after.fragments["mail.toml"], format!("{mail}scheduler = \"random\"\n"));
    assert_eq!(after.main, files.main, "the other file is not written anew");
    let after = edit(&files, &[set("pool.web.forwarding", json!("nat"))]).unwrap();
    assert_eq!(after.fragments, files.fragments);
    assert!(after.main.ends_with("[pool.web]\nforwarding = \"nat\"\n"), "{}", after.main);
}

#[test]
fn hostile_texts_are_values_and_never_syntax() {
    for text in ["\"]\n[daemon]\nsocket = \"/x", "$(id)", "a\r\nb", "\u{0}", "'''", "\\"] {
        let after = edited("pool.web.scheduler", Action::Set(json!(text))).unwrap();
        let read: toml::Table = after.parse().unwrap();
        assert_eq!(read["pool"]["web"]["scheduler"].as_str(), Some(text));
        assert!(!read.contains_key("daemon"));
        let after = edited("pool.web.node.n1", Action::Merge(json!({text: 1}))).unwrap();
        let read: toml::Table = after.parse().unwrap();
        assert_eq!(read["pool"]["web"]["node"]["n1"][text].as_integer(), Some(1));
    }
}
