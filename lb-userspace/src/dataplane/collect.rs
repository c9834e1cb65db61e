//! The collector.

pub mod fate;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::control::view::TableUse;

/// What the collector found last, shared.
#[derive(Clone, Debug, Default)]
pub struct Collected(Arc<RwLock<BTreeMap<String, TableUse>>>);

impl Collected {
    /// Live records and places by table; empty before the first pass.
    #[must_use]
    pub fn tables(&self) -> BTreeMap<String, TableUse> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
