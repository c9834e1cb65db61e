//! Which virtual server a destination belongs to. Slow path only: a tracked connection knows its own.

use lb_common::{
    flow::FlowKey,
    vip::{MAX_PORT_RANGES, ServiceKey, VirtualServer, vs_flag},
};

use crate::{
    explain,
    maps::{PORT_RANGES, SERVICES, SERVICES_EPOCH, VIRTUAL_SERVERS},
    scratch::{KNOWN, Known, scratch},
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

/// The same, when this CPU has found it lately.
#[inline(always)]
pub fn find_known(flow: &FlowKey) -> Option<&'static VirtualServer> {
    let image = ServiceKey::image(flow, flow.destination_port(), flow.protocol());
    let known = place_of(&image)?;
    let [a, b, c] = known.image;
    let same = a == image[0] && b == image[1] && c == image[2] && known.epoch == epoch()?;
    if same { record(known.index as u32) } else { None }
}

/// Where a destination is remembered.
#[inline(always)]
fn place_of(image: &[u64; 3]) -> Option<&'static mut Known> {
    let [low, high, rest] = image;
    let mixed = low ^ high ^ rest;
    let index = (mixed ^ mixed >> 8 ^ mixed >> 24) as usize & (KNOWN - 1);
    scratch()?.known.get_mut(index)
}

#[inline(always)]
fn epoch() -> Option<u64> {
    // SAFETY: an aligned word of a live map value.
    SERVICES_EPOCH.get_ptr(0).map(|epoch| unsafe { epoch.read_volatile() })
}

/// Whether its pool resets the connections of failed nodes.
#[inline(always)]
pub fn resets_on_failure(flow: &FlowKey) -> bool {
    find(flow).is_some_and(|server| server.flags & vs_flag::RESET_ON_FAILURE != 0)
}

/// Its index in `VIRTUAL_SERVERS`; 0: none. Remembered for [`find_known`].
#[inline(never)]
pub fn find_index(flow: &FlowKey) -> u32 {
    // Nobody is served at port 0; its key says who owns fragments without ports.
    if flow.destination_port_ne() == 0 {
        return 0;
    }
    // Before the lookup: what changes meanwhile is not remembered as new.
    let Some(epoch) = epoch() else { return 0 };
    let index = look_up(flow);
    if index != 0 {
        let image = ServiceKey::image(flow, flow.destination_port(), flow.protocol());
        if let Some(known) = place_of(&image) {
            (known.image, known.epoch, known.index) = (image, epoch, u64::from(index));
        }
    }
    index
}

#[inline(always)]
fn look_up(flow: &FlowKey) -> u32 {
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
