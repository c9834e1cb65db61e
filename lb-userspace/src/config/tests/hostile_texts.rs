//! Every text of a configuration set to what would be a command, markup, a line of its own or an order to the terminal
//! elsewhere: it comes back as it was set, or is refused, and no message about it moves the terminal.
//!
//! What is walked is the schema's, not a list of ours: a new key that the document beside this file does not have fails here.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::{
    config::{
        ConfigError,
        changes::Parts,
        edit::{Editor, edit},
        rule,
    },
    control::revision::{Action, Edit},
    visible,
};

/// A document with every text of the schema.
const EVERYTHING: &str = include_str!("everything.toml");

/// Texts that are plain characters: nothing is wrong with them where any text is allowed.
const MARKUP: &str = "$(id)`id`;&&|'\"><script>alert(1)</script>${x}{{x}}";
/// Texts that no terminal, header, mail or log line survives.
const CONTROL: [&str; 5] = ["a\r\nX-Evil: 1", "a\u{1b}]0;evil\u{7}\u{1b}c", "a\0b", "a\u{9b}31mb", "a\u{7f}b"];
/// A text that reads otherwise than it is written (Trojan source, CVE-2021-42574).
const TURNED: &str = "a\u{202e}gpj.exe\u{2066}";

/// Where control characters may stand: what is sent to nodes, compared with what they send, and a body.
const MAY_CONTROL: [&str; 6] = [
    "monitor.datagram.expect",
    "monitor.datagram.send",
    "monitor.dialogue.steps[].expect",
    "monitor.dialogue.steps[].send",
    "monitor.site.body",
    "virtual_server.site.rule[].then[].respond.body",
];

/// A step into a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Key(String),
    Item(usize),
}

/// The place of every text in a value.
fn texts_in(value: &Value, place: &[Step], found: &mut Vec<Vec<Step>>) {
    match value {
        Value::String(_) => found.push(place.to_vec()),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                texts_in(item, &[place, &[Step::Item(index)]].concat(), found);
            }
        }
        Value::Object(object) => {
            for (key, value) in object {
                texts_in(value, &[place, &[Step::Key(key.clone())]].concat(), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn at<'v>(value: &'v mut Value, place: &[Step]) -> &'v mut Value {
    place.iter().fold(value, |value, step| match step {
        Step::Key(key) => &mut value[key.as_str()],
        Step::Item(index) => &mut value[index],
    })
}

/// `virtual_server.site.rule[].name`.
fn shown(place: &[Step]) -> String {
    let mut text = String::new();
    for step in place {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.push_str(&format!(".{key}")),
            Step::Item(_) => text.push_str("[]"),
        }
    }
    text
}

/// The edit by which the API sets a text: lists are replaced as a whole.
fn set(document: &Value, place: &[Step]) -> Edit {
    let tables: Vec<Step> = place.iter().take_while(|step| matches!(step, Step::Key(_))).cloned().collect();
    let path = tables.iter().filter_map(|step| match step {
        Step::Key(key) => Some(key.clone()),
        Step::Item(_) => None,
    });
    Edit { path: path.collect(), action: Action::Set(at(&mut document.clone(), &tables).clone()) }
}

fn everything() -> (Texts, Value) {
    let texts = Texts { main: EVERYTHING.to_owned(), ..Texts::default() };
    (texts, toml::from_str(EVERYTHING).unwrap())
}

/// Which of these places may have the text, each with a number that tells it from others: sets all of them, and takes back those that
/// something is said of, until nothing is. Checks that what is said moves no terminal, and that what is taken comes back.
fn taken(places: &[Vec<Step>], text: &str) -> BTreeSet<String> {
    /// A mistake can hide others, but not many times.
    const MOST_ROUNDS: usize = 12;
    let (texts, document) = everything();
    let marked = |index: usize| format!("<{index}>{text}<{index}>");
    let mut left: BTreeSet<usize> = (0..places.len()).collect();
    for _ in 0..MOST_ROUNDS {
        let mut hostile = document.clone();
        left.iter().for_each(|index| *at(&mut hostile, &places[*index]) = Value::String(marked(*index)));
        let edits = left.iter().map(|index| set(&hostile, &places[*index])).collect::<Vec<_>>();
        let edited = edit(&texts, &edits).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let Err(errors) = Config::of(Path::new("lb.toml"), &edited) else {
            let mut again: Value = toml::from_str(&edited.main).unwrap();
            for index in &left {
                assert_eq!(
                    *at(&mut again, &places[*index]),
                    marked(*index),
                    "{} does not come back",
                    shown(&places[*index])
                );
            }
            return left.iter().map(|index| shown(&places[*index])).collect();
        };
        check_report(&errors);
        let mut editor = Editor::of(&texts).unwrap();
        editor.edit(&edits).unwrap();
        assert_eq!(
            Parts::of(&texts).edited(&editor, &edits),
            Parts::of(&edited),
            "what edits touched is all that differs"
        );
        let said: String = errors.errors.iter().map(said_of).collect();
        let before = left.len();
        left.retain(|index| !said.contains(&format!("<{index}>")));
        assert!(left.len() < before, "{text:?}: this names no place\n{errors}");
    }
    panic!("{text:?} in {MOST_ROUNDS} rounds: {left:?} are left");
}

/// What a mistake shows of the text that it is about.
fn said_of(error: &ConfigError) -> String {
    let place = error.place.as_ref().unwrap();
    let there: String = place.text.chars().skip(place.column - 1).take(place.length).collect();
    if there.contains('<') { there } else { format!("{} {}", error.message, error.label) }
}

fn check_report(errors: &ConfigErrors) {
    let plain = errors.report(false);
    assert!(plain.lines().all(|line| visible::line(line) == line), "{plain:?}");
    let colours = ["\u{1b}[1;31m", "\u{1b}[1;34m", "\u{1b}[1;32m", "\u{1b}[0m"];
    let painted = colours.iter().fold(errors.report(true), |text, colour| text.replace(colour, ""));
    assert_eq!(painted, plain, "colours are all that differs");
}

#[test]
fn the_document_has_every_text_of_the_schema() {
    fn strings(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
        let outer = schema::resolve(schema);
        if outer["format"] == rule::FORMAT {
            return;
        }
        if schema::type_of(outer) == Some("string") && schema::words_of(outer).is_empty() {
            found.insert(path.to_owned());
        }
        for (key, value) in outer["properties"].as_object().into_iter().flatten() {
            strings(value, format!("{path}.{key}").trim_start_matches('.'), found);
        }
        if outer["additionalProperties"].is_object() {
            strings(&outer["additionalProperties"], &format!("{path}.*"), found);
        }
        if outer["items"].is_object() {
            strings(&outer["items"], &format!("{path}[]"), found);
        }
    }
    fn matches(pattern: &str, place: &str) -> bool {
        let (pattern, place): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), place.split('.').collect());
        pattern.len() == place.len()
            && pattern.iter().zip(&place).all(|(p, at)| p == at || at.replace(char::is_alphanumeric, "").is_empty())
    }
    let (_, document) = everything();
    let mut places = Vec::new();
    texts_in(&document, &[], &mut places);
    // Names with dots in them would not be told from places.
    let there: BTreeSet<String> =
        places.iter().map(|place| shown(place).replace("192.0.2.0/24", "n").replace("*.example.com", "n")).collect();
    let mut wanted = BTreeSet::new();
    strings(&schema::SCHEMA, "", &mut wanted);
    assert!(wanted.len() >= 149, "{}", wanted.len());
    let missing: Vec<_> = wanted.iter().filter(|path| !there.iter().any(|place| matches(path, place))).collect();
    assert!(missing.is_empty(), "everything.toml has none of {missing:?}");
    for (keys, of) in [(&rule::ACTIONS[..], "then[]"), (&rule::CONDITIONS[..], "when")] {
        let has =
            |key: &str| EVERYTHING.contains(&format!("{{ {key} = ")) || EVERYTHING.contains(&format!("\n{key} = "));
        let missing: Vec<_> = keys.iter().filter(|key| !has(key)).collect();
        assert!(missing.is_empty(), "everything.toml has no {of}.{missing:?}");
    }
}

#[test]
fn every_text_comes_back_as_it_was_set_or_is_refused() {
    let (texts, document) = everything();
    if let Err(errors) = Config::of(Path::new("lb.toml"), &texts) {
        panic!("{errors}");
    }
    let mut places = Vec::new();
    texts_in(&document, &[], &mut places);
    assert!(places.len() > 230, "{}", places.len());
    for text in [MARKUP, TURNED] {
        let taken = taken(&places, text);
        assert!(taken.len() > 20 && taken.contains("virtual_server.site.rule[].then[].respond.body"), "{taken:#?}");
        for refused in ["pool.app.persistence.name", "pool.app.tls.server_name", "vip.web.interface", "alert.mail.to[]"]
        {
            assert!(!taken.contains(refused), "{refused} = {text:?}");
        }
    }
    for text in CONTROL {
        assert_eq!(taken(&places, text), MAY_CONTROL.map(str::to_owned).into(), "{text:?}");
    }
}

#[test]
fn names_are_plain() {
    let (texts, document) = everything();
    let sections: Vec<(&String, &Value)> =
        document.as_object().unwrap().iter().filter(|(section, _)| schema::is_named(section)).collect();
    assert!(sections.len() >= 11, "{}", sections.len());
    for text in [MARKUP, TURNED, "../x", "a b"].into_iter().chain(CONTROL) {
        let edits = sections.iter().map(|(section, tables)| {
            let value = tables.as_object().unwrap().values().next().unwrap().clone();
            Edit { path: vec![(*section).clone(), text.to_owned()], action: Action::Set(value) }
        });
        let edited = edit(&texts, &edits.collect::<Vec<_>>()).unwrap();
        let errors = Config::of(Path::new("lb.toml"), &edited).unwrap_err();
        check_report(&errors);
        for (section, _) in &sections {
            let said = format!("{section} name {text:?}");
            assert!(errors.errors.iter().any(|error| error.message.contains(&said)), "{said}: {errors}");
        }
    }
}
