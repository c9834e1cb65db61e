//! VIPs that every machine announces by BGP: how long a client waits when one of them withdraws, or its lbd is killed.

use anyhow::Result;
use lb_tests::site::{self, Site};

use super::Run;

/// Cases, by what the router is. The machines are lb's.
pub(crate) const CASES: [&str; 4] = ["bgp_withdraw", "bgp_kill9", "bird_withdraw", "bird_kill9"];

/// The machines by the last byte of their addresses.
const BOTH: [u8; 2] = [2, 3];

/// One run is both machines in turn, as one of them has the client's flow: the longer gap counts.
pub(crate) fn measure(case: &str, runs: usize) -> Result<Vec<Run>> {
    let net = site::network("bench-bgp")?;
    let mut site = Site::start(&net, if case.starts_with("bird") { site::bird } else { site::frr })?.quiet();
    let mut measured = Vec::new();
    for _ in 0..runs {
        let mut run = Run::default();
        for index in 0..2 {
            let other = [BOTH[1 - index]];
            let gap = if case.ends_with("kill9") {
                let gap = site.gap_of_kill(index, &other)?;
                site.lbs[index].launch()?;
                site.wait_for(&BOTH, site::LONG)?;
                gap
            } else {
                let lb = &site.lbs[index];
                let gap = site.gap(&other, || lb.ctl(&["vip", "maintenance", "on"]).map(drop))?;
                site.gap(&BOTH, || lb.ctl(&["vip", "maintenance", "off"]).map(drop))?;
                gap
            };
            run.gap = run.gap.max(gap);
        }
        measured.push(run);
    }
    Ok(measured)
}
