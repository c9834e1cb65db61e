//! A restart by a service manager that keeps descriptors meanwhile (`FDSTORE=1`, sd_notify(3)): clients wait, none is refused.

use std::{
    io::IoSliceMut,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{Lb, Nginx, Requests, Stop, Topology, http, wait::let_pass};
use nix::{
    cmsg_space,
    fcntl::{FcntlArg, fcntl},
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};

use super::{PATIENCE, SOON, config, serves, web, worker};

/// Above the numbers at which a service manager passes descriptors.
const ASIDE: RawFd = 200;

/// What was told, with the descriptors beside it.
fn told(lb: &Lb<'_>) -> Result<Vec<(String, Vec<OwnedFd>)>> {
    let mut all = Vec::new();
    loop {
        let (mut text, mut space) = ([0; 4096], cmsg_space!([RawFd; 253]));
        let mut slices = [IoSliceMut::new(&mut text)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<()>(lb.notified()?.as_raw_fd(), &mut slices, Some(&mut space), flags);
        let Ok(message) = received else { return Ok(all) };
        let (length, mut fds) = (message.bytes, Vec::new());
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                // SAFETY: the kernel has just made them for this process; nothing else knows of them.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        all.push((String::from_utf8_lossy(&text[..length]).into_owned(), fds));
    }
}

/// The descriptors that are to be kept, by name.
fn stored(lb: &Lb<'_>) -> Result<Vec<(String, OwnedFd)>> {
    let mut kept = Vec::new();
    for (text, fds) in told(lb)?.into_iter().filter(|(text, _)| text.starts_with("FDSTORE=1\n")) {
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).context("no name")?.to_owned();
        kept.extend(fds.into_iter().map(|fd| (name.clone(), fd)));
    }
    Ok(kept)
}

/// Lets lbd be started with descriptors as a service manager passes them (sd_listen_fds(3)), from what is returned.
fn pass(lb: &Lb<'_>, fds: &[(String, OwnedFd)]) -> Result<Vec<OwnedFd>> {
    let (mut redirections, mut inherited) = (String::new(), Vec::new());
    for (at, (_, fd)) in fds.iter().enumerate() {
        // Without FD_CLOEXEC: the shell gets them, and closes nothing of them.
        let aside = fcntl(fd, FcntlArg::F_DUPFD(ASIDE))?;
        // SAFETY: it has just been made, and nothing else knows of it.
        inherited.push(unsafe { OwnedFd::from_raw_fd(aside) });
        redirections.push_str(&format!(" {}<&{aside} {aside}<&-", 3 + at));
    }
    let names = fds.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(":");
    lb.install_script(&format!(
        "exec bash -c 'exec{redirections}; export LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={names}; exec {} \"$@\"' lbd \"$@\"",
        fds.len(),
        Lb::built_program()?.display(),
    ))?;
    Ok(inherited)
}

#[test]
fn a_restart_refuses_nobody_where_sockets_are_kept() -> Result<()> {
    let net = Topology::new("l7store").nodes(2).build()?;
    let _nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let mut lb = Lb::prepare(&net, &config(&net, ""))?.with_own_program()?;
    lb.launch()?;
    serves(&net)?;
    let before = worker(&lb)?;
    drop(told(&lb)?);
    let load = Requests::start(net.client(), web(), 4, 0, PATIENCE)?;
    load.wait_for_more(50, SOON)?;
    lb.stop(Stop::Graceful)?;
    let fds = stored(&lb)?;
    let names: Vec<_> = fds.iter().map(|(name, _)| name.as_str()).collect();
    ensure!(names == ["web", "web"], "one for each thread: {names:?}");
    // Nobody is there: clients wait.
    let_pass(Duration::from_millis(500));
    let inherited = pass(&lb, &fds)?;
    drop(fds);
    lb.launch()?;
    drop(inherited);
    load.wait_for_more(50, SOON)?;
    ensure!(worker(&lb)? != before, "no other worker");
    let forgotten = lb.said().iter().any(|text| text == "FDSTOREREMOVE=1\nFDNAME=web\n");
    ensure!(forgotten, "the service manager still has the sockets: {:?}", lb.said());
    let tally = load.stop()?;
    ensure!(tally.failures.is_empty() && tally.slowest > Duration::from_millis(500), "{tally:?}");

    // A socket that lbd closes is closed: nobody else holds it.
    lb.reload(&config(&net, "").replace("ports = 80", "ports = 81"))?;
    let refused = net.client().run(|| http::connect(web(), None, PATIENCE));
    ensure!(refused.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused), "the port is open");
    Ok(())
}
