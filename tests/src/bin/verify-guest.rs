//! What `cargo xtask verify` runs on each kernel: loads the programs and checks a short set of verdicts by
//! `BPF_PROG_TEST_RUN`. Needs root and nothing else; prints what xtask's `verify/report.rs` reads.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use anyhow::{Context, Result, ensure};
use aya::programs::Xdp;
use lb_common::reason::Reason;
use lb_tests::{
    packet::{Packet, eth, tcp},
    rig::{
        Rig, Sizes,
        world::{MODES, Mode, OTHER, OTHER6, TCP, UDP, World, client, from_node, to_client, to_node},
    },
};

/// The client's port; source NAT may keep it.
const PORT: u16 = 31337;

fn main() -> Result<()> {
    let mut rig = Rig::with(World::empty(), Sizes::all(64))?;
    let program: &Xdp = rig.program()?;
    let instructions =
        program.info()?.verified_instruction_count().context("this kernel does not count instructions")?;
    println!("verify: program lb_ingress {instructions}");
    let mut verdicts = 0;
    for mode in MODES {
        for v4 in [true, false] {
            for protocol in [TCP, UDP] {
                rig.forget()?;
                rig.configure(World::of(mode, v4, protocol, 1))?;
                verdicts += conversation(&mut rig, mode, v4, protocol)?;
                verdicts += strangers(&mut rig, v4, protocol)?;
            }
        }
    }
    println!("verify: {verdicts} verdicts ok");
    Ok(())
}

/// A connection is opened, answered and goes on.
fn conversation(rig: &mut Rig, mode: Mode, v4: bool, protocol: u8) -> Result<u32> {
    let request = |flags| eth().ip(client(v4), mode.vip(v4)).transport(protocol, PORT, 80, flags);
    let forwarded = if mode == Mode::Dsr { Reason::ForwardedDsr } else { Reason::ForwardedNat };
    let first = request(tcp::SYN);
    check(rig, &first, forwarded, &to_node(&first, mode, 1, PORT))?;
    let mut checked = 1;
    if mode != Mode::Dsr {
        let answer = from_node(&request(tcp::SYN | tcp::ACK), mode, 1, PORT);
        check(rig, &answer, Reason::ForwardedReply, &to_client(&first, &answer))?;
        checked += 1;
    }
    for _ in 0..2 {
        let next = request(tcp::ACK);
        check(rig, &next, forwarded, &to_node(&next, mode, 1, PORT))?;
        checked += 1;
    }
    let tracked = lb_tests::rig::tables::records(&rig.flows).count();
    ensure!(tracked > 0, "{mode:?}, IPv4 {v4}, protocol {protocol}: the connection is not in FLOWS");
    Ok(checked)
}

/// What is not for a VIP passes untouched; what is broken is dropped.
fn strangers(rig: &mut Rig, v4: bool, protocol: u8) -> Result<u32> {
    let vip = *rig.world.vips().first().context("the world has a VIP")?;
    let other: std::net::IpAddr = if v4 { OTHER.into() } else { OTHER6.into() };
    let stranger = eth().ip(client(v4), other).transport(protocol, PORT, 80, tcp::SYN);
    check(rig, &stranger, Reason::NotVirtual, &stranger)?;
    let nobody = eth().ip(client(v4), vip).transport(protocol, PORT, 81, tcp::SYN);
    check(rig, &nobody, Reason::NoVirtualServer, &nobody)?;
    let zero = eth().ip(client(v4), vip).transport(protocol, 0, 80, tcp::SYN);
    check(rig, &zero, Reason::ZeroPort, &zero)?;
    Ok(3)
}

fn check(rig: &mut Rig, packet: &Packet, reason: Reason, expected: &Packet) -> Result<()> {
    let outcome = rig.run(&packet.bytes())?;
    ensure!(outcome.reason == reason, "{packet:?}: {}, not {}", outcome.reason.name(), reason.name());
    ensure!(outcome.bytes == expected.bytes(), "{packet:?}: came out as {:02x?}", outcome.bytes);
    Ok(())
}
