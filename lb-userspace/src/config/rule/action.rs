//! Actions: `then = [{ set_header = { X-Api = "1" } }, { pool = "api" }]`, one a table, done in this order.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::value::Reader;
use crate::{
    config::{at::At, source::Span},
    control::proxy::rule::Action,
};

pub(in crate::config) const KEYS: [&str; 19] = [
    "pool",
    "redirect",
    "respond",
    "drop",
    "set_header",
    "add_header",
    "delete_header",
    "allow_headers",
    "set_path",
    "rewrite_path",
    "set_query",
    "set_cookie",
    "delete_cookie",
    "cache_control",
    "log",
    "event",
    "rate",
    "max_connections",
    "bandwidth",
];

/// Reads the actions of a rule, and the place of each. What is wrong is reported and left out.
pub(super) fn read(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> (Vec<Action>, Vec<Span>) {
    let mut found = Vec::new();
    let items = value.get_ref().as_array().filter(|items| !items.is_empty());
    if let Some(items) = items {
        items.iter().for_each(|item| one(reader, item, &mut found));
    } else if value.get_ref().is_table() {
        one(reader, value, &mut found);
    } else {
        let help = "write it like then = [{ pool = \"api\" }]".to_owned();
        reader.wrong(&value.span(), "then must be a list of actions", "wrong type", Some(help));
    }
    found.into_iter().unzip()
}

fn one(reader: &mut Reader<'_>, item: &Spanned<DeValue<'_>>, found: &mut Vec<(Action, Span)>) {
    let Some(table) = reader.table(item, "an action", "{ pool = \"api\" }") else { return };
    let mut keys = table.iter();
    let (Some((key, value)), None) = (keys.next(), keys.next()) else {
        let help = "write each action as a table of its own: they are done in the order of the list".to_owned();
        reader.wrong(&item.span(), "an action must have exactly one key", "how many actions?", Some(help));
        return;
    };
    let span = item.span();
    if let Some(actions) = action(reader, key.get_ref(), &key.span(), value) {
        found.extend(actions.into_iter().map(|action| (action, span.clone())));
    }
}

fn action(reader: &mut Reader<'_>, key: &str, span: &Span, value: &Spanned<DeValue<'_>>) -> Option<Vec<Action>> {
    let single = match key {
        "pool" => Action::Pool(name(reader, key, value)?),
        "rate" => Action::Rate(name(reader, key, value)?),
        "bandwidth" => Action::Bandwidth(name(reader, key, value)?),
        "redirect" => redirect(reader, value)?,
        "respond" => respond(reader, value)?,
        "drop" => match reader.truth(value, key)? {
            true => Action::Drop,
            false => {
                reader.wrong(&value.span(), "drop = false does nothing", "would not be done", Some("remove it".into()));
                return None;
            }
        },
        "set_header" => return pairs(reader, key, value, Action::SetHeader),
        "add_header" => return pairs(reader, key, value, Action::AddHeader),
        "delete_header" => return Some(reader.texts(value, key)?.into_iter().map(Action::DeleteHeader).collect()),
        "delete_cookie" => return Some(reader.texts(value, key)?.into_iter().map(Action::DeleteCookie).collect()),
        "allow_headers" => Action::AllowHeaders(reader.texts(value, key)?),
        "set_path" => Action::SetPath(reader.text(value, key)?),
        "set_query" => Action::SetQuery(reader.text(value, key)?),
        "rewrite_path" => {
            let table = fields(reader, key, value, &["regex", "with"], "{ regex = \"^/old/\", with = \"/new/\" }")?;
            let regex = needed_text(reader, table, value, key, "regex");
            let with = needed_text(reader, table, value, key, "with");
            Action::RewritePath { regex: regex?, with: with? }
        }
        "set_cookie" => set_cookie(reader, value)?,
        "cache_control" => Action::CacheControl(reader.text(value, key)?),
        "log" => Action::Log(reader.text(value, key)?),
        "event" => Action::Event(reader.text(value, key)?),
        "max_connections" => {
            let most = reader.number(value, key, u32::MAX.into())?;
            Action::MaxConnections(u32::try_from(most).unwrap_or(u32::MAX))
        }
        _ => {
            reader.unknown(key, span, &KEYS, "actions");
            return None;
        }
    };
    Some(vec![single])
}

/// A name that is looked up later.
fn name(reader: &mut Reader<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
    let name = reader.text(value, key)?;
    let at = At { value: name.clone(), span: value.span() };
    match key {
        "pool" => reader.written.pools.push(at),
        "rate" => reader.written.rate_classes.push(at),
        _ => reader.written.bandwidth_classes.push(at),
    }
    Some(name)
}

fn fields<'v, 'i>(
    reader: &mut Reader<'_>,
    key: &str,
    value: &'v Spanned<DeValue<'i>>,
    known: &[&str],
    example: &str,
) -> Option<&'v DeTable<'i>> {
    let table = reader.table(value, key, example)?;
    reader.known_keys(table, known, &format!("keys of {key}"));
    Some(table)
}

fn needed_text(
    reader: &mut Reader<'_>,
    table: &DeTable<'_>,
    value: &Spanned<DeValue<'_>>,
    of: &str,
    key: &str,
) -> Option<String> {
    let value = reader.needed(table, &value.span(), of, key)?;
    reader.text(value, key)
}

/// `redirect = "https://a.example/"` or `{ to = …, status = 308, keep_path = true }`.
fn redirect(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Option<Action> {
    if value.get_ref().is_str() {
        return Some(Action::Redirect { status: 302, to: reader.text(value, "redirect")?, keep_path: false });
    }
    let example = "{ to = \"https://%{host}\", keep_path = true }";
    let table = fields(reader, "redirect", value, &["to", "status", "keep_path"], example)?;
    let to = needed_text(reader, table, value, "redirect", "to");
    let status = table.get("status").map_or(Some(302), |status| reader.number(status, "status", 999));
    let keep_path = table.get("keep_path").map_or(Some(false), |keep| reader.truth(keep, "keep_path"));
    Some(Action::Redirect { status: u16::try_from(status?).ok()?, to: to?, keep_path: keep_path? })
}

fn respond(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Option<Action> {
    let example = "{ status = 403, body = \"no\\n\" }";
    let table = fields(reader, "respond", value, &["status", "body", "content_type"], example)?;
    let status = reader.needed(table, &value.span(), "respond", "status");
    let status = status.and_then(|status| reader.number(status, "status", 999));
    let body = table.get("body").map_or(Some(String::new()), |body| reader.any_text(body, "body"));
    let plain = || Some("text/plain; charset=utf-8".to_owned());
    let content_type = table.get("content_type").map_or_else(plain, |kind| reader.text(kind, "content_type"));
    Some(Action::Respond { status: u16::try_from(status?).ok()?, content_type: content_type?, body: body? })
}

fn set_cookie(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Option<Action> {
    let example = "{ name = \"seen\", value = \"1\", attributes = \"Path=/; Secure\" }";
    let table = fields(reader, "set_cookie", value, &["name", "value", "attributes"], example)?;
    let name = needed_text(reader, table, value, "set_cookie", "name");
    let text = needed_text(reader, table, value, "set_cookie", "value");
    let attributes = table.get("attributes").map_or(Some(String::new()), |text| reader.text(text, "attributes"));
    Some(Action::SetCookie { name: name?, value: text?, attributes: attributes? })
}

/// `{ "X-Api" = "1", "X-Other" = "2" }`: one action each.
fn pairs(
    reader: &mut Reader<'_>,
    key: &str,
    value: &Spanned<DeValue<'_>>,
    action: fn(String, String) -> Action,
) -> Option<Vec<Action>> {
    let table = reader.table(value, key, "{ \"X-Api\" = \"1\" }")?;
    let read: Vec<_> = table
        .iter()
        .map(|(name, value)| reader.text(value, key).map(|text| action(name.get_ref().to_string(), text)))
        .collect();
    read.into_iter().collect()
}
