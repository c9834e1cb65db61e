//! The XDP programs on interfaces: one instance each, attached by a pinned link, replaced through that link and never
//! detached for a replacement. Everything that can be refused is looked at before anything is changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    pin::PinError,
    programs::{
        ProgramError, XdpMode,
        links::{FdLink, LinkError, PinnedLink},
        loaded_programs,
        xdp::XdpLink,
    },
};
use lb_common::maps::{MAX_INTERFACES, Meta};

use super::{
    load::{self, LoadError, Program, Purpose},
    network::{Link, Mode, Network},
    pins::{PinDirectory, PinsError},
};
use crate::control::plan::{AttachMode, Interface};

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

/// What was found on an interface before anything is changed.
#[derive(Clone, Copy)]
enum Situation {
    Absent,
    /// No program; a pinned link there may be is stale.
    Free,
    /// Our program, by our pinned link.
    Ours(Mode),
}

/// A program ready to be put on an interface.
struct Step {
    interface: String,
    ifindex: u32,
    slot: u32,
    situation: Situation,
    wanted: AttachMode,
    driver: String,
    program: Program,
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
        self.carry_out(pins, steps)
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

    /// Takes the program off interfaces that are not in the plan. Answers their slots.
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
            slots.extend(self.attached.remove(&name).map(|attached| attached.slot));
            tracing::info!(interface = name, "XDP program detached");
        }
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

impl Step {
    /// Puts the program on the interface and pins it. New links are added to `fresh`.
    fn carry_out(&mut self, pins: &PinDirectory, fresh: &mut Vec<PathBuf>) -> Result<Mode, AttachError> {
        let link_pin = pins.link(&self.interface);
        let mode = match self.situation {
            Situation::Ours(mode) if fits(self.wanted, mode) => {
                self.replace(&link_pin)?;
                mode
            }
            // Another mode was configured: the kernel cannot change it in place.
            Situation::Ours(mode) => self.attach_anew(&link_pin, mode)?,
            Situation::Free | Situation::Absent => {
                remove_pin(&link_pin)?;
                let (link, mode) = self.attach()?;
                pin_link(link, &link_pin)?;
                fresh.push(link_pin);
                mode
            }
        };
        self.pin_program(pins)?;
        tracing::info!(
            interface = self.interface,
            ifindex = self.ifindex,
            mode = mode.name(),
            replaced = matches!(self.situation, Situation::Ours(_)),
            "XDP program attached"
        );
        Ok(mode)
    }

    /// Exchanges the program behind the pinned link in one step: no packet sees the interface without one.
    fn replace(&mut self, pin: &Path) -> Result<(), AttachError> {
        let failed = |source| AttachError::Link { path: pin.to_owned(), source };
        let link = FdLink::from(PinnedLink::from_pin(pin).map_err(failed)?);
        let link = XdpLink::try_from(link).map_err(failed)?;
        let interface = self.interface.clone();
        let xdp = self.program.xdp().map_err(|source| AttachError::Load { interface: interface.clone(), source })?;
        xdp.attach_to_link(link).map_err(|source| AttachError::Refused { interface, source })?;
        Ok(())
    }

    /// Detaches and attaches in the wanted mode; in the mode there was, when that fails.
    fn attach_anew(&mut self, pin: &Path, before: Mode) -> Result<Mode, AttachError> {
        remove_pin(pin)?;
        match self.attach() {
            Ok((link, mode)) => pin_link(link, pin).map(|()| mode),
            Err(error) => {
                let mode = if before == Mode::Native { XdpMode::Driver } else { XdpMode::Skb };
                let link = self.attach_in(mode).map_err(|error| self.refused(error))?;
                pin_link(link, pin)?;
                Err(error)
            }
        }
    }

    fn attach(&mut self) -> Result<(FdLink, Mode), AttachError> {
        if self.wanted != AttachMode::Generic {
            match self.attach_in(XdpMode::Driver) {
                Ok(link) => return Ok((link, Mode::Native)),
                Err(error) => self.native_refused(error)?,
            }
        }
        let link = self.attach_in(XdpMode::Skb).map_err(|error| self.refused(error))?;
        Ok((link, Mode::Generic))
    }

    /// With `auto`, a warning; otherwise an error.
    fn native_refused(&self, error: ProgramError) -> Result<(), AttachError> {
        let ProgramError::SyscallError(error) = error else { return Err(self.refused(error)) };
        if is_busy(&error.io_error) {
            return Err(self.refused(error.into()));
        }
        let (interface, driver) = (self.interface.clone(), self.driver.clone());
        if self.wanted == AttachMode::Native {
            return Err(AttachError::Native { interface, driver, source: error.io_error });
        }
        tracing::warn!(
            interface,
            driver,
            error = %error.io_error,
            "the driver refuses XDP; falling back to the slow generic mode"
        );
        Ok(())
    }

    fn refused(&self, error: ProgramError) -> AttachError {
        let interface = self.interface.clone();
        if let ProgramError::SyscallError(error) = &error
            && is_busy(&error.io_error)
        {
            return AttachError::Busy { interface, program: "attached a moment ago".to_owned() };
        }
        AttachError::Refused { interface, source: error }
    }

    fn attach_in(&mut self, mode: XdpMode) -> Result<FdLink, ProgramError> {
        // `carry_out` has the program only when `xdp` succeeded before (`load` checks it).
        let xdp = self.program.xdp().map_err(|_| ProgramError::NotLoaded)?;
        let id = xdp.attach_to_if_index(self.ifindex, mode)?;
        FdLink::try_from(xdp.take_link(id)?).map_err(|_| ProgramError::UnexpectedProgramType)
    }

    /// The pin is exchanged by renaming, so that it always leads to a program.
    fn pin_program(&mut self, pins: &PinDirectory) -> Result<(), AttachError> {
        let interface = self.interface.clone();
        let path = pins.program(&interface);
        let xdp = self.program.xdp().map_err(|source| AttachError::Load { interface, source })?;
        pin_program(xdp, &path)
    }
}

/// Pins a program at `path`, in the place of an older one.
///
/// # Errors
/// What the BPF file system says.
pub fn pin_program(program: &mut aya::programs::Xdp, path: &Path) -> Result<(), AttachError> {
    let new = path.with_file_name("new-program");
    remove_pin(&new)?;
    program.pin(&new).map_err(|source| AttachError::Pin { path: new.clone(), source })?;
    fs::rename(&new, path).map_err(|source| AttachError::Io { path: path.to_owned(), source })
}

fn pin_link(link: FdLink, path: &Path) -> Result<(), AttachError> {
    link.pin(path).map(|_| ()).map_err(|source| AttachError::Pin { path: path.to_owned(), source })
}

fn fits(wanted: AttachMode, mode: Mode) -> bool {
    match wanted {
        AttachMode::Auto => true,
        AttachMode::Native => mode == Mode::Native,
        AttachMode::Generic => mode == Mode::Generic,
    }
}

fn inspect(pins: &PinDirectory, name: &str, link: Option<&Link>) -> Result<Situation, AttachError> {
    let Some(link) = link else { return Ok(Situation::Absent) };
    let Some(xdp) = link.xdp else { return Ok(Situation::Free) };
    let pin = pins.link(name);
    if pin.exists() {
        let failed = |source| AttachError::Link { path: pin.clone(), source };
        let pinned = FdLink::from(PinnedLink::from_pin(&pin).map_err(failed)?);
        if pinned.info().map_err(failed)?.program_id() == xdp.program {
            return Ok(Situation::Ours(xdp.mode));
        }
    }
    Err(AttachError::Busy { interface: name.to_owned(), program: program_name(xdp.program) })
}

fn program_name(id: u32) -> String {
    let info = loaded_programs().filter_map(Result::ok).find(|info| info.id() == id);
    match info.as_ref().and_then(|info| info.name_as_str()) {
        Some(name) => format!("id {id}, named {name:?}"),
        None => format!("id {id}"),
    }
}

fn driver(link: &Link) -> String {
    let path = Path::new("/sys/class/net").join(&link.name).join("device/driver");
    let driver = fs::read_link(path).ok().and_then(|target| Some(target.file_name()?.to_string_lossy().into_owned()));
    driver.or_else(|| link.kind.clone()).unwrap_or_else(|| "unknown".to_owned())
}

fn is_busy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
}

fn remove_pin(path: &Path) -> Result<(), AttachError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(AttachError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}
