//! Why a packet's path ended: the facts that the XDP programs report, one counter each per interface.
//!
//! `lb-ebpf`'s `main.rs` turns a [`Reason`] into an XDP action by [`Reason::action`]; the daemon, `lbctl stats`,
//! `lbctl trace` and the metrics name it by [`Reason::name`] and explain it by [`Reason::meaning`].

/// What becomes of a packet.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sent on (to a node, a client, or back as an answer).
    Send,
    /// Left to the host's network stack, untouched.
    Pass,
    /// Dropped.
    Drop,
}

macro_rules! reasons {
    ($( $(#[doc = $meaning:literal])+ $variant:ident = $number:literal, $name:literal, $action:ident; )+) => {
        /// A fact that ended a packet's path. The number indexes the `REASONS` counters.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Reason { $( $(#[doc = $meaning])+ $variant = $number, )+ }

        impl Reason {
            /// Every reason, in order of its number.
            pub const ALL: &[Reason] = &[$( Reason::$variant, )+];

            /// Snake-case name: the label of the metric and the word in tables.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Reason::$variant => $name, )+ }
            }

            /// One sentence for operators.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $( Reason::$variant => concat!($($meaning,)+).trim_ascii_start(), )+ }
            }

            /// What becomes of the packet.
            #[inline(always)]
            pub const fn action(self) -> Action {
                match self { $( Reason::$variant => Action::$action, )+ }
            }
        }
    };
}

reasons! {
    /// Forwarded to a node by direct server return: only MAC addresses changed.
    ForwardedDsr = 0, "forwarded_dsr", Send;
    /// Forwarded to a node by network address translation.
    ForwardedNat = 1, "forwarded_nat", Send;
    /// A node's answer, restored and sent to the client.
    ForwardedReply = 2, "forwarded_reply", Send;
    /// An ICMP echo request to a VIP, answered.
    AnsweredEcho = 3, "answered_echo", Send;
    /// An ICMP error, sent to the owner of the quoted flow.
    ForwardedIcmpError = 4, "forwarded_icmp_error", Send;
    /// A TCP reset was sent back: the connection's node is gone, or nothing is known of the connection.
    AnsweredReset = 5, "answered_reset", Send;
    /// Neither IPv4 nor IPv6.
    NotIp = 6, "not_ip", Pass;
    /// Not addressed to a VIP, nor an answer of a translated connection.
    NotVirtual = 7, "not_virtual", Pass;
    /// Carries a VLAN tag that the interface is not configured to serve.
    VlanNotServed = 8, "vlan_not_served", Pass;
    /// To a VIP, but no virtual server has this protocol and port: the host answers.
    NoVirtualServer = 9, "no_virtual_server", Pass;
    /// To a VIP, a protocol or ICMP type that is not balanced: the host answers.
    NotBalanced = 10, "not_balanced", Pass;
    /// The IP header is cut short or its length field is impossible.
    BadIpHeader = 11, "bad_ip_header", Drop;
    /// The IP total length exceeds the frame, or is smaller than the headers.
    BadIpLength = 12, "bad_ip_length", Drop;
    /// The TCP header is cut short, its data offset is impossible, or its flags contradict each other.
    BadTcpHeader = 13, "bad_tcp_header", Drop;
    /// The UDP length is below 8 or exceeds the IP payload.
    BadUdpHeader = 14, "bad_udp_header", Drop;
    /// UDP over IPv6 without a checksum (RFC 8200 section 8.1).
    UdpWithoutChecksum = 15, "udp_without_checksum", Drop;
    /// Source address is the VIP itself, loopback, multicast, broadcast or unspecified.
    BadSource = 16, "bad_source", Drop;
    /// Source or destination port 0.
    ZeroPort = 17, "zero_port", Drop;
    /// TTL or hop limit used up.
    TtlExpired = 18, "ttl_expired", Drop;
    /// An IPv4 source route or an IPv6 routing header.
    SourceRouted = 19, "source_routed", Drop;
    /// More IPv6 extension headers than are followed (8, and 2 KiB), or one cut short.
    BadExtensionChain = 20, "bad_extension_chain", Drop;
    /// A first fragment too short to hold the transport header (RFC 8200 section 5, RFC 1858).
    TinyFragment = 21, "tiny_fragment", Drop;
    /// A later fragment of a datagram whose first fragment was not seen.
    UnknownFragment = 22, "unknown_fragment", Drop;
    /// An ICMP message cut short, or an error that quotes too little.
    BadIcmp = 23, "bad_icmp", Drop;
    /// An ICMP error about a flow that is not tracked.
    UnknownIcmpFlow = 24, "unknown_icmp_flow", Drop;
    /// Fragmentation-needed below 552 bytes or packet-too-big below 1280: forged.
    IcmpMtuTooSmall = 25, "icmp_mtu_too_small", Drop;
    /// Belongs to no tracked connection and opens none.
    UnknownFlow = 26, "unknown_flow", Drop;
    /// The virtual server's pool and its failure pool have no node that takes new connections.
    NoNode = 27, "no_node", Drop;
    /// The MAC address of the node, or of the router to it, is not known.
    NextHopUnresolved = 28, "next_hop_unresolved", Drop;
    /// The packet came from the very node it would be sent to: a forwarding loop.
    Loop = 29, "loop", Drop;
    /// Every source port towards this node is taken.
    PortsExhausted = 30, "ports_exhausted", Drop;
    /// No room in the flow table for a connection that must be tracked.
    TableFull = 31, "table_full", Drop;
    /// Another CPU was opening the same connection at the same time.
    InsertRace = 32, "insert_race", Drop;
    /// Larger than the MTU towards the node, and the sender is not told: it allows fragments, or too many were told this second.
    ExceedsMtu = 33, "exceeds_mtu", Drop;
    /// The packet could not be rewritten: the kernel refused to resize or redirect it.
    RewriteFailed = 34, "rewrite_failed", Drop;
    /// The maps contradict each other: a table lookup that cannot fail did.
    Internal = 35, "internal", Drop;
    /// Its destination MAC address is another machine's: the interface is promiscuous, or the switch floods.
    NotForUs = 36, "not_for_us", Pass;
    /// A new connection to a NAT pool in a frame with two VLAN tags: its answers could not be given both.
    StackedVlan = 37, "stacked_vlan", Drop;
    /// Larger than the MTU towards the node: the sender was told by ICMP (fragmentation needed, packet too big).
    AnsweredTooBig = 38, "answered_too_big", Send;
    /// To a VIP that another machine may have by now: this machine's failover thread stands still.
    LeaseEnded = 39, "lease_ended", Drop;
}

/// Counters per interface in `REASONS`: a power of two above the number of reasons.
pub const REASON_SLOTS: u32 = 64;
const _: () = assert!(Reason::ALL.len() <= REASON_SLOTS as usize);

/// Packets and bytes that ended for one reason on one interface and CPU.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Frames.
    pub packets: u64,
    /// Bytes of those frames, without FCS.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_indices_and_names_are_unique() {
        for (i, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
            assert!(!reason.meaning().is_empty());
            assert!(Reason::ALL[..i].iter().all(|other| other.name() != reason.name()));
        }
    }
}
