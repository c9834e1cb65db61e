//! VIPs on DSR nodes: a SYN to the VIP, in a frame for the node's own MAC address, is answered only by a node that owns the
//! VIP. A node that lost it passes every check of its own address, and drops every client's packet.
//!
//! The frames are the data plane's business; the composition root joins the two.

use std::net::{IpAddr, SocketAddr};

use tokio::sync::{mpsc, oneshot};

use super::{
    machine::Outcome,
    probe::{Verdict, failed},
};
use crate::control::probe::VipPort;

/// Whoever sends the frames.
pub type Knocks = mpsc::Sender<Knock>;

/// Does this node own this VIP?
#[derive(Debug)]
pub struct Knock {
    /// The node's own address: its MAC address is found by it.
    pub node: IpAddr,
    /// Where to knock.
    pub vip: SocketAddr,
    /// Dropped without an answer: nobody could knock.
    pub answer: oneshot::Sender<KnockAnswer>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KnockAnswer {
    /// The port is open.
    Accepted,
    /// The node owns the VIP, and the port is closed.
    Refused,
    /// Nothing was heard.
    Silent,
    /// It could not be asked, and why: no fault of the node.
    NotSent(String),
    /// The node's MAC address is not known, and why.
    Unknown(String),
}

/// Knocks at all VIPs of a node at once; each must answer.
pub(super) async fn check(node: SocketAddr, vips: &[VipPort], knocks: Option<&Knocks>) -> Verdict {
    let Some(knocks) = knocks else { return Err(Outcome::Untested("VIPs cannot be asked from here".into())) };
    let mut asked = Vec::with_capacity(vips.len());
    for vip in vips {
        let (answer, answered) = oneshot::channel();
        // When nobody takes it, the answer is dropped with it.
        let _ = knocks.send(Knock { node: node.ip(), vip: vip.vip, answer }).await;
        asked.push((vip, answered));
    }
    for (VipPort { vip, open }, answered) in asked {
        match answered.await {
            Ok(KnockAnswer::Accepted) => {}
            Ok(KnockAnswer::Refused) if !open => {}
            Ok(KnockAnswer::Refused) => return failed(format!("refuses connections to VIP {vip}")),
            Ok(KnockAnswer::Silent) => return failed(format!("does not answer for VIP {vip}: it does not own it")),
            Ok(KnockAnswer::Unknown(why)) => return failed(format!("cannot be reached: {why}")),
            Ok(KnockAnswer::NotSent(why)) => return Err(Outcome::Untested(format!("VIP {vip} was not asked: {why}"))),
            Err(_) => return Err(Outcome::Untested(format!("VIP {vip} was not asked"))),
        }
    }
    Ok(())
}
