//! ICMP to VIPs and about translated connections: echo is answered; an error goes to whoever owns the flow that it quotes,
//! with outer header, quoted header and all checksums as that one knows them (RFC 5508 §4.2).

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    checksum::Delta,
    flow::{FAMILY_V4, FlowKey, FlowRecord, flag},
    node::{Node, node_flag},
    packet::{ETHERNET, Fragment, Frame, Packet, View, is_valid_source, protocol},
    reason::Reason,
    vip::vs_flag,
};

use crate::{
    explain,
    forward::{self, Endpoints, Hop, frame_of},
    frame::XdpFrame,
    maps::NODES,
    proof, schedule,
    scratch::{Quote, Scratch, scratch},
    service,
    slow::{ip_len, layout_of, of_vip},
    table::{self, Flows, Pending, Slot, Table, find_key},
    track,
    verdict::Verdict,
};

/// The least path MTU that a genuine router reports: RFC 791's 576 less some slack, as Linux's `min_pmtu` (552).
const MIN_MTU4: u16 = 552;
/// RFC 8200 §5.
const MIN_MTU6: u32 = 1280;

/// Decides about an ICMP or ICMPv6 packet, in steps for the same reason as `slow`.
#[inline(always)]
pub fn run(ctx: *mut xdp_md) -> Verdict {
    let next = icmp_classify(ctx);
    let verdict = match next {
        ECHO => icmp_echo(ctx),
        ERROR => icmp_owner(ctx),
        other => other,
    };
    Verdict::from_register(match verdict {
        REWRITE4 => icmp_rewrite4(ctx),
        REWRITE6 => icmp_rewrite6(ctx),
        other => other,
    })
}

const ECHO: u32 = 0x1_0000;
const ERROR: u32 = 0x1_0001;
const REWRITE4: u32 = 0x1_0002;
const REWRITE6: u32 = 0x1_0003;

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn icmp_classify(ctx: *mut xdp_md) -> u32 {
    let Some(scratch) = scratch() else { return Verdict::end(Reason::Internal).to_register() };
    let (packet, to_vip) = (&scratch.packet, scratch.to_vip != 0);
    let other = of_vip(to_vip, Reason::NotBalanced).to_register();
    if packet.fragment != Fragment::Whole {
        return other;
    }
    let l4 = usize::from(packet.l4) & 0xfff;
    let icmp = frame_of(ctx).and_then(|frame| frame.view::<8>(l4));
    let Some(icmp) = icmp.filter(|_| packet.end as usize >= l4 + 8) else {
        return of_vip(to_vip, Reason::BadIcmp).to_register();
    };
    match (packet.key.family() == FAMILY_V4, icmp.u8(0)) {
        (true, 8) | (false, 128) if to_vip => ECHO,
        (true, 3 | 11 | 12) | (false, 1..=4) => ERROR,
        _ => other,
    }
}

/// Answers an echo request (RFC 792, RFC 4443 §4.1) from where it stands: addresses swapped, type changed.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn icmp_echo(ctx: *mut xdp_md) -> u32 {
    let internal = Verdict::end(Reason::Internal).to_register();
    let Some(scratch) = scratch() else { return internal };
    let packet = &scratch.packet;
    let Some(frame) = frame_of(ctx) else { return internal };
    let l4 = usize::from(packet.l4) & 0xfff;
    if !is_valid_source(packet.key.family(), packet.key.source()) || packet.key.source() == packet.key.destination() {
        return Verdict::end(Reason::BadSource).to_register();
    }
    let l3 = usize::from(packet.l3) & 0x3f;
    if packet.key.family() == FAMILY_V4 {
        let Some(ip) = frame.view::<20>(l3) else { return internal };
        let (source, destination) = (ip.load32(12), ip.load32(16));
        ip.store32(12, destination);
        ip.store32(16, source);
        // A fresh TTL: the request's may be nearly used up.
        let (old, new) = (ip.load16(8), ip.load16(8) & 0xff00 | 64);
        ip.store16(8, new);
        ip.store16(10, Delta::NONE.word16(old, new).apply(ip.load16(10)));
    } else {
        let Some(ip) = frame.view::<40>(l3) else { return internal };
        let (source, destination) = (ip.load_address16(8), ip.load_address16(24));
        ip.store_address16(8, destination);
        ip.store_address16(24, source);
        ip.store8(7, 64);
    }
    let Some(icmp) = frame.view::<8>(l4) else { return internal };
    let old = icmp.load16(0);
    let answer: u16 = if packet.key.family() == FAMILY_V4 { 0 } else { 129 };
    let new = old & 0xff00 | answer;
    icmp.store16(0, new);
    icmp.store16(2, Delta::NONE.word16(old, new).apply(icmp.load16(2)));
    swap_macs(frame, Reason::AnsweredEcho).to_register()
}

/// Sends a frame back where it came from.
#[inline(always)]
pub fn swap_macs(frame: XdpFrame, reason: Reason) -> Verdict {
    let Some(ethernet) = frame.view::<ETHERNET>(0) else { return Verdict::end(Reason::Internal) };
    let (a, b, c) = (ethernet.load16(0), ethernet.load16(2), ethernet.load16(4));
    ethernet.store16(0, ethernet.load16(6));
    ethernet.store16(2, ethernet.load16(8));
    ethernet.store16(4, ethernet.load16(10));
    ethernet.store16(6, a);
    ethernet.store16(8, b);
    ethernet.store16(10, c);
    explain::egress(crate::globals::ifindex());
    Verdict::end(reason)
}

/// Finds out who owns the quoted flow. DSR: sends it there. NAT: says what is to be rewritten, in `scratch`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn icmp_owner(ctx: *mut xdp_md) -> u32 {
    let Some(scratch) = scratch() else { return Verdict::end(Reason::Internal).to_register() };
    let (packet, quote, to_vip) = (&scratch.packet, &mut scratch.quote, scratch.to_vip != 0);
    let Some(frame) = frame_of(ctx) else { return Verdict::end(Reason::Internal).to_register() };
    let l4 = usize::from(packet.l4) & 0xfff;
    if read_quote(frame, packet, l4, quote).is_none() {
        return of_vip(to_vip, Reason::BadIcmp).to_register();
    }
    let source = packet.key.source();
    if !is_valid_source(packet.key.family(), source) || source == packet.key.destination() {
        return of_vip(to_vip, Reason::BadSource).to_register();
    }
    // Whoever sent the quoted packet is told, nobody else (RFC 5508 §4.2).
    if packet.key.destination() != quote.key.source() {
        return of_vip(to_vip, Reason::UnknownIcmpFlow).to_register();
    }
    quote.flow = quote.key.reversed();
    let forged = u32::from(has_forged_mtu(frame, packet, l4));
    let hash = table::hash_key(&quote.flow);
    let mut verdict = Verdict::STALE.to_register();
    if let Some(slot) = find_key::<Flows>(&quote.flow, hash) {
        verdict = deliver::<Flows>(ctx, slot.record, slot.index, forged);
    } else if let Some(slot) = find_key::<Pending>(&quote.flow, hash) {
        verdict = deliver::<Pending>(ctx, slot.record, slot.index, forged);
    } else if to_vip && quote.flow.protocol() == protocol::TCP {
        verdict = by_proof(ctx, hash, forged);
    }
    if verdict != Verdict::STALE.to_register() {
        return verdict;
    }
    if !to_vip {
        return Verdict::end(Reason::NotVirtual).to_register();
    }
    stateless(ctx, forged)
}

#[inline(always)]
fn read_quote(frame: XdpFrame, packet: &Packet, l4: usize, quote: &mut Quote) -> Option<()> {
    let ip = l4 + 8;
    quote.ip = ip as u32;
    if packet.key.family() == FAMILY_V4 {
        let header = frame.view::<28>(ip)?;
        let length = usize::from(header.u8(0) & 15) * 4;
        let at = ip + length;
        if header.u8(0) >> 4 != 4 || length < 20 || at + 8 > packet.end as usize || header.be16(6) & 0x1fff != 0 {
            return None;
        }
        let ports = frame.view::<8>(at)?;
        let kind = header.u8(9);
        quote.l4 = at as u32;
        quote.key = FlowKey::v4(header.bytes4(12), header.bytes4(16), ports.be16(0), ports.be16(2), kind);
        is_balanced(kind).then_some(())
    } else {
        let header = frame.view::<48>(ip)?;
        let kind = header.u8(6);
        if header.u8(0) >> 4 != 6 || ip + 48 > packet.end as usize {
            return None;
        }
        quote.l4 = (ip + 40) as u32;
        quote.key = FlowKey::v6(header.bytes16(8), header.bytes16(24), header.be16(40), header.be16(42), kind);
        is_balanced(kind).then_some(())
    }
}

#[inline(always)]
fn is_balanced(kind: u8) -> bool {
    kind == protocol::TCP || kind == protocol::UDP
}

/// A path MTU below what any link has is an attack on throughput (THREATS D7).
#[inline(always)]
fn has_forged_mtu(frame: XdpFrame, packet: &Packet, l4: usize) -> bool {
    let Some(icmp) = frame.view::<8>(l4) else { return true };
    if packet.key.family() == FAMILY_V4 {
        let mtu = icmp.be16(6);
        // 0: a router from before RFC 1191.
        icmp.u8(0) == 3 && icmp.u8(1) == 4 && mtu != 0 && mtu < MIN_MTU4
    } else {
        icmp.u8(0) == 2 && u32::from_be(icmp.u32(4)) < MIN_MTU6
    }
}

/// The quoted flow is tracked, in `record`. `STALE`: it was, until it expired.
#[inline(never)]
fn deliver<T: Table>(ctx: *mut xdp_md, record: *mut FlowRecord, index: u32, forged: u32) -> u32 {
    let slot = Slot { record, index };
    let Some(scratch) = scratch() else { return Verdict::end(Reason::Internal).to_register() };
    let control = slot.control();
    if control.flags & flag::REPLY != 0 {
        return towards_client::<T>(scratch, slot, forged);
    }
    let record = slot.get();
    if record.is_expired(track::now()) {
        return Verdict::STALE.to_register();
    }
    if scratch.to_vip == 0 {
        return Verdict::end(Reason::NotVirtual).to_register();
    }
    if forged != 0 {
        return Verdict::end(Reason::IcmpMtuTooSmall).to_register();
    }
    let Some(node) = NODES.get(u32::from(record.node)) else { return Verdict::end(Reason::Internal).to_register() };
    let hop = Hop::of(node);
    if hop.flags() & node_flag::USABLE == 0 || hop.generation() != control.generation {
        return Verdict::end(Reason::UnknownIcmpFlow).to_register();
    }
    explain::connection(record.virtual_server, record.node, control.flags, control.state);
    if control.flags & flag::NAT == 0 {
        let Some(frame) = frame_of(ctx) else { return Verdict::end(Reason::Internal).to_register() };
        return by_dsr(frame, &scratch.packet, hop).to_register();
    }
    towards_node(scratch, record, node)
}

/// The quoted flow may be half-open in DSR. `STALE`: it is not.
#[inline(always)]
fn by_proof(ctx: *mut xdp_md, hash: u64, forged: u32) -> u32 {
    let slot = proof::owner(hash);
    if slot == 0 {
        return Verdict::STALE.to_register();
    }
    if forged != 0 {
        return Verdict::end(Reason::IcmpMtuTooSmall).to_register();
    }
    let unknown = Verdict::end(Reason::UnknownIcmpFlow).to_register();
    let (Some(node), Some(scratch), Some(frame)) = (NODES.get(slot), scratch(), frame_of(ctx)) else { return unknown };
    if slot == proof::GONE {
        return unknown;
    }
    by_dsr(frame, &scratch.packet, Hop::of(node)).to_register()
}

/// From a router on the client's side to the node: it quotes what the VIP sent; the node sent it under its own name.
#[inline(always)]
fn towards_node(scratch: &mut Scratch, record: &FlowRecord, node: &Node) -> u32 {
    scratch.to = forward::node_side(&record.key, record.nat_port, record.control.flags, node).reversed();
    scratch.record.node = record.node;
    scratch.outer_source = 0;
    scratch.answer = 0;
    rewriting(scratch)
}

/// From the node's side to the client: it quotes what the node got; the client sent it to the VIP.
#[inline(always)]
fn towards_client<T: Table>(scratch: &mut Scratch, answer: Slot, forged: u32) -> u32 {
    let unknown = Verdict::end(Reason::NotVirtual).to_register();
    let Some(connection) = table::at::<T>(answer.get().peer) else { return unknown };
    let (record, control) = (connection.get(), connection.control());
    if record.peer != answer.index + 1 || control.state <= 1 || record.is_expired(track::now()) {
        return unknown;
    }
    if forged != 0 {
        return Verdict::end(Reason::IcmpMtuTooSmall).to_register();
    }
    explain::connection(record.virtual_server, record.node, control.flags, control.state);
    scratch.to = forward::client_side(&record.key).reversed();
    // A router between us and the node speaks for itself; the node speaks as the VIP.
    scratch.outer_source = u32::from(scratch.packet.key.source() == scratch.quote.key.destination());
    scratch.client = answer.get().client_hop();
    scratch.answer = 1;
    rewriting(scratch)
}

#[inline(always)]
fn rewriting(scratch: &Scratch) -> u32 {
    if scratch.packet.key.family() == FAMILY_V4 { REWRITE4 } else { REWRITE6 }
}

#[inline(always)]
fn by_dsr(frame: XdpFrame, packet: &Packet, hop: Hop) -> Verdict {
    forward::dsr(frame, layout_of(packet).l3, hop, ip_len(packet), Reason::ForwardedIcmpError)
}

/// Rewrites an ICMP error and the packet it quotes, as `scratch` says, and sends it on.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn icmp_rewrite4(ctx: *mut xdp_md) -> u32 {
    let internal = Verdict::end(Reason::Internal).to_register();
    let Some(scratch) = scratch() else { return internal };
    let (packet, quote, to) = (&scratch.packet, &scratch.quote, &scratch.to);
    let Some(frame) = frame_of(ctx) else { return Verdict::end(Reason::Internal).to_register() };
    let Some(inner) = frame.view::<20>(quote.ip as usize & 0xfff) else { return internal };
    let pseudo = Delta::NONE.word32(inner.load32(12), to.source[0]).word32(inner.load32(16), to.destination[0]);
    inner.store32(12, to.source[0]);
    inner.store32(16, to.destination[0]);
    let (old, new) = (inner.load16(10), pseudo.apply(inner.load16(10)));
    inner.store16(10, new);
    let Some(ports) = quoted_transport(frame, packet, quote, to, pseudo) else { return internal };
    let l3 = usize::from(packet.l3) & 0x3f;
    let Some(outer) = frame.view::<20>(l3) else { return internal };
    let source = if scratch.outer_source != 0 { to.destination[0] } else { outer.load32(12) };
    if let Err(reason) = forward::translate4(frame, l3, source, to.source[0]) {
        return Verdict::end(reason).to_register();
    }
    // ICMP for IPv4 has no pseudo-header, but covers the quoted header checksum.
    finish(frame, scratch, pseudo.word16(old, new).and(ports)).to_register()
}

/// The same for IPv6: no header checksum, but a pseudo-header.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn icmp_rewrite6(ctx: *mut xdp_md) -> u32 {
    let internal = Verdict::end(Reason::Internal).to_register();
    let Some(scratch) = scratch() else { return internal };
    let (packet, quote, to) = (&scratch.packet, &scratch.quote, &scratch.to);
    let Some(frame) = frame_of(ctx) else { return Verdict::end(Reason::Internal).to_register() };
    let Some(inner) = frame.view::<40>(quote.ip as usize & 0xfff) else { return internal };
    let pseudo =
        Delta::NONE.address16(inner.load_address16(8), to.source).address16(inner.load_address16(24), to.destination);
    inner.store_address16(8, to.source);
    inner.store_address16(24, to.destination);
    let Some(ports) = quoted_transport(frame, packet, quote, to, pseudo) else { return internal };
    let l3 = usize::from(packet.l3) & 0x3f;
    let Some(outer) = frame.view::<40>(l3) else { return internal };
    let source = if scratch.outer_source != 0 { to.destination } else { outer.load_address16(8) };
    match forward::translate6(frame, l3, source, to.source) {
        Ok(addresses) => finish(frame, scratch, pseudo.and(ports).and(addresses)).to_register(),
        Err(reason) => Verdict::end(reason).to_register(),
    }
}

/// The ICMP checksum, and on its way.
#[inline(always)]
fn finish(frame: XdpFrame, scratch: &Scratch, change: Delta) -> Verdict {
    let internal = Verdict::end(Reason::Internal);
    let packet = &scratch.packet;
    let Some(icmp) = frame.view::<8>(usize::from(packet.l4) & 0xfff) else { return internal };
    icmp.store16(2, change.apply(icmp.load16(2)));
    let l3 = layout_of(packet).l3;
    if scratch.answer != 0 {
        return forward::to_client(frame, l3, scratch.client, Reason::ForwardedIcmpError);
    }
    let Some(node) = NODES.get(u32::from(scratch.record.node)) else { return internal };
    forward::to_node(frame, l3, Hop::of(node), ip_len(packet), Reason::ForwardedIcmpError)
}

/// Quoted ports, and the quoted checksum where the quote reaches that far.
#[inline(always)]
fn quoted_transport(frame: XdpFrame, packet: &Packet, quote: &Quote, to: &Endpoints, pseudo: Delta) -> Option<Delta> {
    let l4 = quote.l4 as usize & 0xfff;
    let ports = frame.view::<8>(l4)?;
    let old = ports.load32(0);
    let new = u32::from(to.source_port) | u32::from(to.destination_port) << 16;
    ports.store32(0, new);
    let changed = Delta::NONE.word32(old, new);
    let covered = changed.and(pseudo);
    if quote.key.protocol() == protocol::UDP {
        let (old, new) = (ports.load16(6), covered.apply_udp(ports.load16(6)));
        ports.store16(6, new);
        return Some(changed.word16(old, new));
    }
    if l4 + 18 > packet.end as usize {
        return Some(changed);
    }
    let Some(tcp) = frame.view::<18>(l4) else { return Some(changed) };
    let (old, new) = (tcp.load16(16), covered.apply(tcp.load16(16)));
    tcp.store16(16, new);
    Some(changed.word16(old, new))
}

/// The quoted flow is not tracked: a DSR connection that goes by the ring is owned by the ring's node.
#[inline(never)]
fn stateless(ctx: *mut xdp_md, forged: u32) -> u32 {
    let unknown = Verdict::end(Reason::UnknownIcmpFlow).to_register();
    let Some(scratch) = scratch() else { return unknown };
    let flow = &scratch.quote.flow;
    let Some(server) = service::find(flow) else { return unknown };
    if server.flags & vs_flag::NAT != 0 {
        return unknown;
    }
    if forged != 0 {
        return Verdict::end(Reason::IcmpMtuTooSmall).to_register();
    }
    let chosen = schedule::by_ring(flow, Fragment::Whole, server);
    if chosen == 0 {
        return unknown;
    }
    let Some(node) = NODES.get(u32::from(chosen)) else { return unknown };
    explain::connection(server.id, chosen, 0, 0);
    let Some(frame) = frame_of(ctx) else { return Verdict::end(Reason::Internal).to_register() };
    by_dsr(frame, &scratch.packet, Hop::of(node)).to_register()
}
