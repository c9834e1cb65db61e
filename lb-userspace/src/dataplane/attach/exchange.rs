//! Another program behind the pinned link of an interface for a while, and the pinned one back: in one step each, so that no
//! packet sees the interface without a program.

use std::path::Path;

use aya::programs::{
    Xdp,
    links::{FdLink, PinnedLink},
    xdp::XdpLink,
};
use aya_obj::programs::XdpAttachType;

use super::AttachError;
use crate::dataplane::{load::Program, pins::PinDirectory};

/// Puts a program in the place of the pinned one. Answers its id.
///
/// # Errors
/// When there is no link, or the kernel refuses; then nothing has changed.
pub fn exchange(pins: &PinDirectory, interface: &str, program: &mut Program) -> Result<u32, AttachError> {
    let link = open(&pins.link(interface))?;
    let load = |source| AttachError::Load { interface: interface.to_owned(), source };
    let xdp = program.xdp().map_err(load)?;
    attach(interface, xdp, link, &pins.link(interface))?;
    let info = xdp.info().map_err(|source| AttachError::Refused { interface: interface.to_owned(), source })?;
    Ok(info.id())
}

/// Puts the pinned program back in the place of the one with that id; leaves every other one, and an interface without a link.
///
/// # Errors
/// As [`exchange`].
pub fn put_back(pins: &PinDirectory, interface: &str, id: u32) -> Result<(), AttachError> {
    let path = pins.link(interface);
    if !path.exists() {
        return Ok(());
    }
    let link = open(&path)?;
    let found = link.info().map_err(|source| AttachError::Link { path: path.clone(), source })?;
    if found.program_id() != id {
        return Ok(());
    }
    let refused = |source| AttachError::Refused { interface: interface.to_owned(), source };
    let mut pinned = Xdp::from_pin(pins.program(interface), XdpAttachType::Interface).map_err(refused)?;
    attach(interface, &mut pinned, link, &path)
}

pub(super) fn open(path: &Path) -> Result<FdLink, AttachError> {
    let failed = |source| AttachError::Link { path: path.to_owned(), source };
    Ok(FdLink::from(PinnedLink::from_pin(path).map_err(failed)?))
}

/// Through the link (`BPF_LINK_UPDATE`).
pub(super) fn attach(interface: &str, xdp: &mut Xdp, link: FdLink, path: &Path) -> Result<(), AttachError> {
    let link = XdpLink::try_from(link).map_err(|source| AttachError::Link { path: path.to_owned(), source })?;
    xdp.attach_to_link(link).map_err(|source| AttachError::Refused { interface: interface.to_owned(), source })?;
    Ok(())
}
