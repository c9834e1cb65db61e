//! The text of a configuration: one or several files, laid end to end in one space of offsets, so that a byte range alone
//! says which file, line and column it means. Reads files; knows nothing of their content.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use super::error::{ConfigError, ConfigErrors, Place};
use crate::control::revision::Texts;

/// Bytes of text, by offset in all files.
pub(super) type Span = Range<usize>;

/// The largest file that is read: a configuration of this size is a mistake.
const MAX_FILE_BYTES: usize = 16 << 20;

/// All files, in the order they are read.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) files: Vec<SourceFile>,
}

/// One file.
#[derive(Debug)]
pub(super) struct SourceFile {
    /// As errors call it.
    pub(super) name: String,
    /// Offset of its first byte.
    pub(super) base: usize,
    /// Its text.
    pub(super) text: String,
}

impl Sources {
    pub(super) fn of_text(name: &str, text: &str) -> Self {
        let mut sources = Self::default();
        sources.add(name.to_owned(), text.to_owned());
        sources
    }

    /// The text of the file at `path` and of `conf.d/*.toml` beside it.
    pub(super) fn of_texts(path: &Path, texts: &Texts) -> Self {
        let mut sources = Self::default();
        sources.add(path.display().to_string(), texts.main.clone());
        let directory = fragments_of(path);
        for (name, text) in &texts.fragments {
            sources.add(directory.join(name).display().to_string(), text.clone());
        }
        sources
    }

    fn add(&mut self, name: String, text: String) {
        // One byte between files, so that the end of one is not the start of the next.
        let base = self.files.last().map_or(0, |file| file.base + file.text.len() + 1);
        self.files.push(SourceFile { name, base, text });
    }

    /// Where a byte range is, for people.
    pub(super) fn place(&self, span: &Span) -> Option<Place> {
        let file = self.files.iter().rev().find(|file| file.base <= span.start)?;
        let at = |offset: usize| file.text.floor_char_boundary(offset - file.base);
        let (start, end) = (at(span.start), at(span.end.max(span.start)));
        let line_start = file.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = file.text[start..].find('\n').map_or(file.text.len(), |newline| start + newline);
        Some(Place {
            file: file.name.clone(),
            line: file.text[..start].matches('\n').count() + 1,
            column: file.text[line_start..start].chars().count() + 1,
            length: file.text[start..end.clamp(start, line_end)].chars().count().max(1),
            text: file.text[line_start..line_end].trim_end().to_owned(),
        })
    }
}

/// Reads a file and `conf.d/*.toml` beside it.
pub(super) fn texts(path: &Path) -> Result<Texts, ConfigErrors> {
    let mut texts = Texts::default();
    let mut errors = Vec::new();
    match read(path) {
        Ok(text) => texts.main = text,
        Err(error) => errors.push(unreadable(path, &error)),
    }
    let directory = fragments_of(path);
    match fragments(&directory) {
        Ok(found) => {
            for (name, path) in found {
                match read(&path) {
                    Ok(text) => drop(texts.fragments.insert(name, text)),
                    Err(error) => errors.push(unreadable(&path, &error)),
                }
            }
        }
        Err(error) => errors.push(unreadable(&directory, &error)),
    }
    if errors.is_empty() { Ok(texts) } else { Err(ConfigErrors { errors }) }
}

/// Where the files are that complement the file at `path`.
pub(super) fn fragments_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).join("conf.d")
}

/// The TOML files of a directory; none when it does not exist. Hidden ones are editors' and our own leftovers.
fn fragments(directory: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        match entry.file_name().into_string() {
            Ok(name) if name.ends_with(".toml") && !name.starts_with('.') => found.push((name, entry.path())),
            Ok(_) => {}
            Err(name) if name.as_encoded_bytes().ends_with(b".toml") => {
                return Err(io::Error::other(format!("the name {} is not UTF-8 text", name.display())));
            }
            Err(_) => {}
        }
    }
    Ok(found)
}

fn read(path: &Path) -> io::Result<String> {
    let bytes = std::fs::read(path)?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        io::Error::other(format!("line {line} is not UTF-8 text"))
    })
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    let help = if error.kind() == io::ErrorKind::NotFound {
        "create it, or say where it is with --config or LB_CONFIG"
    } else {
        "check its owner and mode, and that it is a text file"
    };
    ConfigError {
        message: format!("cannot read {}: {error}", path.display()),
        place: None,
        label: String::new(),
        help: Some(help.to_owned()),
        related: Vec::new(),
    }
}
