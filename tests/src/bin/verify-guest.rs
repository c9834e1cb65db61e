//! What `cargo xtask verify` runs on each kernel: loads the programs and replays the golden packets by
//! `BPF_PROG_TEST_RUN`. Needs root and nothing else; prints what xtask's `verify/report.rs` reads.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use anyhow::{Context, Result};
use aya::programs::Xdp;
use lb_tests::{
    golden::{self, Tally},
    rig::{Rig, Sizes, world::World},
};

fn main() -> Result<()> {
    let mut rig = Rig::with(World::empty(), Sizes::all(64))?;
    let program: &Xdp = rig.program()?;
    let instructions =
        program.info()?.verified_instruction_count().context("this kernel does not count instructions")?;
    println!("verify: program lb_ingress {instructions}");
    let stories = golden::parse(golden::TEXT)?;
    for story in &stories {
        story.replay(&mut rig)?;
    }
    let tally = Tally::of(&stories);
    tally.is_enough()?;
    println!("verify: {tally}");
    println!("verify: {} verdicts ok", tally.total());
    Ok(())
}
