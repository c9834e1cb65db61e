//! Which virtual server a destination belongs to. Slow path only: a tracked connection knows its own.

use lb_common::{
    flow::FlowKey,
    vip::{MAX_PORT_RANGES, ServiceKey, VirtualServer, vs_flag},
};

use crate::{
    explain,
    maps::{PORT_RANGES, SERVICES, VIRTUAL_SERVERS},
};

#[inline(always)]
fn key_of(image: &[u64; 3]) -> &ServiceKey {
    // SAFETY: three words are as large and as aligned as a key, and any bytes are one.
    unsafe { &*core::ptr::from_ref(image).cast::<ServiceKey>() }
}

/// Whether the destination is a VIP.
#[inline(never)]
pub fn is_vip(flow: &FlowKey) -> bool {
    // SAFETY: the value is copied at once; the daemon replaces elements, never changes them in place.
    unsafe { SERVICES.get(key_of(&ServiceKey::image(flow, 0, 0))) }.is_some()
}

/// The virtual server of a destination address, port and protocol.
#[inline(always)]
pub fn find(flow: &FlowKey) -> Option<&'static VirtualServer> {
    record(find_index(flow))
}

/// The same, when the port is served by itself and not as part of a range.
#[inline(always)]
pub fn find_single(flow: &FlowKey) -> Option<&'static VirtualServer> {
    if flow.destination_port_ne() == 0 {
        return None;
    }
    let key = ServiceKey::image(flow, flow.destination_port(), flow.protocol());
    // SAFETY: as above.
    record(*unsafe { SERVICES.get(key_of(&key)) }?)
}

/// Whether its pool resets the connections of failed nodes.
#[inline(always)]
pub fn resets_on_failure(flow: &FlowKey) -> bool {
    find(flow).is_some_and(|server| server.flags & vs_flag::RESET_ON_FAILURE != 0)
}

/// Its index in `VIRTUAL_SERVERS`; 0: none.
#[inline(never)]
pub fn find_index(flow: &FlowKey) -> u32 {
    // Nobody is served at port 0; its key says who owns fragments without ports.
    if flow.destination_port_ne() == 0 {
        return 0;
    }
    let exact = ServiceKey::image(flow, flow.destination_port(), flow.protocol());
    // SAFETY: as above.
    if let Some(index) = unsafe { SERVICES.get(key_of(&exact)) } {
        return *index;
    }
    let ranges = ServiceKey::image(flow, 0, flow.protocol());
    // SAFETY: elements are replaced whole; the old one stays readable until this program has ended (RCU).
    let Some(ranges) = (unsafe { PORT_RANGES.get(key_of(&ranges)) }) else { return 0 };
    let port = flow.destination_port();
    let mut i = 0;
    while i < MAX_PORT_RANGES {
        let range = &ranges.ranges[i];
        if range.config == 0 {
            return 0;
        }
        if range.first <= port && port <= range.last {
            return range.config;
        }
        i += 1;
    }
    0
}

/// The virtual server that owns fragments without ports: the one DSR server of a (VIP, protocol), when there is only one.
#[inline(always)]
pub fn find_for_fragment(flow: &FlowKey) -> Option<&'static VirtualServer> {
    // SAFETY: as above.
    let index = unsafe { SERVICES.get(key_of(&ServiceKey::image(flow, 0, flow.protocol()))) }?;
    record(*index)
}

/// The virtual server at an index of [`find_index`].
#[inline(always)]
pub fn record(index: u32) -> Option<&'static VirtualServer> {
    if index == 0 {
        return None;
    }
    let server = VIRTUAL_SERVERS.get(index)?;
    explain::step(lb_common::explain::step::SERVICE_HIT);
    explain::virtual_server(server.id);
    Some(server)
}
