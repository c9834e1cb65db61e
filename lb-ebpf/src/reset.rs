//! Answering a TCP segment with a reset, in the frame that it came in (RFC 9293 §3.5.2).

use aya_ebpf::{bindings::xdp_md, helpers::bpf_xdp_adjust_tail};
use lb_common::{
    checksum::fold,
    conntrack::tcp_flag,
    flow::FAMILY_V4,
    packet::{Frame, IPV4, IPV6, TCP, View, protocol},
    reason::Reason,
};

use crate::{forward::frame_of, frame::XdpFrame, icmp::swap_macs, scratch::scratch, verdict::Verdict};

/// Turns the segment into a reset to its sender. A reset is never answered by a reset.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn reset_build(ctx: *mut xdp_md) -> u32 {
    let failed = Verdict::end(Reason::RewriteFailed).to_register();
    let Some(scratch) = scratch() else { return failed };
    let packet = &scratch.packet;
    if packet.tcp_flags & tcp_flag::RST != 0 {
        return Verdict::end(Reason::UnknownFlow).to_register();
    }
    let Some(frame) = frame_of(ctx) else { return failed };
    let l3 = usize::from(packet.l3) & 0x3f;
    let l4 = usize::from(packet.l4) & 0xfff;
    let v4 = packet.key.family() == FAMILY_V4;
    let header = if v4 { IPV4 } else { IPV6 };
    let Some(tcp) = frame.view::<TCP>(l4) else { return failed };
    let (ports, sequence, acknowledgment) = (tcp.load32(0), u32::from_be(tcp.load32(4)), tcp.load32(8));
    let data = (packet.end as usize).saturating_sub(l4 + usize::from(tcp.u8(12) >> 4) * 4) as u32;
    let length =
        data + u32::from(packet.tcp_flags & tcp_flag::SYN != 0) + u32::from(packet.tcp_flags & tcp_flag::FIN != 0);
    let (new_sequence, new_acknowledgment, flags) = if packet.tcp_flags & tcp_flag::ACK != 0 {
        (acknowledgment, 0, tcp_flag::RST)
    } else {
        (0, sequence.wrapping_add(length).to_be(), tcp_flag::RST | tcp_flag::ACK)
    };
    let excess = (l3 + header + TCP) as i32 - frame.len() as i32;
    // SAFETY: the context is the one the kernel gave this program; no view of the old frame is used afterwards.
    if excess != 0 && unsafe { bpf_xdp_adjust_tail(ctx, excess) } != 0 {
        return failed;
    }
    let Some(frame) = frame_of(ctx) else { return failed };
    let pseudo = if v4 { header4(frame, l3) } else { header6(frame, l3) };
    let Some(pseudo) = pseudo else { return failed };
    let Some(tcp) = frame.view::<TCP>(l3 + header) else { return failed };
    tcp.store32(0, ports >> 16 | ports << 16);
    tcp.store32(4, new_sequence);
    tcp.store32(8, new_acknowledgment);
    // Data offset 5 words; window, checksum and urgent pointer zero.
    tcp.store32(12, 0x50 | u32::from(flags) << 8);
    tcp.store32(16, 0);
    let mut sum = pseudo;
    let mut at = 0;
    while at < TCP {
        sum += u64::from(tcp.load32(at));
        at += 4;
    }
    tcp.store16(16, !fold(sum));
    swap_macs(frame, Reason::AnsweredReset).to_register()
}

/// A fresh header without options, addresses swapped; returns the sum of the pseudo-header (RFC 9293 §3.1).
#[inline(always)]
fn header4(frame: XdpFrame, l3: usize) -> Option<u64> {
    let ip = frame.view::<IPV4>(l3)?;
    let (source, destination) = (ip.load32(12), ip.load32(16));
    ip.store32(0, 0x45 | u32::from(((IPV4 + TCP) as u16).to_be()) << 16);
    // No identification is needed with DF (RFC 6864).
    ip.store32(4, u32::from(0x4000u16.to_be()) << 16);
    ip.store32(8, 64 | u32::from(protocol::TCP) << 8);
    ip.store32(12, destination);
    ip.store32(16, source);
    let mut sum = 0;
    let mut at = 0;
    while at < IPV4 {
        sum += u64::from(ip.load32(at));
        at += 4;
    }
    ip.store16(10, !fold(sum));
    Some(pseudo_tail() + u64::from(source) + u64::from(destination))
}

/// The same for IPv6 (RFC 8200 §8.1), without extension headers.
#[inline(always)]
fn header6(frame: XdpFrame, l3: usize) -> Option<u64> {
    let ip = frame.view::<IPV6>(l3)?;
    let (source, destination) = (ip.load_address16(8), ip.load_address16(24));
    ip.store32(0, 0x60);
    ip.store32(4, u32::from((TCP as u16).to_be()) | u32::from(protocol::TCP) << 16 | 64 << 24);
    ip.store_address16(8, destination);
    ip.store_address16(24, source);
    let mut sum = pseudo_tail();
    let mut i = 0;
    while i < 4 {
        sum += u64::from(source[i]) + u64::from(destination[i]);
        i += 1;
    }
    Some(sum)
}

/// Protocol and length, as 16-bit words in network order.
#[inline(always)]
fn pseudo_tail() -> u64 {
    u64::from(u16::from(protocol::TCP).to_be()) + u64::from((TCP as u16).to_be())
}
