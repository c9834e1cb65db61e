//! Notes for `lbctl trace` and `lbctl capture`. In the program that forwards, `noting()` is a constant false and all of this
//! disappears.

use lb_common::{explain::Explanation, flow::FlowKey};

use crate::{globals::noting, maps::EXPLANATION};

#[inline(always)]
fn edit(change: impl FnOnce(&mut Explanation)) {
    if !noting() {
        return;
    }
    if let Some(explanation) = notes() {
        // SAFETY: a live map value; `lbctl trace` runs one test at a time, and a CPU's notes are its own.
        change(unsafe { &mut *explanation });
    }
}

#[cfg(not(feature = "capture"))]
#[inline(always)]
fn notes() -> Option<*mut Explanation> {
    EXPLANATION.get_ptr_mut(0)
}

#[cfg(feature = "capture")]
#[inline(always)]
fn notes() -> Option<*mut Explanation> {
    crate::capture::snapshot().map(|snapshot| &raw mut snapshot.note)
}

/// Index and slot of the interface that the packet is said to come in by. For the explaining twin alone.
#[inline(always)]
pub fn ingress() -> (u32, u32) {
    EXPLANATION.get(0).map_or((0, 0), |e| (e.ingress, e.ingress_slot))
}

/// A step (`lb_common::explain::step`) was taken.
#[inline(always)]
pub fn step(bit: u32) {
    edit(|e| e.steps |= bit);
}

/// The flow that was parsed.
#[inline(always)]
pub fn flow(key: &FlowKey) {
    edit(|e| e.key = *key);
}

/// The connection that was found or made.
#[inline(always)]
pub fn connection(virtual_server: u16, node: u16, flow_flags: u8, state: u8) {
    edit(|e| {
        e.virtual_server = virtual_server;
        e.node = node;
        e.flow_flags = flow_flags;
        e.state = state;
    });
}

/// The virtual server that was found.
#[inline(always)]
pub fn virtual_server(id: u16) {
    edit(|e| e.virtual_server = id);
}

/// The interface the packet leaves by.
#[inline(always)]
pub fn egress(ifindex: u32) {
    edit(|e| e.ifindex = ifindex);
}

/// How the path ended.
#[inline(always)]
pub fn reason(number: u32) {
    edit(|e| e.reason = number as u8);
}
