//! Conditions: `when = { host = "a.example", path = { prefix = "/api" } }`. The keys of a table must all hold; `any`, `all`
//! and `not` combine.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::value::Reader;
use crate::{
    config::{
        source::Span,
        text::{NetworkText, Text},
    },
    control::proxy::{
        Network,
        rule::{Condition, Fact, Test},
    },
};

/// Keys of a condition.
pub(in crate::config) const KEYS: [&str; 23] = [
    "all",
    "any",
    "not",
    "client_address",
    "local_address",
    "local_port",
    "method",
    "host",
    "path",
    "raw_url",
    "query",
    "query_parameter",
    "header",
    "cookie",
    "version",
    "tls",
    "tls_version",
    "tls_server_name",
    "tls_client_subject",
    "status",
    "response_header",
    "time",
    "weekday",
];

/// Keys of the test of a text.
const TESTS: [&str; 6] = ["is", "prefix", "suffix", "contains", "regex", "present"];
const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Reads a condition; `None` after a mistake.
pub(super) fn read(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Option<Condition> {
    let table = reader.table(value, "when", "{ path = { prefix = \"/api\" } }")?;
    let mut parts = Vec::new();
    let mut good = true;
    for (key, value) in table {
        match part(reader, key.get_ref(), &key.span(), value) {
            Some(condition) => parts.push(condition),
            None => good = false,
        }
    }
    if parts.is_empty() && good {
        let help = "leave when out for a rule that always applies".to_owned();
        reader.wrong(&value.span(), "a condition is empty", "nothing in here", Some(help));
        return None;
    }
    good.then(|| join(parts))
}

fn join(mut parts: Vec<Condition>) -> Condition {
    if parts.len() == 1 { parts.remove(0) } else { Condition::All(parts) }
}

fn part(reader: &mut Reader<'_>, key: &str, span: &Span, value: &Spanned<DeValue<'_>>) -> Option<Condition> {
    match key {
        "all" => list(reader, key, value).map(Condition::All),
        "any" => list(reader, key, value).map(Condition::Any),
        "not" => read(reader, value).map(|condition| Condition::Not(Box::new(condition))),
        "client_address" => networks(reader, key, value).map(|n| Condition::Is(Fact::ClientAddress, Test::Within(n))),
        "local_address" => networks(reader, key, value).map(|n| Condition::Is(Fact::LocalAddress, Test::Within(n))),
        "local_port" => number(reader, key, value, 65_535).map(|test| Condition::Is(Fact::LocalPort, test)),
        "status" => number(reader, key, value, 999).map(|test| Condition::Is(Fact::Status, test)),
        "tls" => reader.truth(value, key).map(|tls| Condition::Is(Fact::Tls, Test::OneOf(vec![tls.to_string()]))),
        "time" => time(reader, value),
        "weekday" => weekday(reader, value),
        "method" => text(reader, key, value, &Fact::Method, |text| text),
        "host" => text(reader, key, value, &Fact::Host, lower),
        "path" => text(reader, key, value, &Fact::Path, |text| text),
        "raw_url" => text(reader, key, value, &Fact::RawUrl, |text| text),
        "query" => text(reader, key, value, &Fact::Query, |text| text),
        "version" => text(reader, key, value, &Fact::Version, |text| text),
        "tls_version" => text(reader, key, value, &Fact::TlsVersion, |text| text),
        "tls_server_name" => text(reader, key, value, &Fact::TlsServerName, lower),
        "tls_client_subject" => text(reader, key, value, &Fact::TlsClientSubject, |text| text),
        "query_parameter" => named(reader, key, value, Fact::QueryParameter),
        "cookie" => named(reader, key, value, Fact::Cookie),
        "header" => named(reader, key, value, |name| Fact::Header(lower(name))),
        "response_header" => named(reader, key, value, |name| Fact::ResponseHeader(lower(name))),
        _ => {
            reader.unknown(key, span, &KEYS, "keys of a condition");
            None
        }
    }
}

fn lower(text: String) -> String {
    text.to_ascii_lowercase()
}

fn list(reader: &mut Reader<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Vec<Condition>> {
    let Some(items) = value.get_ref().as_array().filter(|items| !items.is_empty()) else {
        let help = format!("write it like {key} = [{{ host = \"a.example\" }}, {{ host = \"b.example\" }}]");
        reader.wrong(&value.span(), &format!("{key} must be a list of conditions"), "wrong type", Some(help));
        return None;
    };
    let read: Vec<_> = items.iter().map(|item| read(reader, item)).collect();
    read.into_iter().collect()
}

/// `header = { "x-user" = … }`: a test for each name.
fn named(
    reader: &mut Reader<'_>,
    key: &str,
    value: &Spanned<DeValue<'_>>,
    fact: impl Fn(String) -> Fact,
) -> Option<Condition> {
    let table = reader.table(value, key, "{ \"name\" = \"value\" }")?;
    // The name is the key: this would ask for things that are called "name" and "prefix".
    if table.contains_key("name") && TESTS.iter().any(|test| table.contains_key(*test)) {
        let help = format!("the name comes first: {key} = {{ some-name = {{ prefix = \"…\" }} }}");
        reader.wrong(&value.span(), &format!("{key} has tests beside a name"), "not below a name", Some(help));
        return None;
    }
    let read: Vec<_> = table
        .iter()
        .map(|(name, value)| text(reader, key, value, &fact(name.get_ref().to_string()), |text| text))
        .collect();
    read.into_iter().collect::<Option<Vec<_>>>().filter(|parts| !parts.is_empty()).map(join)
}

/// A text, a list of texts, or a table of tests, all of which must hold.
fn text(
    reader: &mut Reader<'_>,
    key: &str,
    value: &Spanned<DeValue<'_>>,
    fact: &Fact,
    change: impl Fn(String) -> String,
) -> Option<Condition> {
    let DeValue::Table(table) = value.get_ref() else {
        let values = reader.texts(value, key)?;
        return Some(Condition::Is(fact.clone(), Test::OneOf(values.into_iter().map(change).collect())));
    };
    reader.known_keys(table, &TESTS, "tests");
    let parts: Vec<_> = tests(reader, table, fact, change);
    parts.into_iter().collect::<Option<Vec<_>>>().filter(|parts| !parts.is_empty()).map(join)
}

fn tests(
    reader: &mut Reader<'_>,
    table: &DeTable<'_>,
    fact: &Fact,
    change: impl Fn(String) -> String,
) -> Vec<Option<Condition>> {
    let is = |test| Condition::Is(fact.clone(), test);
    let mut parts = Vec::new();
    for (key, value) in table {
        let key: &str = key.get_ref();
        let values = |reader: &mut Reader<'_>| {
            reader.texts(value, key).map(|values| values.into_iter().map(&change).collect::<Vec<_>>())
        };
        parts.push(match key {
            "is" => values(reader).map(|values| is(Test::OneOf(values))),
            "prefix" => values(reader).map(|values| is(Test::Prefix(values))),
            "suffix" => values(reader).map(|values| is(Test::Suffix(values))),
            "contains" => values(reader).map(|values| is(Test::Contains(values))),
            "regex" => reader.text(value, key).map(|regex| is(Test::Regex(regex))),
            "present" => reader.truth(value, key).map(|present| match present {
                true => is(Test::Present),
                false => Condition::Not(Box::new(is(Test::Present))),
            }),
            // Reported by the caller.
            _ => None,
        });
    }
    parts
}

fn networks(reader: &mut Reader<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<Vec<Network>> {
    let texts = reader.texts(value, key)?;
    let mut networks = Vec::new();
    for text in &texts {
        match NetworkText::read(text) {
            Ok(network) => networks.push(network.0),
            Err(wrong) => {
                let help = "write it like \"10.0.0.0/8\", \"2001:db8::/32\" or \"192.0.2.7\"".to_owned();
                reader.wrong(&value.span(), &format!("{key} is not an IP network: {text:?}"), &wrong, Some(help));
            }
        }
    }
    (networks.len() == texts.len()).then_some(networks)
}

/// `404`, `[502, 503]` or `{ min = 500, max = 599 }`.
fn number(reader: &mut Reader<'_>, key: &str, value: &Spanned<DeValue<'_>>, most: u64) -> Option<Test> {
    if let Some(items) = value.get_ref().as_array() {
        let numbers: Vec<_> = items.iter().map(|item| reader.number(item, key, most)).collect();
        let numbers: Option<Vec<_>> = numbers.into_iter().map(|n| n.map(|n| n.to_string())).collect();
        return numbers.filter(|numbers| !numbers.is_empty()).map(Test::OneOf);
    }
    let Some(table) = value.get_ref().as_table() else {
        return reader.number(value, key, most).map(|number| Test::Range(number, number));
    };
    reader.known_keys(table, &["min", "max"], "bounds");
    let min = table.get("min").map_or(Some(0), |value| reader.number(value, "min", most))?;
    let max = table.get("max").map_or(Some(most), |value| reader.number(value, "max", most))?;
    if min > max {
        reader.wrong(&value.span(), &format!("{key} ends before it begins"), "min is above max", None);
        return None;
    }
    Some(Test::Range(min, max))
}

/// `"08:00-18:00"`, UTC; the end is not in it. It may go over midnight.
fn time(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Option<Condition> {
    const DAY: u64 = 24 * 3600;
    let text = reader.text(value, "time")?;
    let clock = |text: &str| {
        let (hours, minutes) = text.trim().split_once(':')?;
        let (hours, minutes) = (hours.parse::<u64>().ok()?, minutes.parse::<u64>().ok()?);
        (minutes < 60 && hours * 60 + minutes <= 24 * 60).then_some(hours * 3600 + minutes * 60)
    };
    let ends = text.split_once('-').and_then(|(from, to)| Some((clock(from)?, clock(to)?)));
    let is = |from: u64, to: u64| Condition::Is(Fact::TimeOfDay, Test::Range(from, to - 1));
    match ends {
        Some((from, to)) if from < to => Some(is(from, to)),
        Some((from, to)) if from > to && from < DAY => {
            let late = is(from, DAY);
            Some(if to == 0 { late } else { Condition::Any(vec![late, is(0, to)]) })
        }
        Some(_) | None => {
            let help = "write it like \"08:00-18:00\" (UTC)".to_owned();
            reader.wrong(&value.span(), &format!("time is not understood: {text:?}"), "not a time of day", Some(help));
            None
        }
    }
}

fn weekday(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Option<Condition> {
    let days = reader.texts(value, "weekday")?;
    if let Some(unknown) = days.iter().find(|day| !WEEKDAYS.contains(&day.as_str())) {
        let help = crate::config::words::advice(unknown, "days", &WEEKDAYS);
        reader.wrong(&value.span(), &format!("weekday cannot be {unknown:?}"), "unknown word", Some(help));
        return None;
    }
    Some(Condition::Is(Fact::Weekday, Test::OneOf(days)))
}
