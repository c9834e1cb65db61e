//! Connections, maps and rings.

use super::{
    super::output::{Cell, Look, left, right, table},
    bytes, seconds, word,
};
use crate::control::{
    query::Connections,
    view::{ConnectionView, MapDump, MapView, RingShare},
};

/// `lbctl conn ls`.
pub(in crate::ctl) fn connections(list: &Connections, look: Look) -> String {
    type Conn = ConnectionView;
    let columns = vec![
        left("PROTOCOL", |c: &Conn| Cell::new(word(&c.protocol))),
        left("CLIENT", |c: &Conn| Cell::new(&c.client)),
        left("VIP", |c: &Conn| Cell::new(&c.vip)),
        left("NODE", |c: &Conn| Cell::new(format!("{}/{}", c.pool, c.node))),
        left("FORWARDING", |c: &Conn| Cell::new(word(&c.forwarding))).spare(3),
        left("STATE", |c: &Conn| Cell::new(&c.state)),
        right("AGE", |c: &Conn| Cell::new(seconds(c.age_s))).spare(4),
        right("IDLE", |c: &Conn| Cell::new(seconds(c.idle_s))).spare(2),
        right("EXPIRES", |c: &Conn| Cell::new(seconds(c.expires_s))).spare(5),
        left("VIRTUAL SERVER", |c: &Conn| Cell::new(&c.virtual_server)).wide(),
        left("NODE ADDRESS", |c: &Conn| Cell::new(&c.node_address)).wide(),
        left("SOURCE", |c: &Conn| Cell::optional(c.source.as_ref())).wide(),
    ];
    table(columns, &list.connections, look)
}

/// `lbctl map ls`.
pub(in crate::ctl) fn maps(list: &[MapView], look: Look) -> String {
    let columns = vec![
        left("NAME", |map: &MapView| Cell::new(&map.name)),
        left("TYPE", |map: &MapView| Cell::new(&map.map_type)).spare(1),
        right("KEY", |map: &MapView| Cell::new(map.key_size)).spare(3),
        right("VALUE", |map: &MapView| Cell::new(map.value_size)).spare(2),
        right("ELEMENTS", |map: &MapView| Cell::new(map.max_entries)),
        right("MEMORY", |map: &MapView| Cell::new(bytes(map.memory))),
        left("PURPOSE", |map: &MapView| Cell::new(&map.purpose)).wraps(),
    ];
    table(columns, list, look)
}

/// `lbctl map dump`.
pub(in crate::ctl) fn map_dump(dump: &MapDump, look: Look) -> String {
    let column = |(index, head): (usize, &String)| {
        left(&head.to_uppercase(), move |row: &Vec<String>| Cell::optional(row.get(index)))
    };
    table(dump.columns.iter().enumerate().map(column).collect(), &dump.rows, look)
}

/// `lbctl map dump maglev`.
pub(in crate::ctl) fn ring(shares: &[RingShare], look: Look) -> String {
    let percent = |share: f64| Cell::new(format!("{:.2}%", share * 100.0));
    let columns = vec![
        left("NODE", |share: &RingShare| Cell::new(&share.node)),
        right("SLOTS", |share: &RingShare| Cell::new(share.slots)),
        right("SHARE", move |share: &RingShare| percent(share.share)),
        right("BY WEIGHT", move |share: &RingShare| percent(share.expected)),
    ];
    table(columns, shares, look)
}
