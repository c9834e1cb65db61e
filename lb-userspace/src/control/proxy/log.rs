//! Access logs of virtual servers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where and how requests are logged. The file is opened by lbd (and anew at USR1) and handed to the worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    /// The file.
    pub path: PathBuf,
    /// How a line looks.
    pub format: Format,
    /// One request of so many is logged; errors always. At least 1.
    pub sample: u32,
}

/// How a line looks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// NCSA combined.
    #[default]
    Combined,
    /// One JSON object a line.
    Json,
    /// Own text with macros.
    Own(String),
}
