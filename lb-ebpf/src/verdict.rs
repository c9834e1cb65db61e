//! What a path ends with: a [`Reason`] and, when the packet is sent, the XDP action that sends it. Fits a register, because
//! BPF functions return no more.

use aya_ebpf::bindings::xdp_action;
use lb_common::reason::{Action, Reason};

/// Low byte: the reason; next byte: the XDP action; upper half: the MTU that was exceeded.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Verdict(u32);

impl Verdict {
    /// "Not by this way": the common case does not apply, or the record found cannot be used as it is. Never the end.
    pub const STALE: Verdict = Verdict(0xffff);

    /// Where the slow path goes on, between its steps.
    pub const TRACKED: Verdict = Verdict(0xfffe);
    /// The same, for SYNs that `FLOWS` does not know.
    pub const SYN: Verdict = Verdict(0xfff3);
    /// The same, for TCP segments that it does not know.
    pub const PROOF: Verdict = Verdict(0xfff7);
    /// The same, for packets that neither `FLOWS` nor `PROOFS` know.
    pub const HALF_OPEN: Verdict = Verdict(0xfff9);
    /// The same, for ICMP.
    pub const ICMP: Verdict = Verdict(0xfffd);
    /// The same, for later fragments.
    pub const FRAGMENT: Verdict = Verdict(0xfffc);
    /// The same, for packets whose record may have come to `FLOWS` since it was looked at.
    pub const AGAIN: Verdict = Verdict(0xfff4);
    /// The same, for packets that no record knows.
    pub const OPEN: Verdict = Verdict(0xfffb);
    /// The same, once a node is chosen: the connection gets a proof.
    pub const OPEN_PROOF: Verdict = Verdict(0xfff6);
    /// The same: it gets a record.
    pub const OPEN_RECORD: Verdict = Verdict(0xfff5);
    /// The same, for segments that are answered by a reset.
    pub const RESET: Verdict = Verdict(0xfffa);

    /// The frame is rewritten but for its VLAN tag, which `scratch` names: the last step, for whoever forwards.
    pub const RETAG: Verdict = Verdict(0xfff8);

    /// The path ends here, by the reason's own action.
    #[inline(always)]
    pub fn end(reason: Reason) -> Self {
        let action = match reason.action() {
            Action::Send => xdp_action::XDP_TX,
            Action::Pass => xdp_action::XDP_PASS,
            Action::Drop => xdp_action::XDP_DROP,
        };
        Self(reason as u32 | action << 8)
    }

    /// The packet is larger than the MTU towards its next hop. Its sender may be told so (`too_big`).
    #[inline(always)]
    pub fn exceeds(mtu: u16) -> Self {
        Self(Self::end(Reason::ExceedsMtu).0 | u32::from(mtu) << 16)
    }

    /// That MTU, of a path that ends so.
    #[inline(always)]
    pub fn exceeded(self) -> Option<u32> {
        (self.reason() == Reason::ExceedsMtu as u32).then_some(self.0 >> 16)
    }

    /// The packet was handed to a device by redirection.
    #[inline(always)]
    pub fn redirected(reason: u32) -> Self {
        Self(reason | xdp_action::XDP_REDIRECT << 8)
    }

    /// The packet leaves by the interface that it came in by. `reason`: number of one whose packets are sent.
    #[inline(always)]
    pub fn sent_back(reason: u32) -> Self {
        Self(reason | xdp_action::XDP_TX << 8)
    }

    /// Whether the packet is forwarded, now or once it has its VLAN tag.
    #[inline(always)]
    pub fn is_sent(self) -> bool {
        self.reason() <= Reason::ForwardedIcmpError as u32 || self == Verdict::RETAG
    }

    /// Whether the frame goes out of an interface, whoever it is for.
    #[cfg(feature = "capture")]
    #[inline(always)]
    pub fn is_transmitted(self) -> bool {
        matches!(self.action(), xdp_action::XDP_TX | xdp_action::XDP_REDIRECT)
    }

    /// Number of the reason.
    #[inline(always)]
    pub fn reason(self) -> u32 {
        self.0 & 0xff
    }

    /// XDP action.
    #[inline(always)]
    pub fn action(self) -> u32 {
        self.0 >> 8 & 0xff
    }

    /// As a function of its own returns it.
    #[inline(always)]
    pub fn to_register(self) -> u32 {
        self.0
    }

    /// From that.
    #[inline(always)]
    pub fn from_register(value: u32) -> Self {
        Self(value)
    }
}
