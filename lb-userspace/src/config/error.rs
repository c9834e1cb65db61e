//! Mistakes in a configuration, as values and as text. The text is made for people: place, source line, underline, and
//! what to do. Knows nothing of what a configuration contains.

use std::fmt::{self, Write};

use serde::Serialize;

use super::source::{Sources, Span};
use crate::visible;

/// All mistakes of a configuration, in the order of their places. Never empty.
///
/// As text (`Display`) without colour; [`ConfigErrors::report`] can have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct ConfigErrors {
    /// The mistakes.
    pub errors: Vec<ConfigError>,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// What is wrong, in one sentence that stands alone.
    pub message: String,
    /// Where; `None` when it is about a file as a whole.
    pub place: Option<Place>,
    /// What is wrong right there, in few words.
    pub label: String,
    /// What to do.
    pub help: Option<String>,
    /// Other places that have to do with it, and how.
    pub related: Vec<(Place, String)>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// File.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Characters on that line that are meant, at least 1.
    pub length: usize,
    /// The line.
    pub text: String,
}

impl ConfigErrors {
    /// Everything as text, with ANSI colours when asked to.
    #[must_use]
    pub fn report(&self, colour: bool) -> String {
        let mut report = Report { text: String::new(), colour };
        for error in &self.errors {
            report.error(error);
        }
        let (count, s) = (self.errors.len(), if self.errors.len() == 1 { "" } else { "s" });
        report.line(&report.paint(RED, &format!("{count} error{s} in the configuration")));
        report.text
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.report(false).trim_end())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Mistakes while they are being found.
#[derive(Debug, Default)]
pub(super) struct Problems {
    found: Vec<Problem>,
}

/// A mistake, by its offset.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) span: Span,
    pub(super) message: String,
    pub(super) label: String,
    pub(super) help: Option<String>,
    pub(super) related: Vec<(Span, String)>,
}

impl Problem {
    pub(super) fn new(span: &Span, message: impl Into<String>, label: impl Into<String>) -> Self {
        let (message, label) = (message.into(), label.into());
        Self { span: span.clone(), message, label, help: None, related: Vec::new() }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn related(mut self, span: &Span, label: impl Into<String>) -> Self {
        self.related.push((span.clone(), label.into()));
        self
    }
}

impl Problems {
    pub(super) fn push(&mut self, problem: Problem) {
        self.found.push(problem);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// With their places, in order.
    pub(super) fn into_errors(mut self, sources: &Sources) -> ConfigErrors {
        self.found.sort_by_key(|problem| problem.span.start);
        let errors = self.found.into_iter().map(|problem| ConfigError {
            place: sources.place(&problem.span),
            related: (problem.related.into_iter())
                .filter_map(|(span, label)| sources.place(&span).map(|place| (place, label)))
                .collect(),
            message: problem.message,
            label: problem.label,
            help: problem.help,
        });
        ConfigErrors { errors: errors.collect() }
    }
}

const RED: &str = "1;31";
const BLUE: &str = "1;34";
const GREEN: &str = "1;32";

struct Report {
    text: String,
    colour: bool,
}

impl Report {
    fn error(&mut self, error: &ConfigError) {
        self.line(&format!("{}: {}", self.paint(RED, "error"), visible::line(&error.message)));
        if let Some(place) = &error.place {
            self.snippet("-->", place, '^', &error.label, RED);
        }
        for (place, label) in &error.related {
            self.snippet(":::", place, '-', label, BLUE);
        }
        let margin = error.place.as_ref().map_or(1, |place| place.line.to_string().len());
        for line in error.help.iter().flat_map(|help| help.lines()) {
            self.line(&format!("{} {} {}", " ".repeat(margin), self.paint(GREEN, "= help:"), visible::line(line)));
        }
        self.line("");
    }

    fn snippet(&mut self, arrow: &str, place: &Place, mark: char, label: &str, colour: &str) {
        let number = place.line.to_string();
        let margin = " ".repeat(number.len());
        let bar = self.paint(BLUE, "|");
        // A tab is shown as one space, so that the underline fits; what is spelled out is longer than in the file.
        let shown = |part: String| visible::line(&part.replace('\t', " ")).into_owned();
        let before = shown(place.text.chars().take(place.column - 1).collect());
        let meant = shown(place.text.chars().skip(place.column - 1).take(place.length).collect());
        let text = shown(place.text.clone());
        let underline = mark.to_string().repeat(meant.chars().count().max(1));
        self.line(&format!("{margin}{} {}", self.paint(BLUE, arrow), visible::line(&place.to_string())));
        self.line(&format!("{margin} {bar}"));
        self.line(&format!("{} {bar} {text}", self.paint(BLUE, &number)));
        let mark = self.paint(colour, &format!("{underline} {}", visible::line(label)));
        self.line(&format!("{margin} {bar} {}{mark}", " ".repeat(before.chars().count())));
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&mut self, line: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{}", line.trim_end());
    }
}
