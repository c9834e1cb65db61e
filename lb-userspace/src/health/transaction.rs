//! A dialogue over TCP, step by step.

use std::net::SocketAddr;

use super::{
    probe::Verdict,
    tcp::{self, Dialogue},
    tls::Client,
};
use crate::control::probe::{Step, Transaction};

/// Goes through the steps.
pub(super) async fn check(address: SocketAddr, transaction: &Transaction, tls: Option<&Client>) -> Verdict {
    let io = tcp::open(address, tls, &address.ip().to_string()).await?;
    let mut dialogue = Dialogue::new(io);
    for (number, step) in (1..).zip(&transaction.steps) {
        match step {
            Step::Send(bytes) => dialogue.send(&bytes.0).await?,
            Step::Expect(pattern) => {
                let what = format!("what step {number} expects");
                let look = |bytes: &[u8]| pattern.end_of_match(bytes).map(|end| (end, ()));
                if dialogue.until(&what, look).await?.is_none() {
                    return dialogue.closed(&what);
                }
            }
        }
    }
    Ok(())
}
