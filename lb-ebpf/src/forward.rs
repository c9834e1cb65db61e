//! Rewriting and sending: DSR touches MAC addresses alone, NAT also addresses, ports, TTL and the checksums over them.

use aya_ebpf::{bindings::xdp_md, programs::XdpContext};
use lb_common::{
    checksum::Delta,
    flow::{ClientHop, FAMILY_V4, FlowKey, FlowRecord, flag},
    node::{Node, node_flag},
    packet::{ETHERNET, Frame, protocol},
    reason::Reason,
};

use crate::{
    explain,
    frame::{XdpFrame, XdpView},
    globals::{ifindex, interface},
    maps::{DEVICES, INTERFACES},
    tags,
    verdict::Verdict,
};

/// Where things are in the frame.
#[derive(Clone, Copy)]
pub struct Layout {
    pub l3: usize,
    pub l4: usize,
    pub family: u8,
    pub protocol: u8,
    /// Whether the transport header is there (not in later fragments).
    pub has_ports: bool,
}

/// Addresses as four words in memory order (IPv4: the first), ports in memory order.
#[repr(C)]
pub struct Endpoints {
    pub source: [u32; 4],
    pub destination: [u32; 4],
    pub source_port: u16,
    pub destination_port: u16,
}

impl Endpoints {
    /// The same, seen from the other end.
    #[inline(always)]
    pub fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

#[inline(always)]
fn words_of(address: &[u8; 16]) -> [u32; 4] {
    // SAFETY: 16 bytes read as four words; every address field in our records is aligned to 8.
    unsafe { *core::ptr::from_ref(address).cast::<[u32; 4]>() }
}

/// A node's first three words, each read once: MAC and flags; our MAC and MTU; interface, virtual server, generation.
#[derive(Clone, Copy)]
pub struct Hop {
    mac: u64,
    source_mac: u64,
    out: u64,
    node: *const Node,
}

impl Hop {
    #[inline(always)]
    pub fn of(node: *const Node) -> Self {
        // SAFETY: a live map value; `Node` begins with three aligned words, which the daemon stores whole.
        let [mac, source_mac, out] = unsafe { node.cast::<[u64; 3]>().read_volatile() };
        Self { mac, source_mac, out, node }
    }

    #[inline(always)]
    pub fn flags(self) -> u16 {
        (self.mac >> 48) as u16
    }

    #[inline(always)]
    pub fn generation(self) -> u16 {
        (self.out >> 48) as u16
    }

    #[inline(always)]
    pub fn virtual_server(self) -> u16 {
        (self.out >> 32) as u16
    }

    #[inline(always)]
    fn mtu(self) -> u16 {
        (self.source_mac >> 48) as u16
    }

    #[inline(always)]
    fn ifindex(self) -> u32 {
        self.out as u32
    }

    /// VLAN towards it; 0: untagged.
    #[inline(always)]
    fn vlan(self) -> u16 {
        // SAFETY: a live map value; an aligned field that the daemon changes only while the node is not resolved.
        if self.flags() & node_flag::TAGGED == 0 {
            0
        } else {
            unsafe { (&raw const (*self.node).vlan).read_volatile() }
        }
    }
}

const MAC_MASK: u64 = 0xffff_ffff_ffff;

/// Sends to the node by DSR: destination MAC its own, source MAC ours, nothing else.
#[inline(always)]
pub fn dsr(frame: XdpFrame, l3: usize, hop: Hop, ip_len: usize, reason: Reason) -> Verdict {
    if let Err(verdict) = check_hop(hop, ip_len) {
        return verdict;
    }
    let Some(ethernet) = frame.view::<ETHERNET>(0) else { return Verdict::end(Reason::Internal) };
    if comes_from(ethernet, hop) {
        return Verdict::end(Reason::Loop);
    }
    leave(ethernet, l3, hop, reason)
}

/// Sends a frame whose addresses are the node's already. It may come from the node's own router.
#[inline(always)]
pub fn to_node(frame: XdpFrame, l3: usize, hop: Hop, ip_len: usize, reason: Reason) -> Verdict {
    if let Err(verdict) = check_hop(hop, ip_len) {
        return verdict;
    }
    let Some(ethernet) = frame.view::<ETHERNET>(0) else { return Verdict::end(Reason::Internal) };
    leave(ethernet, l3, hop, reason)
}

/// Towards a node, with its segment's MAC addresses and tag.
#[inline(always)]
fn leave(ethernet: XdpView, l3: usize, hop: Hop, reason: Reason) -> Verdict {
    set_macs(ethernet, hop.mac, hop.source_mac);
    if l3 != ETHERNET || hop.flags() & node_flag::TAGGED != 0 {
        return tags::later(hop.vlan(), hop.ifindex(), reason);
    }
    send(hop.ifindex(), reason)
}

/// The node itself sends to the VIP that it was given: it does not own the VIP and routes it back.
#[inline(always)]
fn comes_from(ethernet: XdpView, hop: Hop) -> bool {
    u64::from(ethernet.load32(6)) | u64::from(ethernet.load16(10)) << 32 == hop.mac & MAC_MASK
}

/// The same, asked beforehand.
#[inline(always)]
pub fn check_loop(frame: XdpFrame, hop: Hop) -> Result<(), Reason> {
    let Some(ethernet) = frame.view::<ETHERNET>(0) else { return Err(Reason::Internal) };
    if comes_from(ethernet, hop) { Err(Reason::Loop) } else { Ok(()) }
}

/// What keeps a packet of `ip_len` bytes from a next hop.
#[inline(always)]
pub fn check_hop(hop: Hop, ip_len: usize) -> Result<(), Verdict> {
    if hop.flags() & node_flag::RESOLVED == 0 {
        return Err(Verdict::end(Reason::NextHopUnresolved));
    }
    if hop.mtu() != 0 && ip_len > usize::from(hop.mtu()) {
        return Err(Verdict::exceeds(hop.mtu()));
    }
    Ok(())
}

#[inline(always)]
fn set_macs(ethernet: XdpView, destination: u64, source: u64) {
    ethernet.store64(0, (destination & MAC_MASK) | source << 48);
    ethernet.store32(8, (source >> 16) as u32);
}

#[inline(always)]
fn send(egress: u32, reason: Reason) -> Verdict {
    send_by(egress, reason as u32)
}

/// Sends out of an interface; `reason` is the number of one whose packets are sent.
#[inline(always)]
pub fn send_by(egress: u32, reason: u32) -> Verdict {
    explain::egress(egress);
    if egress == ifindex() {
        return Verdict::sent_back(reason);
    }
    match DEVICES.redirect(egress, 0) {
        Ok(_) => Verdict::redirected(reason),
        Err(_) => Verdict::end(Reason::RewriteFailed),
    }
}

/// Sends to the node by NAT. `record` is the client → VIP record.
#[inline(always)]
pub fn nat(frame: XdpFrame, layout: Layout, record: &FlowRecord, flags: u8, node: &Node, ip_len: usize) -> Verdict {
    nat_to(frame, layout, &node_side(&record.key, record.nat_port, flags, node), Hop::of(node), ip_len)
}

/// The same, to known endpoints.
#[inline(always)]
pub fn nat_to(frame: XdpFrame, layout: Layout, endpoints: &Endpoints, hop: Hop, ip_len: usize) -> Verdict {
    if let Err(verdict) = check_hop(hop, ip_len) {
        return verdict;
    }
    if let Err(reason) = translate(frame, layout, endpoints) {
        return Verdict::end(reason);
    }
    let Some(ethernet) = frame.view::<ETHERNET>(0) else { return Verdict::end(Reason::Internal) };
    leave(ethernet, layout.l3, hop, Reason::ForwardedNat)
}

/// What the node sees of a connection with this key and source port.
#[inline(always)]
pub fn node_side(key: &FlowKey, nat_port: u16, flags: u8, node: &Node) -> Endpoints {
    let source = if flags & flag::SOURCE_NAT != 0 { words_of(&node.source_address) } else { client_words(key) };
    let destination_port = if node.port == 0 { key.destination_port_ne() } else { node.port };
    Endpoints { source, destination: words_of(&node.address), source_port: nat_port, destination_port }
}

/// What the client sees: the connection's key, the other way round.
#[inline(always)]
pub fn client_side(key: &FlowKey) -> Endpoints {
    Endpoints {
        source: vip_words(key),
        destination: client_words(key),
        source_port: key.destination_port_ne(),
        destination_port: key.source_port_ne(),
    }
}

#[inline(always)]
fn client_words(key: &FlowKey) -> [u32; 4] {
    let [_, first, second, ..] = key.words();
    halves(first, second)
}

/// Two words of a key as four halves in memory order.
#[inline(always)]
fn halves(first: u64, second: u64) -> [u32; 4] {
    [first as u32, (first >> 32) as u32, second as u32, (second >> 32) as u32]
}

#[inline(always)]
fn vip_words(key: &FlowKey) -> [u32; 4] {
    let [_, first, _, third, fourth] = key.words();
    if key.family() == FAMILY_V4 { halves(first >> 32, 0) } else { halves(third, fourth) }
}

/// Sends a node's answer to the client. `record` is the client → VIP record, `client` the client's next hop.
#[inline(always)]
pub fn reply(frame: XdpFrame, layout: Layout, record: &FlowRecord, client: ClientHop) -> Verdict {
    reply_to(frame, layout, &client_side(&record.key), client)
}

/// The same, to known endpoints.
#[inline(always)]
pub fn reply_to(frame: XdpFrame, layout: Layout, endpoints: &Endpoints, client: ClientHop) -> Verdict {
    if let Err(reason) = translate(frame, layout, endpoints) {
        return Verdict::end(reason);
    }
    to_client(frame, layout.l3, client, Reason::ForwardedReply)
}

/// Sends a frame towards a client: out of the interface its packets come in by, into the VLAN that they come from.
#[inline(always)]
pub fn to_client(frame: XdpFrame, l3: usize, client: ClientHop, reason: Reason) -> Verdict {
    let Some(egress) = INTERFACES.get(client.slot()) else { return Verdict::end(Reason::Internal) };
    let Some(ethernet) = frame.view::<ETHERNET>(0) else { return Verdict::end(Reason::Internal) };
    let [a, b, c, d, e, f] = egress.mac;
    set_macs(ethernet, client.mac_word(), u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]));
    let ifindex = if client.slot() == interface() { ifindex() } else { egress.ifindex };
    if l3 != ETHERNET || client.vlan() != 0 {
        return tags::later(client.vlan(), ifindex, reason);
    }
    send(ifindex, reason)
}

/// Writes new addresses and ports, takes one off the TTL (RFC 1812 §5.3.1), and updates the checksums.
#[inline(always)]
pub fn translate(frame: XdpFrame, layout: Layout, to: &Endpoints) -> Result<(), Reason> {
    let addresses = if layout.family == FAMILY_V4 {
        translate4(frame, layout.l3, to.source[0], to.destination[0])?
    } else {
        translate6(frame, layout.l3, to.source, to.destination)?
    };
    if !layout.has_ports {
        return Ok(());
    }
    match layout.protocol {
        protocol::TCP => {
            let Some(tcp) = frame.view::<18>(layout.l4) else { return Err(Reason::Internal) };
            let delta = set_ports(tcp, to).and(addresses);
            tcp.store16(16, delta.apply(tcp.load16(16)));
        }
        protocol::UDP => {
            let Some(udp) = frame.view::<8>(layout.l4) else { return Err(Reason::Internal) };
            let delta = set_ports(udp, to).and(addresses);
            udp.store16(6, delta.apply_udp(udp.load16(6)));
        }
        _ => {}
    }
    Ok(())
}

#[inline(always)]
fn set_ports(l4: XdpView, to: &Endpoints) -> Delta {
    let new = u32::from(to.source_port) | u32::from(to.destination_port) << 16;
    let old = l4.load32(0);
    l4.store32(0, new);
    Delta::NONE.word32(old, new)
}

/// Addresses, TTL and header checksum of IPv4; returns the change of the addresses.
#[inline(always)]
pub fn translate4(frame: XdpFrame, l3: usize, source: u32, destination: u32) -> Result<Delta, Reason> {
    let Some(ip) = frame.view::<20>(l3) else { return Err(Reason::Internal) };
    let ttl_protocol = ip.load16(8);
    if ttl_protocol & 0xff <= 1 {
        return Err(Reason::TtlExpired);
    }
    let addresses = Delta::NONE.word32(ip.load32(12), source).word32(ip.load32(16), destination);
    let header = addresses.word16(ttl_protocol, ttl_protocol - 1);
    ip.store16(8, ttl_protocol - 1);
    ip.store16(10, header.apply(ip.load16(10)));
    ip.store32(12, source);
    ip.store32(16, destination);
    Ok(addresses)
}

/// Addresses and hop limit of IPv6; returns the change of the addresses.
#[inline(always)]
pub fn translate6(frame: XdpFrame, l3: usize, source: [u32; 4], destination: [u32; 4]) -> Result<Delta, Reason> {
    let Some(ip) = frame.view::<40>(l3) else { return Err(Reason::Internal) };
    let hops = ip.load8(7);
    if hops <= 1 {
        return Err(Reason::TtlExpired);
    }
    let delta = Delta::NONE.address16(ip.load_address16(8), source).address16(ip.load_address16(24), destination);
    ip.store8(7, hops - 1);
    ip.store_address16(8, source);
    ip.store_address16(24, destination);
    Ok(delta)
}

/// A frame for the context as it is now. Its Ethernet header is checked first of all: the compiler would drop a later check
/// as implied by one further on, and the verifier would not follow.
#[inline(always)]
pub fn frame_of(ctx: *mut xdp_md) -> Option<XdpFrame> {
    let frame = XdpFrame::new(&XdpContext::new(ctx));
    frame.view::<ETHERNET>(0).map(|_| frame)
}
