//! `lbctl events` and `lbctl alert`.

use clap::{Args, Subcommand};

use crate::control::event::{Filter, Name, Severity};

/// Verbs of events.
#[derive(Debug, Subcommand)]
pub enum EventVerbs {
    /// List them, the newest last
    #[command(
        before_help = "Examples:\n  lbctl events ls --name node_down --limit 5\n  lbctl events ls --object web/n1\n  lbctl events ls --follow -o json\n"
    )]
    Ls(EventArguments),
}

/// Verbs of alerts.
#[derive(Debug, Subcommand)]
pub enum AlertVerbs {
    /// List them, and what became of their notices
    Ls,
    /// Tell a test by one, now; says whether it was told
    Test {
        /// The alert
        name: String,
    },
}

/// Which events.
#[derive(Debug, Args)]
pub struct EventArguments {
    /// Go on with those that happen from now on
    #[arg(short, long)]
    pub follow: bool,
    /// Only those that matter so much, or more: info, warning or critical
    #[arg(long, value_name = "SEVERITY", value_parser = severity)]
    pub severity: Option<Severity>,
    /// Only this one, as node_down
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub name: Option<Name>,
    /// Only what is about this, as web/n1
    #[arg(long, value_name = "OBJECT")]
    pub object: Option<String>,
    /// At most so many: the newest
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
}

impl EventArguments {
    /// As the API has it.
    #[must_use]
    pub fn filter(&self) -> Filter {
        Filter {
            name: self.name,
            object: self.object.clone(),
            severity: self.severity,
            limit: Some(self.limit),
            ..Filter::default()
        }
    }
}

fn severity(word: &str) -> Result<Severity, String> {
    let found = Severity::ALL.into_iter().find(|severity| severity.word() == word);
    found.ok_or_else(|| "it is info, warning or critical".to_owned())
}

fn name(word: &str) -> Result<Name, String> {
    Name::of_word(word).ok_or_else(|| {
        let words: Vec<&str> = Name::ALL.iter().map(|name| name.word()).collect();
        format!("events: {}", words.join(", "))
    })
}
