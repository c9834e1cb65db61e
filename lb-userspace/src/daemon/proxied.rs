//! The L7 proxy as the admin API asks it: counters and recent requests from the worker, traces from its plan.

use std::{sync::Arc, time::SystemTime};

use crate::{
    control::{
        proxy::{
            recent::{Filter, Record},
            stats::Snapshot,
            trace::{UrlTraceRequest, UrlTraceView},
        },
        query::{Part, ProxyPath, QueryError},
    },
    proxy::{
        supervisor::Asker,
        trace::{self, TraceError},
    },
};

/// Asks the worker.
#[derive(Clone, Debug)]
pub(super) struct Proxied(pub(super) Asker);

impl ProxyPath for Proxied {
    fn counted(&self, part: Part<'_>) -> Arc<Snapshot> {
        self.0.counted(part)
    }

    fn recent(&self, filter: &Filter) -> Result<Vec<Record>, QueryError> {
        self.0.recent(filter).map_err(|error| QueryError::Failed(error.to_string()))
    }

    fn trace_url(&self, request: &UrlTraceRequest) -> Result<UrlTraceView, QueryError> {
        trace::trace(&self.0.plan(), &self.0.out(), request, unix_s()).map_err(|error| match error {
            TraceError::Invalid(why) => QueryError::Invalid(why),
            TraceError::NotFound(why) => QueryError::NotFound(why),
        })
    }
}

/// Seconds since 1970.
pub(super) fn unix_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs())
}
