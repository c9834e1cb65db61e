//! What sets two configurations apart, by kind and name: of their documents, as trees. Pure; the texts are valid.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use similar::TextDiff;
use toml::{Table, Value};

use super::{edit::Editor, schema};
use crate::control::revision::{Change, Difference, Edit, Texts, What};

/// The longest value that is shown, in characters.
const LONGEST: usize = 60;

/// How long a diff of the text may be improved: of two large files with nothing in common it is long and says little.
const PATIENCE: Duration = Duration::from_millis(500);

/// The parts of a configuration, by kind and name: parsed once, because a large text takes long.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts(Table);

impl Parts {
    /// Of these texts. What is not TOML is left out.
    #[must_use]
    pub fn of(texts: &Texts) -> Self {
        Self(tree(texts))
    }

    /// After edits that an editor has made: only what they touched is looked at.
    #[must_use]
    pub fn edited(&self, editor: &Editor, edits: &[Edit]) -> Self {
        let mut parts = self.0.clone();
        for edit in edits {
            let Some(section) = edit.path.first() else { continue };
            match edit.path.get(1).filter(|_| schema::is_named(section)) {
                Some(name) => {
                    let named = parts.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
                    if let Some(named) = named.as_table_mut() {
                        put(named, name, editor.part(&[section, name]));
                    }
                    if named.as_table().is_some_and(Table::is_empty) {
                        put(&mut parts, section, editor.part(&[section]));
                    }
                }
                None => put(&mut parts, section, editor.part(&[section])),
            }
        }
        Self(parts)
    }
}

fn put(table: &mut Table, key: &str, value: Option<Value>) {
    match value {
        Some(value) => drop(table.insert(key.to_owned(), value)),
        None => drop(table.remove(key)),
    }
}

/// What sets `to` apart from `from`. `main` is how the diff calls the file that is not in `conf.d`. Says nothing of
/// connections: the caller knows them. `deadline` is [`deadline`] from now.
#[must_use]
pub fn difference(main: &str, from: (&Texts, &Parts), to: (&Texts, &Parts), deadline: Instant) -> Difference {
    if from.0 == to.0 {
        return Difference::default();
    }
    let (before, after) = (&from.1.0, &to.1.0);
    let mut changes = changes(before, after);
    let users = [Users::of(before), Users::of(after)];
    for change in &mut changes {
        let servers = users.iter().flat_map(|users| users.servers(&change.kind, &change.name));
        let servers: BTreeSet<String> = servers.map(str::to_owned).collect();
        change.virtual_servers = servers.into_iter().collect();
    }
    Difference { changes, text: text(main, from.0, to.0, deadline) }
}

/// Until when a diff may take.
#[must_use]
pub fn deadline(now: Instant) -> Instant {
    now + PATIENCE
}

/// All files of a configuration as one tree. What is not TOML is left out.
fn tree(texts: &Texts) -> Table {
    let mut whole = Table::new();
    for text in std::iter::once(&texts.main).chain(texts.fragments.values()) {
        let Ok(table) = text.parse::<Table>() else { continue };
        for (key, value) in table {
            match (whole.get_mut(&key), value) {
                (Some(Value::Table(into)), Value::Table(more)) => into.extend(more),
                (_, value) => drop(whole.insert(key, value)),
            }
        }
    }
    whole
}

fn changes(from: &Table, to: &Table) -> Vec<Change> {
    let none = Table::new();
    let mut found = Vec::new();
    let sections: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    for section in sections {
        let (before, after) = (from.get(section), to.get(section));
        if before == after {
            continue;
        }
        if schema::is_named(section) {
            let table = |value: Option<&Value>| value.and_then(Value::as_table).unwrap_or(&none).clone();
            named(section, &table(before), &table(after), &mut found);
        } else {
            found.extend(change(section, "", before, after));
        }
    }
    found
}

fn named(kind: &str, from: &Table, to: &Table, found: &mut Vec<Change>) {
    let names: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    for name in names {
        let (before, after) = (from.get(name), to.get(name));
        if before == after {
            continue;
        }
        if kind != "pool" {
            found.extend(change(kind, name, before, after));
            continue;
        }
        let (mut before, mut after) = (before.cloned(), after.cloned());
        let (nodes_before, nodes_after) = (take_nodes(&mut before), take_nodes(&mut after));
        found.extend(change(kind, name, before.as_ref(), after.as_ref()));
        let nodes: BTreeSet<&String> = nodes_before.keys().chain(nodes_after.keys()).collect();
        for node in nodes {
            found.extend(change("node", &format!("{name}/{node}"), nodes_before.get(node), nodes_after.get(node)));
        }
    }
}

/// The nodes of a pool, which become parts of their own.
fn take_nodes(pool: &mut Option<Value>) -> Table {
    match pool.as_mut().and_then(Value::as_table_mut).and_then(|pool| pool.remove("node")) {
        Some(Value::Table(nodes)) => nodes,
        Some(_) | None => Table::new(),
    }
}

fn change(kind: &str, name: &str, before: Option<&Value>, after: Option<&Value>) -> Option<Change> {
    if before == after {
        return None;
    }
    let what = match (before, after) {
        (None, _) => What::Added,
        (_, None) => What::Removed,
        (Some(_), Some(_)) => What::Changed,
    };
    let mut details = Vec::new();
    if what == What::Removed {
        details.extend(before.and_then(|value| value.get("address")).map(|address| format!("address: {address}")));
    } else {
        keys("", before, after, &mut details);
    }
    let (kind, name) = (kind.to_owned(), name.to_owned());
    Some(Change { kind, name, what, details, virtual_servers: Vec::new(), connections: 0 })
}

/// One line for each key that is not the same, as deep as tables go.
fn keys(path: &str, before: Option<&Value>, after: Option<&Value>, details: &mut Vec<String>) {
    if before == after {
        return;
    }
    if let (None | Some(Value::Table(_)), None | Some(Value::Table(_))) = (before, after) {
        let table = |value: Option<&Value>| value.and_then(Value::as_table).cloned().unwrap_or_default();
        let (before, after) = (table(before), table(after));
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for name in names {
            let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            keys(&inner, before.get(name), after.get(name), details);
        }
        return;
    }
    let prefix = if path.is_empty() { String::new() } else { format!("{path}: ") };
    details.push(match (before, after) {
        (None, Some(after)) => format!("{prefix}{}", shown(after)),
        (Some(before), None) => format!("{prefix}{} → default", shown(before)),
        (Some(before), Some(after)) => format!("{prefix}{} → {}", shown(before), shown(after)),
        (None, None) => return,
    });
}

fn shown(value: &Value) -> String {
    let text = value.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Who uses what, in one tree: virtual servers by kind and name of what they are made of.
struct Users<'t> {
    by_part: BTreeMap<(&'t str, &'t str), BTreeSet<&'t str>>,
}

impl<'t> Users<'t> {
    fn of(tree: &'t Table) -> Self {
        let section = |name: &str| tree.get(name).and_then(Value::as_table).into_iter().flatten();
        let stands_in: BTreeMap<&str, &str> = section("pool")
            .filter_map(|(name, pool)| Some((name.as_str(), pool.get("failure_pool")?.as_str()?)))
            .collect();
        let mut users = Self { by_part: BTreeMap::new() };
        for (server, value) in section("virtual_server") {
            users.add("virtual_server", server, server);
            users.mentions(server, None, value);
            let mut seen = BTreeSet::new();
            let mut next = value.get("pool").and_then(Value::as_str);
            while let Some(pool) = next.filter(|pool| seen.insert(*pool)) {
                users.add("pool", pool, server);
                next = stands_in.get(pool).copied();
            }
        }
        users
    }

    fn add(&mut self, kind: &'static str, name: &'t str, server: &'t str) {
        self.by_part.entry((kind, name)).or_default().insert(server);
    }

    /// Whatever names a part, as deep as it stands: in rules, by server names.
    fn mentions(&mut self, server: &'t str, key: Option<&'t str>, value: &'t Value) {
        let kind = match key {
            Some("pool" | "server_names") => Some("pool"),
            Some("vips") => Some("vip"),
            Some("certificates" | "default_certificate") => Some("certificate"),
            Some("rate_class") => Some("rate_class"),
            Some("bandwidth" | "bandwidth_class") => Some("bandwidth_class"),
            Some(_) | None => None,
        };
        match value {
            Value::String(name) => {
                if let Some(kind) = kind {
                    self.add(kind, name, server);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.mentions(server, key, item)),
            Value::Table(table) if key == Some("server_names") => {
                table.values().for_each(|pool| self.mentions(server, key, pool));
            }
            Value::Table(table) => table.iter().for_each(|(key, value)| self.mentions(server, Some(key), value)),
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
        }
    }

    fn servers<'a>(&'a self, kind: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
        let (kind, name) = match kind {
            "node" => ("pool", name.split('/').next().unwrap_or_default()),
            kind => (kind, name),
        };
        self.by_part.get(&(kind, name)).into_iter().flatten().copied()
    }
}

fn text(main: &str, from: &Texts, to: &Texts, deadline: Instant) -> String {
    let files = |texts: &Texts| -> BTreeMap<String, String> {
        let fragments = texts.fragments.iter().map(|(name, text)| (format!("conf.d/{name}"), text.clone()));
        std::iter::once((main.to_owned(), texts.main.clone())).chain(fragments).collect()
    };
    let (from, to) = (files(from), files(to));
    let names: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let mut diff = String::new();
    for name in names {
        let (before, after) = (from.get(name), to.get(name));
        if before == after {
            continue;
        }
        let header = |there: bool, side: &str| if there { format!("{side}/{name}") } else { "/dev/null".to_owned() };
        let empty = String::new();
        let lines = TextDiff::configure()
            .deadline(deadline)
            .diff_lines(before.unwrap_or(&empty).as_str(), after.unwrap_or(&empty).as_str());
        let headers = (header(before.is_some(), "a"), header(after.is_some(), "b"));
        diff.push_str(&lines.unified_diff().header(&headers.0, &headers.1).to_string());
    }
    diff
}

#[cfg(test)]
mod tests;
