//! The path of a packet, on one screen: Ethernet and VLAN tags → address filter → common header → one digest → rewrite →
//! send. What is not the common case of a tracked connection goes to `slow.rs`, to functions of their own: this one keeps
//! few things in few registers.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    conntrack::tcp_flag,
    flow::{FAMILY_V4, FAMILY_V6, FlowKey, hash},
    packet::{ETHERNET, Fragment, Frame, IPV4, IPV6, TCP, UDP, View, ethertype, protocol},
    reason::Reason,
    vip::filter,
    virtual_router,
};

use crate::{
    explain,
    forward::Layout,
    frame::{XdpFrame, XdpView},
    fresh,
    globals::{interface, table_keys},
    maps::{FILTER, INTERFACES, VIRTUAL_ROUTERS, VLANS},
    scratch::scratch,
    slow, tags, too_big,
    track::Arrival,
    verdict::Verdict,
};

/// Decides about a frame, rewrites it when it is forwarded.
#[inline(always)]
pub fn run(ctx: &XdpContext) -> Verdict {
    let frame = XdpFrame::new(ctx);
    let Some(ethernet) = frame.view::<ETHERNET>(0) else { return Verdict::end(Reason::NotIp) };
    if !is_for_us(ethernet) {
        return Verdict::end(Reason::NotForUs);
    }
    let mut l3 = ETHERNET;
    let mut kind = ethernet.be16(12);
    if kind == ethertype::VLAN || kind == ethertype::QINQ {
        match skip_tags(frame, &mut l3) {
            Ok(inner) => kind = inner,
            Err(reason) => return Verdict::end(reason),
        }
    }
    let family = match kind {
        ethertype::IPV4 => FAMILY_V4,
        ethertype::IPV6 => FAMILY_V6,
        _ => return Verdict::end(Reason::NotIp),
    };
    let verdict = if family == FAMILY_V4 { ipv4(frame, l3) } else { ipv6(frame, l3) };
    let verdict = match verdict {
        Verdict::STALE => slow::run(ctx, l3, family),
        Verdict::TRACKED | Verdict::SYN | Verdict::PROOF | Verdict::HALF_OPEN => slow::go_on(ctx.ctx, verdict),
        verdict => verdict,
    };
    if verdict == Verdict::RETAG {
        return Verdict::from_register(tags::tags_set(ctx.ctx));
    }
    if let Some(mtu) = verdict.exceeded() {
        return Verdict::from_register(too_big::too_big_answer(ctx.ctx, mtu));
    }
    verdict
}

/// Whether a frame is this machine's: to a MAC address of the interface or of a virtual router that it is, or to a group (broadcast and multicast are judged by
/// their IP destination like any other frame). A flooded frame is another machine's, maybe that of another balancer with
/// the same plan, which forwards it, too; or what we ourselves sent to a node.
#[inline(always)]
pub fn is_for_us(ethernet: XdpView) -> bool {
    let to = u64::from(ethernet.load32(0)) | u64::from(ethernet.load16(4)) << 32;
    let Some(own) = INTERFACES.get(interface()) else { return true };
    // SAFETY: a live map value that begins with two aligned words, a MAC address each with zeros behind it.
    let [mac, controller] = unsafe { core::ptr::from_ref(own).cast::<[u64; 2]>().read_volatile() };
    to == mac || to & 1 != 0 || to == controller || is_own_router(to)
}

/// Whether it is the MAC address of a virtual router that this machine is now.
#[inline(always)]
fn is_own_router(to: u64) -> bool {
    let Some((word, bit)) = virtual_router::position(to) else { return false };
    // SAFETY: a live map value, an aligned word; volatile, because the daemon changes it.
    let bits = VIRTUAL_ROUTERS.get(word).map(|bits| unsafe { core::ptr::from_ref(bits).read_volatile() });
    bits.is_some_and(|bits| bits >> bit & 1 != 0)
}

/// At most two tags (802.1Q, 802.1ad), each with an id that the interface serves; id 0 is a priority tag (802.1Q §6.9).
#[inline(always)]
fn skip_tags(frame: XdpFrame, l3: &mut usize) -> Result<u16, Reason> {
    let mut tags = 0;
    loop {
        let Some(tag) = frame.view::<4>(*l3) else { return Err(Reason::NotIp) };
        let id = u32::from(tag.be16(0) & 0xfff);
        if id != 0 && !is_served(id) {
            return Err(Reason::VlanNotServed);
        }
        *l3 += 4;
        tags += 1;
        let kind = tag.be16(2);
        if kind != ethertype::VLAN && kind != ethertype::QINQ {
            return Ok(kind);
        }
        if tags == 2 {
            return Err(Reason::VlanNotServed);
        }
    }
}

#[inline(always)]
fn is_served(vlan: u32) -> bool {
    VLANS.get(interface() * 64 + vlan / 64).is_some_and(|word| word >> (vlan % 64) & 1 != 0)
}

#[inline(always)]
fn in_filter(base: u32, (word, bit): (u32, u32)) -> bool {
    FILTER.get(base + word).is_some_and(|bits| bits >> bit & 1 != 0)
}

#[inline(always)]
fn ipv4(frame: XdpFrame, l3: usize) -> Verdict {
    let Some(ip) = frame.view::<{ IPV4 + UDP }>(l3) else { return Verdict::STALE };
    let (source, destination, kind) = (ip.load32(12), ip.load32(16), ip.load8(9));
    let concerned = in_filter(filter::DESTINATION, filter::position4(destination))
        || in_filter(filter::SOURCE, filter::position4(source))
        || kind == protocol::ICMP;
    if !concerned {
        return Verdict::end(Reason::NotVirtual);
    }
    let total = usize::from(ip.be16(2));
    // Version 4, no options, not a fragment, all of it in this buffer.
    let common =
        ip.load8(0) == 0x45 && ip.be16(6) & 0x3fff == 0 && total >= IPV4 + UDP && l3 + total <= frame.linear_len();
    if !common {
        return Verdict::STALE;
    }
    let Some(tcp_flags) = transport(frame, ip, l3 + IPV4, IPV4, kind, total - IPV4) else {
        return Verdict::STALE;
    };
    let words = [
        u64::from(ip.load32(IPV4)) | u64::from(kind) << 32 | u64::from(FAMILY_V4) << 40,
        u64::from(source) | u64::from(destination) << 32,
        0,
        0,
        0,
    ];
    let hash = hash(words, FAMILY_V4, &table_keys());
    let layout = Layout { l3, l4: l3 + IPV4, family: FAMILY_V4, protocol: kind, has_ports: true };
    let arrival = Arrival::new(frame, layout, tcp_flags, total, hash);
    match fresh::forward(frame, layout, &words, arrival) {
        Ok(verdict) => verdict,
        Err(found) => look_closer((words, hash, found), [l3, l3 + IPV4, l3 + total], ip.load8(8), tcp_flags),
    }
}

#[inline(always)]
fn ipv6(frame: XdpFrame, l3: usize) -> Verdict {
    let Some(ip) = frame.view::<{ IPV6 + UDP }>(l3) else { return Verdict::STALE };
    let (source, destination, kind) = (ip.load_address16(8), ip.load_address16(24), ip.load8(6));
    let concerned = in_filter(filter::DESTINATION, filter::position6(destination))
        || in_filter(filter::SOURCE, filter::position6(source))
        || kind == protocol::ICMPV6;
    if !concerned {
        return Verdict::end(Reason::NotVirtual);
    }
    let payload = usize::from(ip.be16(4));
    let common = ip.load8(0) >> 4 == 6 && payload >= UDP && l3 + IPV6 + payload <= frame.linear_len();
    if !common {
        return Verdict::STALE;
    }
    let Some(tcp_flags) = transport(frame, ip, l3 + IPV6, IPV6, kind, payload) else {
        return Verdict::STALE;
    };
    let words = [
        u64::from(ip.load32(IPV6)) | u64::from(kind) << 32 | u64::from(FAMILY_V6) << 40,
        ip.load64(8),
        ip.load64(16),
        ip.load64(24),
        ip.load64(32),
    ];
    let hash = hash(words, FAMILY_V6, &table_keys());
    let layout = Layout { l3, l4: l3 + IPV6, family: FAMILY_V6, protocol: kind, has_ports: true };
    let arrival = Arrival::new(frame, layout, tcp_flags, IPV6 + payload, hash);
    match fresh::forward(frame, layout, &words, arrival) {
        Ok(verdict) => verdict,
        Err(found) => look_closer((words, hash, found), [l3, l3 + IPV6, l3 + IPV6 + payload], ip.load8(7), tcp_flags),
    }
}

/// No fresh digest: hands what was read on to the slow path. `flow`: key, hash, and where its digest is (`fresh::forward`);
/// `offsets`: of the IP header, the transport header, and the packet's end.
#[inline(always)]
fn look_closer(flow: ([u64; 5], u64, u32), offsets: [usize; 3], ttl: u8, tcp_flags: u8) -> Verdict {
    let (words, hash, found) = flow;
    let Some(scratch) = scratch() else { return Verdict::end(Reason::Internal) };
    let packet = &mut scratch.packet;
    packet.key = FlowKey::from_words(words);
    let [l3, l4, end] = offsets;
    (packet.l3, packet.l4, packet.end) = (l3 as u16, l4 as u16, end as u32);
    (packet.ttl, packet.tcp_flags) = (ttl, tcp_flags);
    (packet.fragment_id, packet.fragment) = (0, Fragment::Whole);
    (scratch.hash, scratch.found, scratch.service) = (hash, found, 0);
    (scratch.to_vip, scratch.moved) = (0, 0);
    explain::flow(&packet.key);
    if found == 0 { slow::untracked(packet) } else { Verdict::TRACKED }
}

/// Checks the transport header of the common case; its TCP flags, 0 for UDP. `None`: look closer.
#[inline(always)]
fn transport(frame: XdpFrame, ip: XdpView, l4: usize, at: usize, kind: u8, room: usize) -> Option<u8> {
    match kind {
        protocol::TCP => {
            let tcp = frame.view::<TCP>(l4)?;
            let header = usize::from(tcp.load8(12) >> 4) * 4;
            let flags = tcp.load8(13);
            let opening = flags & tcp_flag::SYN != 0 && lb_common::packet::is_contradictory(flags);
            (header >= TCP && header <= room && !opening).then_some(flags)
        }
        protocol::UDP => {
            let length = usize::from(ip.be16(at + 4));
            let unsummed = at == IPV6 && ip.load16(at + 6) == 0;
            (length >= UDP && length <= room && !unsummed).then_some(0)
        }
        _ => None,
    }
}
