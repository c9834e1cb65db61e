//! A SYN that begins a connection in the commonest case: DSR, a destination seen lately, no persistence, nothing known. One function from
//! proof to proof: where returns are guarded against speculation each costs more than the work of a small function. Whatever
//! is out of the common takes the steps of `slow.rs`, which decide the same.

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    packet::{Fragment, Packet},
    proof::Proof,
    reason::Reason,
    vip::{VirtualServer, scheduler, vs_flag},
};

use crate::{
    count, explain,
    forward::{self, Hop, frame_of},
    maps::NODES,
    open, proof, schedule,
    scratch::scratch,
    service,
    slow::{ip_len, layout_of},
    track,
    verdict::Verdict,
};

/// Places the SYN in `scratch`, or says `PROOF`: it is to be looked at step by step.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn syn_run(ctx: *mut xdp_md) -> u32 {
    let step_by_step = Verdict::PROOF.to_register();
    let Some(scratch) = scratch() else { return Verdict::end(Reason::Internal).to_register() };
    let packet = &scratch.packet;
    let now = track::now();
    let Some(place) = proof::place_for(scratch.hash, now) else { return step_by_step };
    if place.proof.is_of(scratch.hash) {
        return step_by_step;
    }
    let Some(server) = service::find_known(&packet.key) else { return step_by_step };
    if !is_common(packet, server) || proof::has_records(server, now) || open::check_ends(&packet.key).is_err() {
        return step_by_step;
    }
    let chosen = schedule::choose(packet, server, schedule::is_flooded(server, now));
    let (Some(node), Some(frame)) = (NODES.get(u32::from(chosen)), frame_of(ctx)) else { return step_by_step };
    let hop = Hop::of(node);
    explain::connection(server.id, chosen, 0, lb_common::conntrack::State::SynSent as u8);
    let verdict = forward::dsr(frame, layout_of(packet).l3, hop, ip_len(packet), Reason::ForwardedDsr);
    // What is not sent leaves no proof.
    if verdict.is_sent() {
        let proof = Proof::new(scratch.hash, chosen, hop.generation(), false, now);
        proof::store_in(place, scratch.hash, proof, now);
        count::opened(chosen, frame.bytes(), false);
    }
    verdict.to_register()
}

/// Whether a virtual server keeps proofs, knows no clients, and has nodes that need no comparison.
#[inline(always)]
fn is_common(packet: &Packet, server: &VirtualServer) -> bool {
    proof::is_kept_by(server)
        && server.flags & vs_flag::AFFINITY == 0
        && server.scheduler != scheduler::LEAST
        && server.ring != 0
        && packet.fragment == Fragment::Whole
}
