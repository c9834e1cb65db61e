//! What `cargo xtask verify` runs on each kernel: loads the programs and replays the golden packets with each by
//! `BPF_PROG_TEST_RUN`. Needs root and nothing else; prints what xtask's `verify/report.rs` reads.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use anyhow::{Context, Result, ensure};
use aya::programs::Xdp;
use lb_tests::{
    golden::{self, Tally},
    rig::{CAPTURING, FORWARDING, Rig, Sizes, capture::everything, world::World},
};

fn main() -> Result<()> {
    let stories = golden::parse(golden::TEXT)?;
    let forwarding = Rig::with(World::empty(), Sizes::all(64))?;
    let (capturing, mut tap) = Rig::capturing(World::empty(), Sizes::all(64), everything())?;
    for (name, mut rig) in [(FORWARDING, forwarding), (CAPTURING, capturing)] {
        let program: &Xdp = rig.program()?;
        let instructions =
            program.info()?.verified_instruction_count().context("this kernel does not count instructions")?;
        println!("verify: program {name} {instructions}");
        for story in &stories {
            story.replay(&mut rig)?;
            let told = tap.told()?.len();
            ensure!(told >= story.packets.len() || name == FORWARDING, "{}of its packets {told} were told", story.name);
        }
    }
    let tally = Tally::of(&stories);
    tally.is_enough()?;
    println!("verify: {tally}");
    println!("verify: {} verdicts ok", tally.total());
    Ok(())
}
