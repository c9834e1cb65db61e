//! From text to one tree: parses every file, shifts its places into the common space of offsets, and lays the trees over
//! each other. A name or key that two files define is a mistake; there is no precedence to remember.

use std::collections::BTreeSet;

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::{
    error::{Problem, Problems},
    schema,
    source::{SourceFile, Sources, Span},
};

/// The version of the format that this lbd reads.
const VERSION: i64 = 1;

/// What was read.
pub(super) struct Tree<'i> {
    pub(super) root: DeTable<'i>,
    /// Whether a part was not TOML: then anything may be missing.
    pub(super) broken: bool,
}

/// Parses all files. What cannot be parsed is reported and left out.
pub(super) fn read<'i>(sources: &'i Sources, problems: &mut Problems) -> Tree<'i> {
    let mut tree = Tree { root: DeTable::new(), broken: false };
    for (index, file) in sources.files.iter().enumerate() {
        let (parsed, errors) = DeTable::parse_recoverable(&file.text);
        let broken = !errors.is_empty();
        tree.broken |= broken;
        for error in first_of_lines(file, errors) {
            problems.push(syntax(file, &error));
        }
        // The first file is where the common space begins.
        let parsed = parsed.into_inner();
        let mut table = if file.base == 0 { parsed } else { shift(parsed, file.base) };
        version(&mut table, file, index > 0 || broken, problems);
        merge(&mut tree.root, table, &[], problems);
    }
    tree
}

/// The first error of each line; the others on it follow from that one.
fn first_of_lines(file: &SourceFile, errors: Vec<toml::de::Error>) -> impl Iterator<Item = toml::de::Error> {
    let mut seen = BTreeSet::new();
    errors.into_iter().filter(move |error| {
        let start = error.span().map_or(0, |span| span.start).min(file.text.len());
        seen.insert(file.text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count())
    })
}

fn syntax(file: &SourceFile, error: &toml::de::Error) -> Problem {
    let span = error.span().unwrap_or(0..0);
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    let label = if message.contains("duplicate key") { "defined before" } else { "not understood from here on" };
    Problem::new(&(span.start + file.base..span.end + file.base), format!("not valid TOML: {message}"), label)
        .help("text is written in quotes, lists in [ ], sections as [name] on a line of their own (https://toml.io)")
}

/// Takes `version` out and checks it.
fn version(table: &mut DeTable<'_>, file: &SourceFile, optional: bool, problems: &mut Problems) {
    let start = file.base..file.base;
    let Some((key, value)) = table.remove_entry("version") else {
        if !optional {
            let help = format!("begin the file with: version = {VERSION}");
            problems
                .push(Problem::new(&start, "the configuration has no version", "\"version\" is missing").help(help));
        }
        return;
    };
    let number = value.get_ref().as_integer().and_then(|n| i64::from_str_radix(n.as_str(), n.radix()).ok());
    if number != Some(VERSION) {
        let span = key.span().start..value.span().end;
        let message = format!("this lbd reads version {VERSION} of the configuration format");
        let help = format!("write version = {VERSION}; a later version needs a later lbd");
        problems.push(Problem::new(&span, message, "another version").help(help));
    }
}

/// How deep files may complement each other: `[pool.web]` and `[pool.api]` may be in two files, the keys of one pool not.
const MERGE_DEPTH: usize = 1;

fn merge<'i>(into: &mut DeTable<'i>, from: DeTable<'i>, path: &[String], problems: &mut Problems) {
    for (key, value) in from {
        let name = key.get_ref().to_string();
        let Some((first, existing)) =
            into.get_key_value(name.as_str()).map(|(k, v)| (k.span(), v.get_ref().is_table()))
        else {
            into.insert(key, value);
            continue;
        };
        let inner = [path, std::slice::from_ref(&name)].concat();
        let span = key.span();
        match value.into_inner() {
            DeValue::Table(table) if existing && path.len() < MERGE_DEPTH => {
                if let Some(DeValue::Table(existing)) = into.get_mut(name.as_str()).map(Spanned::get_mut) {
                    merge(existing, table, &inner, problems);
                }
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => problems.push(
                Problem::new(&span, format!("{} is defined twice", schema::section(&inner)), "defined again")
                    .related(&first, "defined here first")
                    .help("the files of a configuration complement each other; remove one of the two"),
            ),
        }
    }
}

fn shift(table: DeTable<'_>, base: usize) -> DeTable<'_> {
    let moved = |span: Span| span.start + base..span.end + base;
    let entries = table.into_iter().map(|(key, value)| {
        let key = Spanned::new(moved(key.span()), key.into_inner());
        (key, shift_value(value, base))
    });
    entries.collect()
}

fn shift_value(value: Spanned<DeValue<'_>>, base: usize) -> Spanned<DeValue<'_>> {
    let span = value.span();
    let shifted = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(shift(table, base)),
        DeValue::Array(items) => {
            DeValue::Array(items.into_iter().map(|item| shift_value(item, base)).collect::<DeArray<'_>>())
        }
        scalar @ (DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)) => scalar,
    };
    Spanned::new(span.start + base..span.end + base, shifted)
}
