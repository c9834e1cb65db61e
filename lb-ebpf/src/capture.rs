//! Telling what was decided, for `lbctl capture`. Only in the object that is built with the feature `capture`: the program
//! that forwards when nobody captures has nothing of it.
//!
//! A packet's first bytes are kept before its path and handed over after it, once its verdict is known. Whatever fails in
//! here is not told; it never changes a verdict.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_ringbuf_output, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use lb_common::{
    capture::{self, Control, MAX_SNAPLEN, Record, direction},
    explain::Explanation,
    packet::Frame,
};

use crate::{
    atomic::Word,
    frame::XdpFrame,
    globals::ifindex,
    maps::{CAPTURE, CAPTURED, SNAPSHOT},
    verdict::Verdict,
};

/// Where a record is made: the record, and its frame's bytes behind it.
#[repr(C, align(8))]
pub struct Snapshot {
    record: Record,
    data: [u8; MAX_SNAPLEN],
    /// What the path noted (`explain`).
    pub note: Explanation,
    /// 1: the frame as it came is in `data`.
    is_kept: u32,
    /// 1: it is of those that are wanted.
    is_wanted: u32,
}

/// This CPU's.
#[inline(always)]
pub fn snapshot() -> Option<&'static mut Snapshot> {
    // SAFETY: a live per-CPU map value; XDP does not nest on a CPU.
    SNAPSHOT.get_ptr_mut(0).map(|s| unsafe { &mut *s })
}

/// Keeps the frame as it comes.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn capture_arrival(ctx: *mut xdp_md) -> u32 {
    let Some(shot) = snapshot() else { return 0 };
    shot.note = Explanation::default();
    shot.is_kept = 0;
    let Some(control) = CAPTURE.get_ptr_mut(0) else { return 0 };
    let (left, _) = counters(control);
    // SAFETY: a live map value, of which all but the counters is written only while no program uses it. The helper reads a clock.
    let (filter, until, now) = unsafe { (&(*control).filter, (*control).until_ns, bpf_ktime_get_coarse_ns()) };
    if left.load().cast_signed() <= 0 || now >= until {
        return 0;
    }
    shot.is_wanted = u32::from(capture::is_wanted(frame_of(ctx), filter));
    shot.is_kept = u32::from(keep(ctx, shot, control));
    shot.is_kept
}

/// Hands the frame over, as it came and as it leaves.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn capture_end(ctx: *mut xdp_md, verdict: u32) -> u32 {
    let Some(shot) = snapshot() else { return 0 };
    let Some(control) = CAPTURE.get_ptr_mut(0) else { return 0 };
    // SAFETY: as in `capture_arrival`.
    let (filter, directions) = unsafe { (&(*control).filter, (*control).directions) };
    let verdict = Verdict::from_register(verdict);
    if shot.is_kept == 0 || filter.reasons >> (verdict.reason() & 63) & 1 == 0 {
        return 0;
    }
    let leaves = verdict.is_transmitted();
    let is_wanted = shot.is_wanted != 0 || leaves && capture::is_wanted(frame_of(ctx), filter);
    if !is_wanted {
        return 0;
    }
    let record = &mut shot.record;
    (record.virtual_server, record.node) = (shot.note.virtual_server, shot.note.node);
    record.reason = verdict.reason() as u8;
    // SAFETY: the helper only reads a clock.
    record.at_ns = unsafe { bpf_ktime_get_ns() };
    if directions & u32::from(direction::IN) != 0 {
        (record.direction, record.ifindex) = (direction::IN, ifindex());
        hand_over(shot, control);
    }
    if leaves && directions & u32::from(direction::OUT) != 0 && keep(ctx, shot, control) {
        // Answers of our own go back to where the question came from.
        let egress = if shot.note.ifindex == 0 { ifindex() } else { shot.note.ifindex };
        (shot.record.direction, shot.record.ifindex) = (direction::OUT, egress);
        hand_over(shot, control);
    }
    1
}

#[inline(always)]
fn frame_of(ctx: *mut xdp_md) -> XdpFrame {
    XdpFrame::new(&XdpContext::new(ctx))
}

/// Copies the first bytes of the frame as it is now.
#[inline(always)]
fn keep(ctx: *mut xdp_md, shot: &mut Snapshot, control: *const Control) -> bool {
    let length = frame_of(ctx).len() as u32;
    // SAFETY: as in `capture_arrival`.
    let snaplen = unsafe { (*control).snaplen };
    (shot.record.length, shot.record.captured) = (length, length.min(snaplen));
    let bytes = captured(shot);
    // SAFETY: there is room for so many bytes: `captured` says at most as many as `data` has.
    unsafe { bpf_xdp_load_bytes(ctx, 0, shot.data.as_mut_ptr().cast(), bytes) == 0 }
}

/// Bytes of the record's frame, 1 to [`MAX_SNAPLEN`], as the verifier of Linux 6.1 follows it: it learns nothing from "not 0".
#[inline(always)]
fn captured(shot: &Snapshot) -> u32 {
    // SAFETY: a reference is readable; volatile, so that the compiler does not know what it could leave out.
    let bytes = unsafe { (&raw const shot.record.captured).read_volatile() };
    (bytes.wrapping_sub(1) & (MAX_SNAPLEN as u32 - 1)) + 1
}

/// What all CPUs count: never behind a reference.
#[inline(always)]
fn counters(control: *mut Control) -> (Word, Word) {
    // SAFETY: aligned words of a live map value.
    unsafe { (Word::new((&raw mut (*control).left).cast()), Word::new(&raw mut (*control).lost)) }
}

#[inline(always)]
fn hand_over(shot: &mut Snapshot, control: *mut Control) {
    let bytes = captured(shot);
    let (left, lost) = counters(control);
    if left.fetch_add(u64::MAX).cast_signed() <= 0 {
        return;
    }
    let (ring, record) = ((&raw const CAPTURED).cast_mut().cast(), core::ptr::from_mut(shot).cast());
    // SAFETY: the ring is a map, and the record and its bytes begin the snapshot.
    let failed = unsafe { bpf_ringbuf_output(ring, record, u64::from(bytes) + Record::BYTES as u64, 0) } < 0;
    if failed {
        lost.fetch_add(1);
        left.fetch_add(1);
    }
}
