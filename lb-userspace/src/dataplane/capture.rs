//! `lbctl capture`: packets with the verdict of the program that decided about them, as a capture file (pcapng).
//!
//! While nobody captures there is nothing of it in the data path. A capture loads the *capturing program* — the same source,
//! built with the feature `capture` — and puts it in the place of the one that forwards, through the same links and over the
//! same maps, in one step; afterwards the other way round. It stops to tell at its deadline by itself, whether or not there
//! is an lbd then. What does not fit into its ring is lost and counted: no reader, however slow, holds anything up.
//!
//! Called by the admin API's threads, through [`CapturePath`]. Programs are loaded here, beside the data plane's thread, which
//! only exchanges them.

mod file;
mod question;
mod reader;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use aya::maps::{Array, MapData, RingBuf};
use lb_common::capture::{Control, map};
use tokio::sync::mpsc;

use self::{question::Question, reader::Reader};
use super::{
    clock,
    inspect::Context,
    load::{LoadError, Purpose, load_capture},
    names::{InterfaceInfo, Names},
    owner::Capturing,
    pins::PinDirectory,
    task,
};
use crate::control::{
    capture::{CaptureRequest, Packets},
    query::{CapturePath, QueryError},
};

/// Bytes of the ring: a few ten thousand headers.
const RING: u32 = 4 << 20;

/// Pieces of the file that wait for who reads it.
const QUEUE: usize = 8;

/// How long after its deadline a capture may still be read: then the reader is too slow.
const PATIENCE: Duration = Duration::from_secs(10);

/// Begins captures, one at a time.
#[derive(Debug)]
pub struct Capturer {
    context: Context,
    orders: task::Handle,
    busy: Arc<AtomicBool>,
}

impl Capturer {
    /// Of the data plane that the handle gives orders to.
    #[must_use]
    pub fn new(context: Context, orders: task::Handle) -> Self {
        Self { context, orders, busy: Arc::default() }
    }

    /// Loads a capturing program for each interface, and what they tell by.
    fn prepare(&self, interfaces: &[&InterfaceInfo], control: Control) -> Result<(Vec<Capturing>, Tap), QueryError> {
        let maps = &self.context.maps.directory;
        let Some(pin_dir) = maps.parent() else { return Err(failed(&maps.display())) };
        let meta = self.context.maps.meta.get(&0, 0).map_err(|error| failed(&error))?;
        let passage = PinDirectory::passage(pin_dir).map_err(|error| failed(&error))?;
        let mut loaded = Vec::new();
        let mut load = || {
            for info in interfaces {
                let purpose = Purpose { ifindex: info.ifindex, slot: info.slot, explain: false };
                let program = load_capture(maps, &meta, purpose, &passage, RING)?;
                loaded.push(Capturing { interface: info.name.clone(), ifindex: info.ifindex, program });
            }
            Ok(())
        };
        let done: Result<(), LoadError> = load();
        // The programs hold the maps from here on.
        PinDirectory::clear_passage(pin_dir).map_err(|error| failed(&error))?;
        done.map_err(|error| failed(&error))?;
        let Some(first) = loaded.first_mut() else { return Err(failed(&"no interface")) };
        let tap = Tap::of(&mut first.program, control)?;
        Ok((loaded, tap))
    }
}

impl CapturePath for Capturer {
    fn capture(&self, request: &CaptureRequest) -> Result<Packets, QueryError> {
        let question = Question::read(request)?;
        let names = self.context.names.snapshot();
        let interfaces = interfaces(&names, &question.interfaces)?;
        let place = Place::take(&self.busy)?;
        let (until, until_ns) = (Instant::now() + question.time, clock::after(question.time));
        let (programs, tap) = self.prepare(&interfaces, question.control(until_ns))?;
        let alive = self.orders.capture(programs, until).map_err(|error| failed(&error))?;
        let (packets, answer) = mpsc::channel(QUEUE);
        let reader = Reader::new(tap, self.context.names.clone(), question, until, packets);
        let thread = std::thread::Builder::new().name("capture".to_owned());
        let held = (place, alive);
        thread.spawn(move || reader.run(held)).map_err(|error| failed(&error))?;
        Ok(answer)
    }
}

fn failed(error: &dyn std::fmt::Display) -> QueryError {
    QueryError::Failed(format!("cannot capture: {error}"))
}

/// Those that are asked for, or all; an interface that does not exist now brings no packets.
fn interfaces<'a>(names: &'a Names, wanted: &[String]) -> Result<Vec<&'a InterfaceInfo>, QueryError> {
    for name in wanted {
        if !names.interfaces.iter().any(|info| info.name == *name) {
            let there: Vec<&str> = names.interfaces.iter().map(|info| info.name.as_str()).collect();
            let there = there.join(", ");
            return Err(QueryError::NotFound(format!("no interface {name:?} with lbd's program; there are: {there}")));
        }
    }
    let is_wanted = |info: &&InterfaceInfo| wanted.is_empty() || wanted.contains(&info.name);
    let found: Vec<_> = names.interfaces.iter().filter(is_wanted).filter(|info| info.mode.is_some()).collect();
    if found.is_empty() {
        return Err(QueryError::Conflict(
            "no interface with lbd's program exists now: no packet reaches it".to_owned(),
        ));
    }
    Ok(found)
}

/// The right to capture.
#[derive(Debug)]
struct Place(Arc<AtomicBool>);

impl Place {
    fn take(busy: &Arc<AtomicBool>) -> Result<Self, QueryError> {
        if busy.swap(true, Ordering::AcqRel) {
            let text = "a capture runs already, and there is one at a time; who began it says `lbctl audit ls`";
            return Err(QueryError::Conflict(text.to_owned()));
        }
        Ok(Self(Arc::clone(busy)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The capturing programs' own maps.
struct Tap {
    ring: RingBuf<MapData>,
    control: Array<MapData, Control>,
}

impl Tap {
    /// With what is wanted written into them.
    fn of(program: &mut super::load::Program, wanted: Control) -> Result<Self, QueryError> {
        let mut take = |name| program.take_map(name).map_err(|error| failed(&error));
        let (ring, control) = (take(map::CAPTURED)?, take(map::CAPTURE)?);
        let ring = RingBuf::try_from(ring).map_err(|error| failed(&error))?;
        let mut control = Array::try_from(control).map_err(|error| failed(&error))?;
        control.set(0, wanted, 0).map_err(|error| failed(&error))?;
        Ok(Self { ring, control })
    }

    /// Frames that the ring had no room for.
    fn lost(&self) -> u64 {
        // A map that cannot be read has nothing to say.
        self.control.get(&0, 0).map_or(0, |control| control.lost)
    }
}
