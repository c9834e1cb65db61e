//! The forwarding lease: whether this machine may still speak for its VIPs (`lb_common::lease`). Two loads for each packet
//! while it lasts.

use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_jiffies64, programs::XdpContext};
use lb_common::{
    lease,
    packet::{ETHERNET, Frame},
    vip::ServiceKey,
};

use crate::{
    frame::XdpFrame,
    maps::{LEASE, LEASED},
    pipeline,
};

/// Whether a packet must not be taken: the lease is over, and the packet is for a VIP that another machine may have by now.
#[inline(always)]
pub fn refuses(ctx: &XdpContext) -> bool {
    let Some(until) = LEASE.get(0) else { return false };
    // SAFETY: a live map value, an aligned word; volatile, because the daemon changes it. The helper only reads a counter.
    let is_over = unsafe { lease::is_over(core::ptr::from_ref(until).read_volatile(), bpf_jiffies64()) };
    is_over && lease_covers(ctx.ctx) != 0
}

/// A function of its own: the path of packets that are forwarded keeps its registers and its stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lease_covers(ctx: *mut xdp_md) -> u32 {
    let frame = XdpFrame::new(&XdpContext::new(ctx));
    let is_for_us = frame.view::<ETHERNET>(0).is_some_and(pipeline::is_for_us);
    let Some(image) = lease::wanted(frame).filter(|_| is_for_us) else { return 0 };
    // SAFETY: three words are as large and as aligned as a key, and any bytes are one.
    let key = unsafe { &*core::ptr::from_ref(&image).cast::<ServiceKey>() };
    // SAFETY: only its presence is asked for.
    u32::from(unsafe { LEASED.get(key) }.is_some())
}
