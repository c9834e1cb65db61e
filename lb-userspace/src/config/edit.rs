//! Edits of parts of a configuration's text: comments, order and spelling of all the rest stay. Pure; what comes out is TOML,
//! not yet a valid configuration.

mod value;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};
use toml_edit::{DocumentMut, InlineTable, Item, Table, TableLike};

use self::value::{into_item, into_value, plain};
use super::schema;
use crate::control::revision::{Action, Edit, Texts};

/// The deepest place that is edited; deeper than any key of a configuration.
const DEEPEST: usize = 16;

/// Why an edit cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// A file of the configuration is not TOML.
    #[error("{file} is not valid TOML: {why}")]
    Syntax {
        /// The file.
        file: String,
        /// What the parser says.
        why: String,
    },
    /// There is nothing at this place.
    #[error("there is no {0} in the configuration")]
    Missing(String),
    /// The place makes no sense.
    #[error("{0}")]
    Nonsense(String),
}

/// The texts with these edits made, in their order.
///
/// # Errors
/// When one of them cannot be made.
pub fn edit(texts: &Texts, edits: &[Edit]) -> Result<Texts, EditError> {
    let mut editor = Editor::of(texts)?;
    editor.edit(edits)?;
    Ok(editor.write(texts))
}

/// Texts in a form that edits are made in: kept by who edits the same again, because a large text takes long to parse.
#[derive(Debug)]
pub struct Editor(Files);

impl Editor {
    /// Of these texts.
    ///
    /// # Errors
    /// When one of them is not TOML.
    pub fn of(texts: &Texts) -> Result<Self, EditError> {
        Files::parse(texts).map(Self)
    }

    /// Makes edits, in their order. After an error it is of no use any more.
    ///
    /// # Errors
    /// When one of them cannot be made.
    pub fn edit(&mut self, edits: &[Edit]) -> Result<(), EditError> {
        edits.iter().try_for_each(|edit| self.0.edit(edit))
    }

    /// What stands at a place now, in all files together.
    pub(super) fn part(&self, place: &[&str]) -> Option<toml::Value> {
        let files = std::iter::once(&self.0.main).chain(self.0.fragments.iter().map(|(_, file)| file));
        let found = files.filter_map(|file| {
            let item = place.iter().try_fold(file.document.as_item(), |item, key| item.get(key))?;
            value::of_item(item)
        });
        found.reduce(|whole, more| match (whole, more) {
            (toml::Value::Table(mut whole), toml::Value::Table(more)) => {
                whole.extend(more);
                toml::Value::Table(whole)
            }
            (_, more) => more,
        })
    }

    /// The texts that these have become.
    #[must_use]
    pub fn write(&mut self, before: &Texts) -> Texts {
        self.0.write(before)
    }
}

/// The files, parsed.
#[derive(Debug)]
struct Files {
    main: File,
    fragments: Vec<(String, File)>,
}

#[derive(Debug)]
struct File {
    document: DocumentMut,
    touched: bool,
}

impl Files {
    fn parse(texts: &Texts) -> Result<Self, EditError> {
        let parse = |name: &str, text: &str| {
            let document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| EditError::Syntax {
                file: name.to_owned(),
                why: error.message().to_owned(),
            })?;
            Ok(File { document, touched: false })
        };
        let fragments = texts.fragments.iter().map(|(name, text)| Ok((name.clone(), parse(name, text)?)));
        Ok(Self {
            main: parse("the configuration file", &texts.main)?,
            fragments: fragments.collect::<Result<_, _>>()?,
        })
    }

    /// Files that nothing was done to stay as they are, byte by byte.
    fn write(&mut self, before: &Texts) -> Texts {
        let text = |file: &mut File, before: &String| match std::mem::take(&mut file.touched) {
            true => file.document.to_string(),
            false => before.clone(),
        };
        let main = text(&mut self.main, &before.main);
        let fragments =
            self.fragments.iter_mut().map(|(name, file)| (name.clone(), text(file, &before.fragments[name])));
        Texts { main, fragments: fragments.collect() }
    }

    fn edit(&mut self, Edit { path, action }: &Edit) -> Result<(), EditError> {
        if path.is_empty() || path.len() > DEEPEST {
            return Err(EditError::Nonsense(format!("a path has 1 to {DEEPEST} parts, not {}", path.len())));
        }
        let file = self.file_of(path);
        file.touched = true;
        let root = file.document.as_table_mut();
        match action {
            Action::Remove => remove(root, path),
            Action::Set(value) => set(root, path, value),
            Action::Merge(Value::Object(patch)) => merge(root, path, patch),
            Action::Merge(other) => {
                Err(EditError::Nonsense(format!("{} is merged with an object, not {other}", path.join("."))))
            }
        }
    }

    /// The file that has the part, or the one that a new part goes to: a part is never in two files.
    fn file_of(&mut self, path: &[String]) -> &mut File {
        let section = &path[..path.len().min(2)];
        let has = |file: &File| {
            let mut at = file.document.as_item();
            section.iter().all(|key| match at.get(key) {
                Some(inner) => {
                    at = inner;
                    true
                }
                None => false,
            })
        };
        match self.fragments.iter().position(|(_, file)| has(file)) {
            Some(index) if !has(&self.main) => &mut self.fragments[index].1,
            Some(_) | None => &mut self.main,
        }
    }
}

fn remove(root: &mut Table, path: &[String]) -> Result<(), EditError> {
    let missing = || EditError::Missing(path.join("."));
    let (key, parents) = path.split_last().ok_or_else(missing)?;
    let mut table: &mut dyn TableLike = root;
    for parent in parents {
        table = table.get_mut(parent).and_then(Item::as_table_like_mut).ok_or_else(missing)?;
    }
    table.remove(key).map(drop).ok_or_else(missing)
}

fn set(root: &mut Table, path: &[String], value: &Value) -> Result<(), EditError> {
    let (key, parents) = path.split_last().ok_or_else(|| EditError::Missing(path.join(".")))?;
    let table = enter(root, parents)?;
    replace(table, key, parents.len(), value)
}

fn merge(root: &mut Table, path: &[String], patch: &Map<String, Value>) -> Result<(), EditError> {
    let table = enter(root, path)?;
    merge_into(table, path.len(), patch)
}

/// The table at a place; what is not there yet is made.
fn enter<'t>(root: &'t mut Table, path: &[String]) -> Result<&'t mut dyn TableLike, EditError> {
    let mut table: &mut dyn TableLike = root;
    for (depth, key) in path.iter().enumerate() {
        if table.get(key).is_none_or(Item::is_none) {
            table.insert(key, empty(&path[..=depth]));
        }
        let item = table.get_mut(key).and_then(Item::as_table_like_mut);
        table = item.ok_or_else(|| EditError::Nonsense(format!("{} is not a table", path[..=depth].join("."))))?;
    }
    Ok(table)
}

/// An empty table for a place: sections and what is named in them have a header of their own, the rest stands in one line.
fn empty(path: &[String]) -> Item {
    match is_section(path.len() - 1, path.last().map_or("", String::as_str)) {
        Some(implicit) => {
            let mut table = Table::new();
            table.set_implicit(implicit);
            Item::Table(table)
        }
        None => Item::Value(InlineTable::new().into()),
    }
}

/// Whether a table at that depth has a header of its own, and if it is one that says nothing.
fn is_section(depth: usize, key: &str) -> Option<bool> {
    match depth {
        0 => Some(schema::is_named(key)),
        1 | 3 => Some(false),
        2 if key == "node" => Some(true),
        _ => None,
    }
}

/// Puts a value in the place of a key's: tables keep what stays the same in them, with its comments.
fn replace(table: &mut dyn TableLike, key: &str, depth: usize, value: &Value) -> Result<(), EditError> {
    let existing = table.get_mut(key);
    match (existing, value) {
        (Some(item), Value::Object(object)) if item.is_table_like() => {
            let Some(inner) = item.as_table_like_mut() else { return Ok(()) };
            let gone: Vec<String> =
                inner.iter().map(|(key, _)| key.to_owned()).filter(|key| !object.contains_key(key)).collect();
            for key in gone {
                inner.remove(&key);
            }
            for (key, value) in object {
                replace(inner, key, depth + 1, value)?;
            }
        }
        (Some(Item::Value(old)), value) => {
            let mut new = into_value(key, value)?;
            if plain(old) != plain(&new) {
                *new.decor_mut() = old.decor().clone();
                *old = new;
            }
        }
        (Some(item), value) => *item = into_item(key, depth, value)?,
        (None, value) => drop(table.insert(key, into_item(key, depth, value)?)),
    }
    Ok(())
}

/// RFC 7396.
fn merge_into(table: &mut dyn TableLike, depth: usize, patch: &Map<String, Value>) -> Result<(), EditError> {
    for (key, value) in patch {
        match value {
            Value::Null => drop(table.remove(key)),
            Value::Object(inner) if table.get(key).is_some_and(Item::is_table_like) => {
                if let Some(table) = table.get_mut(key).and_then(Item::as_table_like_mut) {
                    merge_into(table, depth + 1, inner)?;
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                replace(table, key, depth, &without_nulls(value))?;
            }
        }
    }
    Ok(())
}

/// What a merge makes of a value where nothing was: nulls only remove.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let kept = object.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => value.clone(),
    }
}
