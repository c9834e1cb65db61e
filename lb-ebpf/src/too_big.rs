//! Telling a client that its packet is larger than the way to its node takes (RFC 1191 §4, RFC 4443 §3.2): whoever forwards is
//! a router to the client, and without a word of it path MTU discovery ends in a black hole. At most [`ERRORS_PER_TICK`] a
//! second (THREATS D7).

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_xdp_adjust_tail, generated::bpf_xdp_adjust_head},
};
use lb_common::{
    checksum::fold,
    packet::{ETHERNET, Frame, IPV4, IPV6, View, ethertype, protocol},
    reason::Reason,
};

use crate::{
    atomic::Word,
    forward::frame_of,
    frame::XdpFrame,
    globals::explaining,
    icmp::swap_macs,
    maps::ICMP_ERRORS,
    tags::{TAG, is_tag},
    track,
    verdict::Verdict,
};

/// ICMP errors of our own in a tick (1.07 s), over all CPUs.
const ERRORS_PER_TICK: u32 = 1000;
/// Bytes of the ICMP header.
const ICMP: usize = 8;
/// Bytes quoted: an error of 576 bytes (RFC 1812 §4.3.2.3). No link that a balancer has is narrower, so the packet is longer.
const QUOTE4: usize = 548;
/// The same of 1280 bytes (RFC 4443 §2.4 c).
const QUOTE6: usize = 1232;
/// Bytes that the kernel sums at once (all, since Linux 6.13).
const AT_ONCE: usize = 512;
/// The least MTU of IPv6 (RFC 8200 §5).
const MIN_MTU6: u32 = 1280;

/// Turns a packet that is larger than `mtu`, and not rewritten yet, into an error to its sender, or drops it: errors are not
/// about errors, later fragments, frames to groups, nor about IPv4 packets that a router may fragment (RFC 1122 §3.2.2).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn too_big_answer(ctx: *mut xdp_md, mtu: u32) -> u32 {
    let dropped = Verdict::end(Reason::ExceedsMtu).to_register();
    let Some(frame) = frame_of(ctx) else { return dropped };
    let Some((l3, v4)) = answerable(frame).filter(|_| is_within_rate()) else { return dropped };
    let (header, quote) = if v4 { (IPV4, QUOTE4) } else { (IPV6, QUOTE6) };
    let excess = (l3 + quote) as i32 - frame.len() as i32;
    let room = (header + ICMP) as i32;
    // SAFETY: the context is the one the kernel gave this program; no view of the old frame is used afterwards.
    if unsafe { bpf_xdp_adjust_tail(ctx, excess) } != 0 || unsafe { bpf_xdp_adjust_head(ctx, -room) } != 0 {
        return dropped;
    }
    let Some(frame) = frame_of(ctx) else { return dropped };
    let built = if v4 { build4(frame, l3, mtu) } else { build6(frame, l3, mtu) };
    let failed = Verdict::end(Reason::RewriteFailed);
    built.map_or(failed, |()| swap_macs(frame, Reason::AnsweredTooBig)).to_register()
}

/// Where the IP header of a packet is that may be answered by an error, and whether it is IPv4.
#[inline(always)]
fn answerable(frame: XdpFrame) -> Option<(usize, bool)> {
    let ethernet = frame.view::<ETHERNET>(0)?;
    if ethernet.load8(0) & 1 != 0 {
        return None;
    }
    // Two tags at most: with more it would not have come so far.
    let (mut l3, mut kind) = (ETHERNET, ethernet.load16(12));
    if is_tag(kind) {
        (l3, kind) = (ETHERNET + TAG, frame.view::<TAG>(ETHERNET)?.load16(2));
    }
    if is_tag(kind) {
        (l3, kind) = (ETHERNET + 2 * TAG, frame.view::<TAG>(ETHERNET + TAG)?.load16(2));
    }
    let v4 = kind == ethertype::IPV4.to_be();
    let (asked, kind) = if v4 {
        let ip = frame.view::<QUOTE4>(l3)?;
        // Whole, or a first fragment; not to be fragmented.
        (ip.be16(6) & 0x5fff == 0x4000, ip.load8(9))
    } else {
        // Nobody fragments it on the way. Behind extension headers there might be an error.
        (true, frame.view::<QUOTE6>(l3)?.load8(6))
    };
    (asked && (kind == protocol::TCP || kind == protocol::UDP)).then_some((l3, v4))
}

/// Takes one of the errors of this tick.
#[inline(always)]
fn is_within_rate() -> bool {
    if explaining() {
        return true;
    }
    let Some(window) = ICMP_ERRORS.get_ptr_mut(0) else { return false };
    // SAFETY: an aligned word of a live map value, changed atomically by everyone.
    let window = unsafe { Word::new(window) };
    let (seen, now) = (window.load(), track::now());
    // Tick and number in one word. Whoever loses the race for a new tick says nothing this time.
    if (seen >> 32) as u32 != now {
        return window.exchange(seen, u64::from(now) << 32 | 1);
    }
    (window.fetch_add(1) as u32) < ERRORS_PER_TICK
}

/// Copies the Ethernet header and tags from behind the space for the headers of the error to its front. What is copied beyond
/// them, when there are fewer than two tags, is overwritten.
#[inline(always)]
fn move_ethernet(frame: XdpFrame, room: usize) -> Option<()> {
    const WITH_TAGS: usize = ETHERNET + 2 * TAG;
    let (old, new) = (frame.view::<WITH_TAGS>(room)?, frame.view::<WITH_TAGS>(0)?);
    new.store64(0, old.load64(0));
    new.store64(8, old.load64(8));
    new.store32(16, old.load32(16));
    new.store16(20, old.load16(20));
    Some(())
}

/// Destination unreachable, fragmentation needed (RFC 792, RFC 1191 §4), from the VIP to the sender of what is quoted.
#[inline(always)]
fn build4(frame: XdpFrame, l3: usize, mtu: u32) -> Option<()> {
    move_ethernet(frame, IPV4 + ICMP)?;
    let quote = frame.view::<QUOTE4>(l3 + IPV4 + ICMP)?;
    let (source, destination) = (quote.load32(12), quote.load32(16));
    let sum = quote.sum(AT_ONCE, QUOTE4 - AT_ONCE, quote.sum(0, AT_ONCE, 0));
    let ip = frame.view::<{ IPV4 + ICMP }>(l3)?;
    ip.store32(0, 0x45 | u32::from(((IPV4 + ICMP + QUOTE4) as u16).to_be()) << 16);
    // No identification is needed with DF (RFC 6864).
    ip.store32(4, u32::from(0x4000u16.to_be()) << 16);
    ip.store32(8, 64 | u32::from(protocol::ICMP) << 8);
    ip.store32(12, destination);
    ip.store32(16, source);
    let mut header = 0;
    let mut at = 0;
    while at < IPV4 {
        header += u64::from(ip.load32(at));
        at += 4;
    }
    ip.store16(10, !fold(header));
    let (kind, rest) = (3 | 4 << 8, u32::from((mtu as u16).to_be()) << 16);
    ip.store32(IPV4, kind);
    ip.store32(IPV4 + 4, rest);
    ip.store16(IPV4 + 2, !fold(u64::from(kind) + u64::from(rest) + u64::from(sum)));
    Some(())
}

/// Packet too big, with the sum of the pseudo-header (RFC 8200 §8.1).
#[inline(always)]
fn build6(frame: XdpFrame, l3: usize, mtu: u32) -> Option<()> {
    move_ethernet(frame, IPV6 + ICMP)?;
    let quote = frame.view::<QUOTE6>(l3 + IPV6 + ICMP)?;
    let (source, destination) = (quote.load_address16(8), quote.load_address16(24));
    let sum = quote.sum(AT_ONCE, AT_ONCE, quote.sum(0, AT_ONCE, 0));
    let sum = quote.sum(2 * AT_ONCE, QUOTE6 - 2 * AT_ONCE, sum);
    let length = u32::from(((ICMP + QUOTE6) as u16).to_be());
    let ip = frame.view::<{ IPV6 + ICMP }>(l3)?;
    ip.store32(0, 0x60);
    ip.store32(4, length | u32::from(protocol::ICMPV6) << 16 | 64 << 24);
    ip.store_address16(8, destination);
    ip.store_address16(24, source);
    let (kind, rest) = (2, mtu.max(MIN_MTU6).to_be());
    let mut sum = u64::from(sum) + u64::from(length) + u64::from(u16::from(protocol::ICMPV6).to_be());
    let mut i = 0;
    while i < 4 {
        sum += u64::from(source[i]) + u64::from(destination[i]);
        i += 1;
    }
    ip.store32(IPV6, kind);
    ip.store32(IPV6 + 4, rest);
    ip.store16(IPV6 + 2, !fold(sum + u64::from(kind) + u64::from(rest)));
    Some(())
}
