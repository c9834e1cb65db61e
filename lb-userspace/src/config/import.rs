//! Configurations of other balancers as one of ours: what means the same is translated, and of all else it is said, by line, that
//! it was not. Pure; what comes out is a valid configuration, but for what only a person can decide.

mod blocks;
mod haproxy;
mod http;
mod ipvs;
mod keepalived;
mod model;
mod nginx;

#[cfg(test)]
mod tests;

use model::Model;
use serde::Serialize;

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `haproxy.cfg`.
    Haproxy,
    /// `keepalived.conf`.
    Keepalived,
    /// What `ipvsadm -S -n` prints.
    Ipvs,
    /// `nginx.conf`.
    Nginx,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// The configuration, with what was not translated as comments at its top.
    pub toml: String,
    /// What was not translated, or needs a look, in the order of lines.
    pub notes: Vec<Note>,
}

/// A line that has no counterpart, or one that means something else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Note {
    /// From 1; 0: the file as a whole.
    pub line: usize,
    /// What stands there, and what became of it.
    pub text: String,
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => f.write_str(&self.text),
            line => write!(f, "line {line}: {}", self.text),
        }
    }
}

/// Translates a configuration.
#[must_use]
pub fn import(format: Format, text: &str) -> Imported {
    let mut model = Model::default();
    match format {
        Format::Haproxy => haproxy::read(text, &mut model),
        Format::Keepalived => keepalived::read(text, &mut model),
        Format::Ipvs => ipvs::read(text, &mut model),
        Format::Nginx => nginx::read(text, &mut model),
    }
    model.finish()
}
