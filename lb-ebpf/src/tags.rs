//! The VLAN tag of a frame that leaves: that of the segment it leaves into, whatever it came with. Called by `pipeline` for
//! frames that `forward` left with [`Verdict::RETAG`], because only here, at the end of the path, may a frame be resized.
//!
//! Untagged frames into untagged segments never come here.

use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_xdp_adjust_head};
use lb_common::{
    packet::{ETHERNET, Frame, ethertype},
    reason::Reason,
};

use crate::{
    forward::{self, frame_of},
    scratch::scratch,
    verdict::Verdict,
};

/// Bytes of a tag.
pub const TAG: usize = 4;
/// The id in a tag's control information; what is left are priority and drop eligibility (802.1Q §9.6), which stay.
const VLAN_ID: u16 = 0xfff;

/// Notes where a frame leaves whose tags may not be those of that segment. `vlan` 0: untagged.
#[inline(always)]
pub fn later(vlan: u16, egress: u32, reason: Reason) -> Verdict {
    let Some(scratch) = scratch() else { return Verdict::end(Reason::Internal) };
    (scratch.vlan, scratch.egress, scratch.reason) = (u32::from(vlan), egress, reason as u32);
    Verdict::RETAG
}

/// Gives the frame the tag of the segment that `scratch` names, and sends it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tags_set(ctx: *mut xdp_md) -> u32 {
    let failed = Verdict::end(Reason::RewriteFailed).to_register();
    let Some(scratch) = scratch() else { return failed };
    let Some(frame) = frame_of(ctx) else { return failed };
    let Some(ethernet) = frame.view::<ETHERNET>(0) else { return failed };
    let (low, high, last) = (ethernet.load64(0), ethernet.load32(8), ethernet.load16(12));
    let (tags, control) = match is_tag(last) {
        false => (0, 0),
        true => {
            let Some(one) = frame.view::<{ ETHERNET + TAG }>(0) else { return failed };
            match is_tag(one.load16(16)) {
                false => (1, u16::from_be(one.load16(14))),
                true => {
                    let Some(two) = frame.view::<{ ETHERNET + 2 * TAG }>(0) else { return failed };
                    (2, u16::from_be(two.load16(18)))
                }
            }
        }
    };
    let wanted = match scratch.vlan {
        // A priority tag names no VLAN: it belongs to the untagged segment, too.
        0 => i32::from(tags == 1 && control & VLAN_ID == 0),
        _ => 1,
    };
    let surplus = (tags - wanted) * TAG as i32;
    // SAFETY: the context is the one the kernel gave this program; no view of the old frame is used afterwards.
    if surplus != 0 && unsafe { bpf_xdp_adjust_head(ctx, surplus) } != 0 {
        return failed;
    }
    let Some(frame) = frame_of(ctx) else { return failed };
    let Some(ethernet) = frame.view::<ETHERNET>(0) else { return failed };
    if surplus != 0 {
        ethernet.store64(0, low);
        ethernet.store32(8, high);
    }
    if wanted == 1 {
        let Some(tag) = frame.view::<TAG>(ETHERNET - 2) else { return failed };
        let control = (control & !VLAN_ID) | scratch.vlan as u16 & VLAN_ID;
        tag.store16(0, ethertype::VLAN.to_be());
        tag.store16(2, control.to_be());
    }
    forward::send_by(scratch.egress, scratch.reason).to_register()
}

/// Whether an EtherType, in network order, is a tag's.
#[inline(always)]
pub fn is_tag(kind: u16) -> bool {
    kind == ethertype::VLAN.to_be() || kind == ethertype::QINQ.to_be()
}
