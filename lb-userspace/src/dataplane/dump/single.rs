//! The maps of one element: a row a field.

use lb_common::{
    explain::{Explanation, step},
    flow::{FlowKey, WAYS},
    maps::{META_MAGIC, Meta},
};

use super::{Source, network::reason, rows::Rows};
use crate::{
    control::query::QueryError,
    dataplane::{
        clock,
        counters::unreadable,
        inspect::words::{self, bits},
    },
};

const STEPS: [(u32, &str); 11] = [
    (step::FILTER_HIT, "filter-hit"),
    (step::FLOW_HIT, "flow-hit"),
    (step::PENDING_HIT, "pending-hit"),
    (step::STALE, "stale"),
    (step::SERVICE_HIT, "service-hit"),
    (step::AFFINITY_HIT, "affinity-hit"),
    (step::SCHEDULED, "scheduled"),
    (step::STATELESS, "stateless"),
    (step::FLOOD, "flood"),
    (step::REPLY, "reply"),
    (step::FRAGMENT_HIT, "fragment-hit"),
];

fn fields(source: &Source<'_>, fields: Vec<(&str, String)>) -> Rows {
    let mut rows = source.rows(&["field", "value"]);
    for (field, value) in fields {
        rows.push(|| vec![field.to_owned(), value]);
    }
    rows
}

/// `EXPLANATION`.
pub(super) fn explanation(source: &Source<'_>) -> Result<Rows, QueryError> {
    let found = source.maps.explanation.get(&0, 0).map_err(unreadable("EXPLANATION"))?;
    if found == Explanation::default() {
        return Ok(fields(source, Vec::new()));
    }
    let is_parsed = found.key != FlowKey::default();
    let flow = |end: fn(&FlowKey) -> std::net::SocketAddr| {
        if is_parsed { end(&found.key).to_string() } else { "-".to_owned() }
    };
    let node = if found.node == 0 {
        "-".to_owned()
    } else {
        let generation = source.maps.nodes.read(u32::from(found.node) % source.maps.nodes.len()).generation;
        words::node(source.names, found.node, generation)
    };
    let (reason, action) = reason(u32::from(found.reason));
    Ok(fields(
        source,
        vec![
            ("source", flow(words::source)),
            ("destination", flow(words::destination)),
            ("protocol", words::protocol_name(found.key.protocol())),
            ("steps", bits(found.steps, &STEPS)),
            ("virtual_server", words::virtual_server(source.names, found.virtual_server)),
            ("node", node),
            ("flags", words::flow_flags(found.flow_flags)),
            ("state", words::state(found.state).to_owned()),
            ("reason", reason),
            ("action", action.to_owned()),
            ("interface", words::link(source.names, found.ifindex)),
        ],
    ))
}

/// `SERVICES_EPOCH`.
pub(super) fn services_epoch(source: &Source<'_>) -> Result<Rows, QueryError> {
    let epoch = source.maps.services_epoch.get(&0, 0).map_err(unreadable("SERVICES_EPOCH"))?;
    Ok(fields(source, vec![("epoch", epoch.to_string())]))
}

/// `ICMP_ERRORS`.
pub(super) fn icmp_errors(source: &Source<'_>) -> Result<Rows, QueryError> {
    let word = source.maps.icmp_errors.get(&0, 0).map_err(unreadable("ICMP_ERRORS"))?;
    Ok(fields(source, vec![("tick", (word >> 32).to_string()), ("asked_for", (word & 0xffff_ffff).to_string())]))
}

/// `LEASE`.
pub(super) fn lease(source: &Source<'_>) -> Rows {
    let until = source.maps.lease.read(0);
    let ends = match until {
        0 => "never".to_owned(),
        until => match clock::left_of(until) {
            Some(left) => format!("in {} ms", left.as_millis()),
            None => "is over".to_owned(),
        },
    };
    fields(source, vec![("until_jiffy", until.to_string()), ("ends", ends)])
}

/// `META`. The secret stays secret: with it, flows could be made that meet in one bucket.
pub(super) fn meta(source: &Source<'_>) -> Result<Rows, QueryError> {
    let meta: Meta = source.maps.meta.get(&0, 0).map_err(unreadable("META"))?;
    let magic = if meta.magic == META_MAGIC { "lbmeta01".to_owned() } else { format!("{:#x}", meta.magic) };
    let places = |mask: u32| format!("{} buckets, {} places", u64::from(mask) + 1, (u64::from(mask) + 1) * WAYS as u64);
    Ok(fields(
        source,
        vec![
            ("magic", magic),
            ("layout_version", meta.layout_version.to_string()),
            ("flows", places(meta.flow_mask)),
            ("pending", places(meta.pending_mask)),
            ("affinity", places(meta.affinity_mask)),
            ("fragments", places(meta.fragment_mask)),
            ("table_keys", "(secret)".to_owned()),
        ],
    ))
}

/// `SCRATCH`.
pub(super) fn scratch(source: &Source<'_>) -> Rows {
    let note = "working memory of the slow path, per CPU; means nothing between two packets";
    fields(source, vec![("note", note.to_owned())])
}
