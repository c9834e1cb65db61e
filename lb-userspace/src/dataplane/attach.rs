//! The XDP programs on interfaces: one instance each, attached by a pinned link, replaced through that link and never
//! detached for a replacement. Everything that can be refused is looked at before anything is changed.

mod exchange;
mod step;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
};

use aya::{
    pin::PinError,
    programs::{ProgramError, links::LinkError},
};
use lb_common::maps::{MAX_INTERFACES, Meta};

use super::{
    load::{self, LoadError, Purpose},
    network::{Link, Mode, Network},
    pins::{PinDirectory, PinsError},
};
use crate::control::plan::{AttachMode, Interface};
pub use exchange::{exchange, put_back};
use step::{Situation, Step, driver, fits, inspect, remove_pin};
pub use step::{build_mark, pin_program};

/// Why a program could not be attached. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Another XDP program is on the interface.
    #[error(
        "interface {interface} already has an XDP program: {program}. lbd does not replace what it did not attach: detach it (`ip link set dev {interface} xdp off`, or stop what attached it), or take the interface out of the configuration"
    )]
    Busy {
        /// Interface.
        interface: String,
        /// Id and name of the program.
        program: String,
    },
    /// The driver cannot.
    #[error(
        "interface {interface}: its driver ({driver}) refuses the XDP program in native mode: {source}; set mode = \"auto\" or \"generic\", or mend what the driver lacks (MTU, LRO, queues)"
    )]
    Native {
        /// Interface.
        interface: String,
        /// Driver, or kind of virtual interface.
        driver: String,
        /// What it said.
        source: io::Error,
    },
    /// Not even the generic path takes it.
    #[error("interface {interface}: the XDP program cannot be attached: {source}")]
    Refused {
        /// Interface.
        interface: String,
        /// What the kernel said.
        source: ProgramError,
    },
    /// More interfaces than slots.
    #[error("{wanted} interfaces are configured, {MAX_INTERFACES} are possible")]
    TooMany {
        /// How many are configured.
        wanted: usize,
    },
    /// Loading the program.
    #[error("interface {interface}: {source}")]
    Load {
        /// Interface.
        interface: String,
        /// Why.
        source: LoadError,
    },
    /// The pinned link.
    #[error("{path}: {source}")]
    Link {
        /// The pin.
        path: PathBuf,
        /// Why.
        source: LinkError,
    },
    /// Pinning.
    #[error("{path}: {source}")]
    Pin {
        /// The pin.
        path: PathBuf,
        /// Why.
        source: PinError,
    },
    /// Pin directory.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// A file operation.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// An interface of the plan.
#[derive(Debug)]
pub struct Attached {
    /// Kernel index; 0 while the interface is absent.
    pub ifindex: u32,
    /// Slot in `INTERFACES`, `REASONS` and `VLANS`.
    pub slot: u32,
    /// How the program is attached; `None`: the interface does not exist now.
    pub mode: Option<Mode>,
    /// The mode that the plan asked for when it was attached.
    wanted: AttachMode,
}

impl Attached {
    /// Whether it is in generic mode although the plan did not ask for that.
    #[must_use]
    pub fn fell_back(&self) -> bool {
        self.mode == Some(Mode::Generic) && self.wanted != AttachMode::Generic
    }
}

/// All interfaces of the plan, by name.
#[derive(Debug, Default)]
pub struct Interfaces {
    attached: BTreeMap<String, Attached>,
    /// Slots by ifindex that an earlier daemon gave.
    inherited: BTreeMap<u32, u32>,
}

impl Interfaces {
    /// With the slots that the map has, by ifindex.
    #[must_use]
    pub fn new(inherited: BTreeMap<u32, u32>) -> Self {
        Self { attached: BTreeMap::new(), inherited }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Attached)> {
        self.attached.iter().map(|(name, attached)| (name.as_str(), attached))
    }

    /// Brings the program to every interface that has none from us yet: those that are new in the plan, that appeared, or
    /// that were made anew. Answers those that were changed. On an error, what was attached in this call is detached
    /// again; replaced programs stay, as they are equal to the ones they replaced or newer.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn bring_up(
        &mut self,
        pins: &PinDirectory,
        meta: &Meta,
        wanted: &BTreeMap<String, Interface>,
        network: &Network,
    ) -> Result<Vec<String>, AttachError> {
        if wanted.len() > MAX_INTERFACES as usize {
            return Err(AttachError::TooMany { wanted: wanted.len() });
        }
        let mut steps = Vec::new();
        let mut adopted = Vec::new();
        let mut slots: BTreeSet<u32> = self.attached.values().map(|attached| attached.slot).collect();
        for (name, interface) in wanted {
            let link = network.link_named(name);
            if self.is_current(name, interface, link) {
                continue;
            }
            let slot = self.slot(name, link, &slots);
            slots.insert(slot);
            match (inspect(pins, name, link)?, link) {
                (Situation::Absent, _) | (_, None) => self.set_absent(name, slot, interface.mode),
                (Situation::Ours(xdp), Some(link))
                    if fits(interface.mode, xdp.mode)
                        && pins.build(&pins.program(name)) == Some(build_mark(link.ifindex, slot, xdp.program)) =>
                {
                    tracing::info!(
                        interface = name,
                        ifindex = link.ifindex,
                        mode = xdp.mode.name(),
                        "XDP program adopted"
                    );
                    let (ifindex, mode, wanted) = (link.ifindex, Some(xdp.mode), interface.mode);
                    self.attached.insert(name.clone(), Attached { ifindex, slot, mode, wanted });
                    adopted.push(name.clone());
                }
                (situation, Some(link)) => {
                    let purpose = Purpose { ifindex: link.ifindex, slot, explain: false };
                    let program = load::load(&pins.maps(), meta, purpose)
                        .map_err(|source| AttachError::Load { interface: name.clone(), source })?;
                    steps.push(Step {
                        interface: name.clone(),
                        ifindex: link.ifindex,
                        slot,
                        situation,
                        wanted: interface.mode,
                        driver: driver(link),
                        program,
                    });
                }
            }
        }
        let mut changed = self.carry_out(pins, steps)?;
        changed.append(&mut adopted);
        Ok(changed)
    }

    /// Whether the interface has what it should have.
    fn is_current(&self, name: &str, wanted: &Interface, link: Option<&Link>) -> bool {
        let Some(attached) = self.attached.get(name) else { return false };
        match link {
            None => attached.mode.is_none(),
            Some(link) => attached.mode.is_some() && attached.ifindex == link.ifindex && attached.wanted == wanted.mode,
        }
    }

    fn slot(&self, name: &str, link: Option<&Link>, taken: &BTreeSet<u32>) -> u32 {
        if let Some(attached) = self.attached.get(name) {
            return attached.slot;
        }
        let inherited = link.and_then(|link| self.inherited.get(&link.ifindex));
        let free =
            || (0..MAX_INTERFACES).find(|slot| !taken.contains(slot) && !self.inherited.values().any(|s| s == slot));
        let any = || (0..MAX_INTERFACES).find(|slot| !taken.contains(slot));
        inherited.copied().filter(|slot| !taken.contains(slot)).or_else(free).or_else(any).unwrap_or(0)
    }

    fn set_absent(&mut self, name: &str, slot: u32, wanted: AttachMode) {
        tracing::warn!(interface = name, "the interface does not exist; its program is attached when it appears");
        self.attached.insert(name.to_owned(), Attached { ifindex: 0, slot, mode: None, wanted });
    }

    fn carry_out(&mut self, pins: &PinDirectory, steps: Vec<Step>) -> Result<Vec<String>, AttachError> {
        let mut fresh: Vec<PathBuf> = Vec::new();
        let mut done: Vec<(String, Attached)> = Vec::new();
        for mut step in steps {
            match step.carry_out(pins, &mut fresh) {
                Ok(mode) => {
                    let attached =
                        Attached { ifindex: step.ifindex, slot: step.slot, mode: Some(mode), wanted: step.wanted };
                    done.push((step.interface, attached));
                }
                Err(error) => {
                    for link in fresh {
                        if let Err(source) = fs::remove_file(&link) {
                            tracing::error!(pin = %link.display(), error = %source, "cannot take the program off again");
                        }
                    }
                    return Err(error);
                }
            }
        }
        let names = done.iter().map(|(name, _)| name.clone()).collect();
        self.attached.extend(done);
        Ok(names)
    }

    /// Takes the program off interfaces that are not in the plan. Answers the slots that this leaves without an owner.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn take_down(
        &mut self,
        pins: &PinDirectory,
        wanted: &BTreeMap<String, Interface>,
    ) -> Result<Vec<u32>, AttachError> {
        let mut names: BTreeSet<String> = pins.linked()?.into_iter().collect();
        names.extend(self.attached.keys().cloned());
        let mut slots = Vec::new();
        for name in names.into_iter().filter(|name| !wanted.contains_key(name)) {
            remove_pin(&pins.link(&name))?;
            remove_pin(&pins.program(&name))?;
            pins.forget_build(&pins.program(&name))?;
            slots.extend(self.attached.remove(&name).map(|attached| attached.slot));
            tracing::info!(interface = name, "XDP program detached");
        }
        // Slots that an earlier daemon gave to interfaces that are not in this plan.
        let inherited = std::mem::take(&mut self.inherited).into_values();
        slots.extend(inherited.filter(|slot| self.attached.values().all(|attached| attached.slot != *slot)));
        Ok(slots)
    }

    /// Notes that an interface is gone. Says whether it had our program.
    pub fn on_gone(&mut self, ifindex: u32) -> bool {
        let Some((name, attached)) = self.attached.iter_mut().find(|(_, attached)| attached.ifindex == ifindex) else {
            return false;
        };
        tracing::warn!(
            interface = name,
            ifindex,
            "the interface is gone; its program is attached again when it is back"
        );
        attached.ifindex = 0;
        attached.mode = None;
        true
    }
}
