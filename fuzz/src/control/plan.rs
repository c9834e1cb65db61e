//! What `control::proxy` takes from the data path's plan.

use serde::{Deserialize, Serialize};

/// What a node takes; a copy of lb-userspace's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Admission {
    /// Everything.
    All,
    /// Its own connections.
    Tracked,
    /// Nothing.
    Nothing,
}
