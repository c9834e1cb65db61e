//! `lbctl trace`: what the loaded program does with a packet, asked of the program itself.
//!
//! A packet of the wanted flow is built and run through the *explaining twin*: the same object code, loaded a second time
//! with the constant `EXPLAIN` set to 1, which shares every map and writes none but `EXPLANATION`. The twin belongs to no
//! interface: which one the packet comes in by is part of the question. Packets asked about carry no VLAN tag. The answer
//! is the decision that the real program takes at this moment; of random and round-robin scheduling it is the next one, or
//! one of the possible ones.
//!
//! Called by `inspect`. Must never send anything, nor change a map that forwarding reads.

mod advice;
pub(in crate::dataplane) mod packet;
mod question;
mod rewrites;
mod steps;

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use aya::{
    maps::{Array, MapData},
    programs::{ProgramError, TestRun, TestRunOptions, Xdp},
};
use aya_obj::programs::XdpAttachType;
use lb_common::{
    explain::Explanation,
    flow::flag,
    reason::{Action, Reason},
};

use self::{packet::Draft, question::Question};
use super::{
    inspect::Context,
    maps::{Maps, typed},
    names::{InterfaceInfo, Names},
    owner::mac,
};
use crate::control::{
    plan::Forwarding,
    query::QueryError,
    view::{TraceRequest, TraceView},
};

/// The MAC address that packets are said to come from: locally administered, of no machine.
const NEIGHBOUR: [u8; 6] = [2, b'l', b'b', 0, 0, 1];
/// Room for the packet that comes out.
const ROOM: usize = 2048;

/// `EXPLANATION` has room for one packet.
static TRACING: Mutex<()> = Mutex::new(());

/// Explains what happens to a packet of the flow now.
///
/// # Errors
/// `Invalid` for a request that cannot be read, `NotFound` for an unknown interface, `Conflict` when there is no
/// interface, `Failed` when the kernel refuses.
pub fn trace(context: &Context, request: &TraceRequest) -> Result<TraceView, QueryError> {
    let question = Question::read(request)?;
    let names = context.names.snapshot();
    let interface = interface(&names, request.interface.as_deref())?;
    let device = context.maps.interfaces.get(&interface.slot, 0).map_err(|error| failed("map INTERFACES", &error))?;
    let draft = Draft {
        source_mac: NEIGHBOUR,
        destination_mac: device.mac,
        source: question.source,
        destination: question.destination,
        transport: question.transport,
    };
    let run = run(&context.maps, &context.explain_pin, draft.frame(), interface)?;
    view(&question, &run, interface, &names)
}

/// The interface that the packet comes in by: the named one, else the first that is there.
fn interface<'n>(names: &'n Names, wanted: Option<&str>) -> Result<&'n InterfaceInfo, QueryError> {
    let known = || names.interfaces.iter().map(|i| i.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = match wanted {
        Some(name) => names.interfaces.iter().find(|i| i.name == name).ok_or_else(|| {
            QueryError::NotFound(format!("interface {name:?} has no program of lbd; these have: {}", known()))
        })?,
        None => names.interfaces.iter().find(|i| i.mode.is_some()).ok_or_else(|| {
            QueryError::Conflict("no interface with lbd's program exists: no packet reaches it".to_owned())
        })?,
    };
    if found.mode.is_none() {
        return Err(QueryError::Conflict(format!(
            "interface {:?} does not exist now: no packet comes in by it",
            found.name
        )));
    }
    Ok(found)
}

/// What the twin made of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    before: Vec<u8>,
    after: Vec<u8>,
    /// XDP action.
    returned: u32,
    explanation: Explanation,
}

fn run(maps: &Maps, pin: &Path, frame: Vec<u8>, ingress: &InterfaceInfo) -> Result<Run, QueryError> {
    let twin =
        Xdp::from_pin(pin, XdpAttachType::Interface).map_err(|error| failed(&pin.display().to_string(), &error))?;
    let mut notes: Array<MapData, Explanation> =
        typed(&maps.directory, "EXPLANATION").map_err(|error| failed("map EXPLANATION", &error))?;
    let _alone = TRACING.lock().unwrap_or_else(PoisonError::into_inner);
    let asked = Explanation { ingress: ingress.ifindex, ingress_slot: ingress.slot, ..Explanation::default() };
    notes.set(0, asked, 0).map_err(|error| failed("map EXPLANATION", &error))?;
    let mut after = vec![0; ROOM];
    let options = TestRunOptions { data_in: Some(&frame), data_out: Some(&mut after), ..TestRunOptions::default() };
    let result = twin.test_run(options).map_err(|error| refused(&error))?;
    let explanation = notes.get(&0, 0).map_err(|error| failed("map EXPLANATION", &error))?;
    after.truncate(result.data_size_out as usize);
    Ok(Run { before: frame, after, returned: result.return_value, explanation })
}

fn refused(error: &ProgramError) -> QueryError {
    QueryError::Failed(format!("the kernel does not run the explaining twin (BPF_PROG_TEST_RUN): {error}"))
}

fn failed(what: &str, error: &dyn std::error::Error) -> QueryError {
    QueryError::Failed(format!("{what}: {error}"))
}

/// Puts what the twin said into words.
fn view(question: &Question, run: &Run, interface: &InterfaceInfo, names: &Names) -> Result<TraceView, QueryError> {
    let explanation = &run.explanation;
    let Some(&reason) = Reason::ALL.get(usize::from(explanation.reason)) else {
        let number = explanation.reason;
        return Err(QueryError::Failed(format!("the program ended by reason {number}, which this lbd does not know")));
    };
    let action = action(reason, run.returned)?;
    let node = names.slots.get(&explanation.node);
    let virtual_server = names.virtual_servers.get(&explanation.virtual_server);
    let egress = (action == Action::Send).then(|| Egress::of(explanation, interface, names));
    let changed = if action == Action::Send { rewrites::rewrites(&run.before, &run.after) } else { Vec::new() };
    let mut sentences = steps::sentences(question, explanation, reason, names);
    sentences.extend(egress.as_ref().map(Egress::sentence));
    Ok(TraceView {
        action: word(action).to_owned(),
        reason: reason.name().to_owned(),
        meaning: reason.meaning().to_owned(),
        steps: sentences,
        virtual_server: virtual_server.cloned(),
        pool: node.map(|node| node.pool.clone()),
        node: node.map(|node| node.node.clone()),
        forwarding: node.map(|_| forwarding(explanation.flow_flags)),
        rewrites: changed,
        next_hop: egress.and_then(|egress| {
            rewrites::destination_mac(&run.after).map(|hop| format!("{} by {}", mac(hop), egress.name))
        }),
        advice: advice::advice(reason, question, virtual_server.map(String::as_str), names),
    })
}

/// The action that the reason stands for, which must be what the program answered.
fn action(reason: Reason, returned: u32) -> Result<Action, QueryError> {
    // enum xdp_action: aborted, drop, pass, tx, redirect.
    let answered = match returned {
        1 => Some(Action::Drop),
        2 => Some(Action::Pass),
        3 | 4 => Some(Action::Send),
        _ => None,
    };
    if answered == Some(reason.action()) {
        return Ok(reason.action());
    }
    let name = reason.name();
    Err(QueryError::Failed(format!("the program answered XDP action {returned} for {name}: this is a bug, report it")))
}

fn word(action: Action) -> &'static str {
    match action {
        Action::Send => "send",
        Action::Pass => "pass",
        Action::Drop => "drop",
    }
}

fn forwarding(flow_flags: u8) -> Forwarding {
    match (flow_flags & flag::NAT != 0, flow_flags & flag::SOURCE_NAT != 0) {
        (false, _) => Forwarding::Dsr,
        (true, false) => Forwarding::Nat,
        (true, true) => Forwarding::NatSource,
    }
}

/// The interface that a packet leaves by.
struct Egress {
    name: String,
    /// Whether it is the one it came in by.
    back: bool,
}

impl Egress {
    fn of(explanation: &Explanation, ingress: &InterfaceInfo, names: &Names) -> Self {
        let ifindex = explanation.ifindex;
        let attached = names.interfaces.iter().find(|i| i.ifindex == ifindex).map(|i| i.name.clone());
        let name = attached.or_else(|| names.links.get(&ifindex).cloned());
        Self { name: name.unwrap_or_else(|| format!("interface {ifindex}")), back: ifindex == ingress.ifindex }
    }

    fn sentence(&self) -> String {
        if self.back {
            format!("sent back out of {}, where it came in (XDP_TX)", self.name)
        } else {
            format!("redirected to {} (XDP_REDIRECT)", self.name)
        }
    }
}

#[cfg(test)]
mod tests;
