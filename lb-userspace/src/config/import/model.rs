//! What is collected while a foreign configuration is read, and how it becomes text.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use serde_json::{Map, Value, json};

use super::{Imported, Note};
use crate::{
    config::edit,
    control::revision::{Action, Edit, Texts},
};

/// The longest name, in bytes.
const LONGEST_NAME: usize = lb_common::maps::NAME_BYTES - 1;

/// The interface that is written where none is told.
const GUESS: &str = "eth0";

/// Sections in the order in which they are written.
const ORDER: [&str; 7] = ["interface", "certificate", "monitor", "vip", "virtual_server", "pool", "rate_class"];

/// A table with its name.
type Named = (String, Map<String, Value>);

/// A configuration in the making.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// Tables, by section and name.
    sections: BTreeMap<&'static str, Vec<Named>>,
    notes: BTreeSet<Note>,
}

impl Model {
    /// Says that a line was not translated, or needs a look.
    pub(super) fn note(&mut self, line: usize, text: impl Into<String>) {
        self.notes.insert(Note { line, text: text.into() });
    }

    /// Puts a table into a section: the name that it got, which is like the one asked for.
    pub(super) fn add(&mut self, section: &'static str, name: &str, table: Value) -> String {
        let name = self.free_name(section, name);
        let Value::Object(table) = table else { return name };
        self.sections.entry(section).or_default().push((name.clone(), table));
        name
    }

    /// The name of a table of this section that is the same, or that of a new one.
    pub(super) fn add_once(&mut self, section: &'static str, name: &str, table: Value) -> String {
        let same = |(_, known): &&Named| table.as_object() == Some(known);
        match self.sections.get(section).and_then(|tables| tables.iter().find(same)) {
            Some((known, _)) => known.clone(),
            None => self.add(section, name, table),
        }
    }

    /// A table of exactly this name, unless there is one.
    pub(super) fn add_once_named(&mut self, section: &'static str, name: &str, table: Value) {
        if !self.has(section, name) {
            self.add(section, name, table);
        }
    }

    /// The VIP group that an address is in.
    pub(super) fn vip_of(&mut self, address: IpAddr) -> String {
        let is_in = |table: &Map<String, Value>| {
            table.get("addresses").and_then(Value::as_array).is_some_and(|all| all.contains(&json!(address)))
        };
        let groups = self.sections.get("vip").into_iter().flatten();
        match groups.filter(|(_, table)| is_in(table)).map(|(name, _)| name.clone()).next() {
            Some(name) => name,
            None => self.add("vip", &address.to_string().replace(':', "_"), json!({ "addresses": [address] })),
        }
    }

    /// A table that was added.
    pub(super) fn table(&mut self, section: &'static str, name: &str) -> Option<&mut Map<String, Value>> {
        let tables = self.sections.get_mut(section)?;
        tables.iter_mut().find(|(known, _)| known == name).map(|(_, table)| table)
    }

    /// Whether there is a table of that name.
    pub(super) fn has(&self, section: &str, name: &str) -> bool {
        self.sections.get(section).is_some_and(|tables| tables.iter().any(|(known, _)| known == name))
    }

    /// Packets have to come in somewhere.
    pub(super) fn needs_interface(&mut self) {
        if self.sections.get("interface").is_none_or(Vec::is_empty) {
            self.add("interface", GUESS, json!({}));
            self.note(
                0,
                format!(
                    "no interface is told: [interface.{GUESS}] is a guess; name the one clients' packets come in by"
                ),
            );
        }
    }

    /// A name of ours that is like another and not taken.
    fn free_name(&self, section: &str, name: &str) -> String {
        let mut plain: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
        plain.truncate(LONGEST_NAME - 4);
        if plain.is_empty() {
            plain.push('x');
        }
        let numbered = (2..).map(|number| format!("{plain}-{number}"));
        std::iter::once(plain.clone()).chain(numbered).find(|name| !self.has(section, name)).unwrap_or(plain)
    }

    /// The configuration as text.
    pub(super) fn finish(mut self) -> Imported {
        let mut edits = Vec::new();
        for section in ORDER {
            for (name, table) in self.sections.remove(section).unwrap_or_default() {
                let path = vec![section.to_owned(), name];
                edits.push(Edit { path, action: Action::Set(Value::Object(table)) });
            }
        }
        let empty = Texts { main: "version = 1\n".to_owned(), ..Texts::default() };
        let written = edit::edit(&empty, &edits).map(|texts| texts.main).unwrap_or_else(|error| {
            self.note(0, error.to_string());
            empty.main.clone()
        });
        let notes: Vec<Note> = self.notes.into_iter().collect();
        let mut toml = String::new();
        if !notes.is_empty() {
            toml.push_str("# Not translated, or to be looked at:\n");
            // One comment a line, whatever the note quotes.
            let comments = notes.iter().map(|note| note.to_string().replace(|c: char| c.is_control(), " "));
            toml.extend(comments.map(|note| format!("#   {note}\n")));
            toml.push('\n');
        }
        toml.push_str(&written);
        Imported { toml, notes }
    }
}

/// A length of time as both HAProxy and nginx write it, in milliseconds; a number alone counts in `unit` milliseconds.
pub(super) fn milliseconds(text: &str, unit: u64) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor = match suffix {
        "" => unit,
        "us" => return number.parse::<u64>().ok().map(|us| us.div_ceil(1000)),
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// As we write it; within what we take.
pub(super) fn period(milliseconds: u64) -> String {
    match milliseconds.clamp(1, 86_400_000) {
        whole if whole.is_multiple_of(1000) => format!("{}s", whole / 1000),
        broken => format!("{broken}ms"),
    }
}

/// `IP`, `IP:port`, `[IP]:port`, `*:port`, `:port`, `port`: the address (`None`: all) and the port.
pub(super) fn listen(text: &str) -> Option<(Option<IpAddr>, Option<u16>)> {
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Some((Some(socket.ip()), Some(socket.port())));
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some((Some(address), None));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port = port.parse().ok()?;
    match host.trim_start_matches('[').trim_end_matches(']') {
        "" | "*" => Some((None, Some(port))),
        host => host.parse().ok().map(|address| (Some(address), Some(port))),
    }
}

/// Host and port as a node's address: `IP:port`, `[IP]:port` or `name:port`.
pub(super) fn node_address(text: &str, port: Option<u16>) -> Option<String> {
    if let Some((address, own)) = listen(text) {
        let port = own.or(port)?;
        return address.map(|address| SocketAddr::new(address, port).to_string());
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, own)) => (host, own.parse().ok()?),
        None => (text, port?),
    };
    let is_name = |host: &str| host.split('.').all(|label| !label.is_empty() && label.chars().all(plain));
    is_name(host).then(|| format!("{}:{port}", host.to_ascii_lowercase()))
}

fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}
