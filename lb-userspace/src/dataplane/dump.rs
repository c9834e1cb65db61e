//! The BPF maps for people: which there are and what they cost (`lbctl map ls`), and what stands in them, in words
//! (`lbctl map dump`). Elements that are all zero are left out, secrets are not shown.

mod flows;
mod kernel;
mod network;
mod nodes;
mod rings;
mod rows;
mod services;
mod single;

pub use kernel::maps;
pub use rings::ring;

use super::{inspect::Context, maps::Maps, maps::NAMES, names::Names};
use crate::control::{query::QueryError, view::MapDump};
use rows::Rows;

/// A map that has no pin: every program has its own.
const SCRATCH: &str = "SCRATCH";

/// What a dump is made from.
struct Source<'a> {
    maps: &'a Maps,
    names: &'a Names,
    limit: usize,
}

impl Source<'_> {
    fn rows(&self, columns: &[&str]) -> Rows {
        Rows::new(columns, self.limit)
    }
}

/// A map's elements, at most `limit`. The name is as in `lb-ebpf/src/maps.rs`, in any case.
///
/// # Errors
/// `NotFound` for an unknown name, `Failed` when the kernel refuses.
pub fn dump_map(context: &Context, name: &str, limit: usize) -> Result<MapDump, QueryError> {
    let name = name.to_ascii_uppercase();
    let names = context.names.snapshot();
    let source = Source { maps: &context.maps, names: &names, limit };
    let rows = match name.as_str() {
        "FLOWS" => flows::connections(&source, &source.maps.flows),
        "DIGESTS" => flows::digests(&source),
        "PROOFS" => flows::proofs(&source),
        "PENDING" => flows::connections(&source, &source.maps.pending),
        "AFFINITY" => flows::affinity(&source),
        "FRAGMENTS" => flows::fragments(&source),
        "SERVICES" => services::services(&source)?,
        "PORT_RANGES" => services::port_ranges(&source)?,
        "VIRTUAL_SERVERS" => services::virtual_servers(&source)?,
        "LEASE" => single::lease(&source),
        "LEASED" => services::leased(&source)?,
        "VIRTUAL_ROUTERS" => network::virtual_routers(&source),
        "TIMEOUTS" => services::timeouts(&source)?,
        "CURSORS" => services::cursors(&source)?,
        "FLOOD" => services::flood(&source)?,
        "VIRTUAL_SERVER_NAMES" => services::names(&source)?,
        "NODES" => nodes::nodes(&source),
        "NODE_LOADS" => nodes::loads(&source),
        "NODE_STATS" => nodes::stats(&source)?,
        "NODE_NAMES" => nodes::names(&source)?,
        "RINGS" => rings::elements(&source)?,
        "FILTER" => network::filter(&source)?,
        "VLANS" => network::vlans(&source)?,
        "REASONS" => network::reasons(&source)?,
        "INTERFACES" => network::interfaces(&source)?,
        "DEVICES" => network::devices(&source)?,
        "SERVICES_EPOCH" => single::services_epoch(&source)?,
        "ICMP_ERRORS" => single::icmp_errors(&source)?,
        "EXPLANATION" => single::explanation(&source)?,
        "META" => single::meta(&source)?,
        SCRATCH => single::scratch(&source),
        _ => {
            let all = NAMES.join(", ");
            return Err(QueryError::NotFound(format!("lb has no map {name:?}; there are: {all}, {SCRATCH}")));
        }
    };
    Ok(rows.finish(name))
}
