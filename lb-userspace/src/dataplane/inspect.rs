//! The data plane's reading half: answers [`DataPath`]'s questions from the maps, and never writes one. Called by the admin
//! API's threads, through the trait; every answer is its own look at the maps, so two of them may differ by the packets in
//! between.

pub mod words;

use std::{path::PathBuf, sync::Arc};

use super::{
    collect::Collected, connections::connections, counters::counters, doctor::doctor, dump, maps::Maps,
    names::SharedNames, owner::Dataplane, trace::trace,
};
use crate::control::{
    query::{ConnectionFilter, Connections, Counters, DataPath, Part, QueryError},
    view::{Finding, MapDump, MapView, RingShare, TraceRequest, TraceView},
};

/// What every question is answered from.
#[derive(Clone, Debug)]
pub struct Context {
    /// All maps.
    pub maps: Arc<Maps>,
    /// What the numbers in them mean; also the interfaces and the plan in force.
    pub names: SharedNames,
    /// The pin of the explaining twin.
    pub explain_pin: PathBuf,
    /// What the collector found last.
    pub collected: Collected,
}

impl Context {
    /// Of this data plane. `collected` is shared with its [`Collector`](super::collect::Collector).
    #[must_use]
    pub fn new(dataplane: &Dataplane, collected: Collected) -> Self {
        Self { maps: dataplane.maps(), names: dataplane.names(), explain_pin: dataplane.explain_pin(), collected }
    }
}

/// Answers questions about the data path.
#[derive(Clone, Debug)]
pub struct Inspector {
    context: Context,
}

impl Inspector {
    /// Over these maps.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

impl DataPath for Inspector {
    fn counters(&self) -> Result<Counters, QueryError> {
        counters(&self.context, Part::All)
    }

    fn counters_of(&self, part: Part<'_>) -> Result<Counters, QueryError> {
        counters(&self.context, part)
    }

    fn connections(&self, filter: &ConnectionFilter) -> Result<Connections, QueryError> {
        connections(&self.context, filter)
    }

    fn maps(&self) -> Result<Vec<MapView>, QueryError> {
        dump::maps(&self.context)
    }

    fn dump_map(&self, name: &str, limit: usize) -> Result<MapDump, QueryError> {
        dump::dump_map(&self.context, name, limit)
    }

    fn ring(&self, virtual_server: &str) -> Result<Vec<RingShare>, QueryError> {
        dump::ring(&self.context, virtual_server)
    }

    fn trace(&self, request: &TraceRequest) -> Result<TraceView, QueryError> {
        trace(&self.context, request)
    }

    fn doctor(&self) -> Result<Vec<Finding>, QueryError> {
        doctor(&self.context)
    }
}
