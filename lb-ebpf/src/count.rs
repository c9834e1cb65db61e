//! Counters. Per CPU, plain additions; nothing is counted by the explaining twin.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    flow::{Control, flag},
    node::{NodeLoad, NodeStats},
    reason::REASON_SLOTS,
};

use crate::{
    atomic::Word,
    frame::XdpFrame,
    globals::{explaining, interface},
    maps::{NODE_LOADS, NODE_STATS, NODES, REASONS},
    verdict::Verdict,
};

/// A packet's path ended on this interface.
#[inline(always)]
pub fn reason(ctx: &XdpContext, number: u32) {
    if explaining() {
        return;
    }
    let bytes = XdpFrame::new(ctx).bytes() as u64;
    if let Some(counter) = REASONS.get_ptr_mut(interface() * REASON_SLOTS + (number & (REASON_SLOTS - 1))) {
        // SAFETY: a live per-CPU map value; XDP does not nest on a CPU.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes;
        }
    }
}

#[inline(always)]
fn stats(node: u16, change: impl FnOnce(&mut NodeStats)) {
    if explaining() {
        return;
    }
    if let Some(stats) = NODE_STATS.get_ptr_mut(u32::from(node)) {
        // SAFETY: a live per-CPU map value; XDP does not nest on a CPU.
        change(unsafe { &mut *stats });
    }
}

/// A frame to a node, when the verdict is to send it.
#[inline(always)]
pub fn forward(node: u16, bytes: usize, verdict: Verdict) {
    if !verdict.is_sent() {
        return;
    }
    stats(node, |s| {
        s.packets += 1;
        s.bytes += bytes as u64;
    });
}

/// A frame from a node to its client, when the verdict is to send it.
#[inline(always)]
pub fn reply(node: u16, bytes: usize, verdict: Verdict) {
    if !verdict.is_sent() {
        return;
    }
    stats(node, |s| {
        s.reply_packets += 1;
        s.reply_bytes += bytes as u64;
    });
}

/// A connection was given to a node; `rescheduled` when its first node failed.
#[inline(always)]
pub fn connection(node: u16, rescheduled: bool) {
    stats(node, |s| {
        s.connections += 1;
        s.rescheduled += u64::from(rescheduled);
    });
}

/// A connection was given to a node with this frame, which was sent; `rescheduled` as above.
#[inline(always)]
pub fn opened(node: u16, bytes: usize, rescheduled: bool) {
    stats(node, |s| {
        s.connections += 1;
        s.rescheduled += u64::from(rescheduled);
        s.packets += 1;
        s.bytes += bytes as u64;
    });
}

/// A connection was taken out of the table to make room.
#[inline(always)]
pub fn evicted(node: u16) {
    stats(node, |s| s.evicted += 1);
}

#[inline(always)]
fn load(node: u16, counter: impl FnOnce(*mut NodeLoad) -> *mut u64, difference: u64) {
    if explaining() {
        return;
    }
    if let Some(load) = NODE_LOADS.get_ptr_mut(u32::from(node)) {
        // SAFETY: an aligned word of a live map value, shared with other CPUs and the daemon: changed atomically.
        let counter = unsafe { Word::new(counter(load)) };
        counter.fetch_add(difference);
    }
}

/// Adds to (1) or subtracts from (`u64::MAX`, minus one) a node's active connections.
#[inline(always)]
pub fn active(node: u16, difference: u64) {
    // SAFETY: projects a field of a live map value.
    load(node, |l| unsafe { &raw mut (*l).active }, difference);
}

/// The same for its half-open connections.
#[inline(always)]
pub fn pending(node: u16, difference: u64) {
    // SAFETY: projects a field of a live map value.
    load(node, |l| unsafe { &raw mut (*l).pending }, difference);
}

/// A record is gone: takes it out of the loads that it counted in, unless the slot is another node's by now.
#[inline(always)]
pub fn forget(node: u16, control: Control) {
    if control.flags & (flag::ACTIVE | flag::PENDING) == 0 {
        return;
    }
    if NODES.get(u32::from(node)).is_none_or(|n| n.generation != control.generation) {
        return;
    }
    if control.flags & flag::ACTIVE != 0 {
        active(node, u64::MAX);
    }
    if control.flags & flag::PENDING != 0 {
        pending(node, u64::MAX);
    }
}
