//! One interface: what is found on it, and putting the program there.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::programs::{
    ProgramError, XdpMode,
    links::{FdLink, PinnedLink},
    loaded_programs,
};

use super::{
    AttachError,
    exchange::{attach, open},
};
use crate::{
    control::plan::AttachMode,
    dataplane::{
        load::{self, Program},
        network::{Link, Mode, Xdp},
        pins::PinDirectory,
    },
};

/// What was found on an interface before anything is changed.
#[derive(Clone, Copy)]
pub(super) enum Situation {
    Absent,
    /// No program; a pinned link there may be is stale.
    Free,
    /// Our program, by our pinned link.
    Ours(Xdp),
}

/// A program ready to be put on an interface.
pub(super) struct Step {
    pub(super) interface: String,
    pub(super) ifindex: u32,
    pub(super) slot: u32,
    pub(super) situation: Situation,
    pub(super) wanted: AttachMode,
    pub(super) driver: String,
    pub(super) program: Program,
}

impl Step {
    /// Puts the program on the interface and pins it. New links are added to `fresh`.
    pub(super) fn carry_out(&mut self, pins: &PinDirectory, fresh: &mut Vec<PathBuf>) -> Result<Mode, AttachError> {
        let link_pin = pins.link(&self.interface);
        let mode = match self.situation {
            Situation::Ours(Xdp { mode, .. }) if fits(self.wanted, mode) => {
                self.replace(&link_pin)?;
                mode
            }
            // Another mode was configured: the kernel cannot change it in place.
            Situation::Ours(Xdp { mode, .. }) => self.attach_anew(&link_pin, mode)?,
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
        let interface = self.interface.clone();
        let xdp = self.program.xdp().map_err(|source| AttachError::Load { interface: interface.clone(), source })?;
        attach(&interface, xdp, open(pin)?, pin)
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
        let (ifindex, slot) = (self.ifindex, self.slot);
        let xdp = self.program.xdp().map_err(|source| AttachError::Load { interface: interface.clone(), source })?;
        pin_program(xdp, &path)?;
        let info = xdp.info().map_err(|source| AttachError::Refused { interface: interface.clone(), source })?;
        pins.set_build(&path, &build_mark(ifindex, slot, info.id()))?;
        Ok(())
    }
}

/// What is noted beside a pinned program: the object it came from, the constants it was loaded with, and its id. Where a
/// restarted daemon finds the note that it would write itself, it need not load the program again.
#[must_use]
pub fn build_mark(ifindex: u32, slot: u32, program: u32) -> String {
    format!("{:016x}-{ifindex}-{slot}-{program}", load::build())
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

pub(super) fn fits(wanted: AttachMode, mode: Mode) -> bool {
    match wanted {
        AttachMode::Auto => true,
        AttachMode::Native => mode == Mode::Native,
        AttachMode::Generic => mode == Mode::Generic,
    }
}

pub(super) fn inspect(pins: &PinDirectory, name: &str, link: Option<&Link>) -> Result<Situation, AttachError> {
    let Some(link) = link else { return Ok(Situation::Absent) };
    let Some(xdp) = link.xdp else { return Ok(Situation::Free) };
    let pin = pins.link(name);
    if pin.exists() {
        let failed = |source| AttachError::Link { path: pin.clone(), source };
        let pinned = FdLink::from(PinnedLink::from_pin(&pin).map_err(failed)?);
        if pinned.info().map_err(failed)?.program_id() == xdp.program {
            return Ok(Situation::Ours(xdp));
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

pub(super) fn driver(link: &Link) -> String {
    let path = Path::new("/sys/class/net").join(&link.name).join("device/driver");
    let driver = fs::read_link(path).ok().and_then(|target| Some(target.file_name()?.to_string_lossy().into_owned()));
    driver.or_else(|| link.kind.clone()).unwrap_or_else(|| "unknown".to_owned())
}

fn is_busy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
}

pub(super) fn remove_pin(path: &Path) -> Result<(), AttachError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(AttachError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}
