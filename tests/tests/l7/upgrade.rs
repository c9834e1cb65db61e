//! lbd is replaced by another program while requests run; a program that cannot take over changes nothing.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{Lb, Nginx, Requests, Topology, eventually};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{PATIENCE, SOON, config, is_alive, kept::Kept, replaced, serves, web, worker};

const GET: &str = "GET / HTTP/1.1\r\nHost: lb.test\r\n\r\n";

#[test]
fn three_upgrades_under_load_fail_no_request() -> Result<()> {
    let net = Topology::new("l7up").nodes(2).build()?;
    let _nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let mut lb = Lb::prepare(&net, &config(&net, ""))?.with_own_program()?;
    lb.launch()?;
    serves(&net)?;
    let load = Requests::start(net.client(), web(), 4, 0, PATIENCE)?;
    let kept = Kept::start(net.client(), web(), 4, GET, Duration::ZERO)?;
    // These are idle nearly all the time: nobody may close them without having said so.
    let idle = Kept::start(net.client(), web(), 4, GET, Duration::from_millis(700))?;
    let pid = lb.pid()?;
    for round in 1..=3 {
        load.wait_for_more(50, SOON)?;
        kept.wait_for_more(50, SOON)?;
        let before = worker(&lb)?;
        lb.install()?;
        if round == 2 {
            kill(Pid::from_raw(pid.cast_signed()), Signal::SIGUSR2)?;
        } else {
            lb.ctl(&["upgrade"])?;
        }
        eventually("the new program answers", SOON, || lb.status().is_ok_and(|status| status.upgrades == round))?;
        ensure!(lb.status()?.pid == pid, "another process");
        replaced(&lb, before)?;
        eventually("the worker of the program before has drained", SOON, || !is_alive(before))?;
        eventually("the spawner is of the new program", SOON, || {
            spawner(&lb).is_ok_and(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.exists()))
        })?;
    }
    load.wait_for_more(50, SOON)?;
    kept.wait_for_more(50, SOON)?;
    let (tally, kept, idle) = (load.stop()?, kept.stop()?, idle.stop()?);
    ensure!(tally.failures.is_empty() && tally.answered() > 200, "{tally:?}");
    ensure!(kept.failures.is_empty() && kept.answered > 200, "{kept:?}");
    ensure!(idle.failures.is_empty() && idle.connections <= 4 * 4, "{idle:?}");
    let log = lb.log();
    ensure!(!log.contains("ERROR"), "{log}");
    // A renewed spawner still knows the workers that it did not start itself.
    let before = worker(&lb)?;
    kill(Pid::from_raw(before), Signal::SIGKILL)?;
    replaced(&lb, before)?;
    eventually("lbd is told how it ended", SOON, || lb.log().contains("signal: SIGKILL"))?;
    Ok(())
}

/// The process that starts workers.
fn spawner(lb: &Lb<'_>) -> Result<u32> {
    let pid = lb.pid()?;
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let is_spawner =
        |pid: &&str| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|l| l.starts_with(b"lbd\0spawner\0"));
    Ok(children.split_whitespace().find(is_spawner).with_context(|| format!("no spawner in {children:?}"))?.parse()?)
}

#[test]
fn a_program_that_hangs_at_its_start_gives_way_to_the_one_before() -> Result<()> {
    let net = Topology::new("l7hang").nodes(1).build()?;
    let _nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let mut lb = Lb::prepare(&net, &config(&net, ""))?.with_own_program()?;
    lb.launch()?;
    serves(&net)?;
    let load = Requests::start(net.client(), web(), 2, 0, PATIENCE)?;
    let (pid, before) = (lb.pid()?, worker(&lb)?);
    // It waits for ever for somebody who writes its configuration.
    let (built, pipe) = (Lb::built_program()?, lb.directory().join("config.pipe"));
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU)?;
    lb.install_script(&format!(
        "[ \"$1\" = rehearse ] && exit 0\nfor last; do :; done\nexec {} --config {} --handover \"$last\"",
        built.display(),
        pipe.display()
    ))?;
    let failed = lb.lbctl(&["upgrade"])?;
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    ensure!(failed.status.code() == Some(1) && said.contains("had not started after"), "{failed:?}\n{}", lb.log());
    let status = lb.status()?;
    ensure!(status.pid == pid && status.upgrades == 0, "{status:?}");
    eventually("it has a worker of its own", SOON, || worker(&lb).is_ok_and(|pid| pid != before && is_alive(pid)))?;
    load.wait_for_more(50, SOON)?;
    lb.install()?;
    lb.ctl(&["upgrade"])?;
    ensure!(lb.status()?.upgrades == 1 && lb.status()?.upgrade_error.is_none(), "{:?}", lb.status()?);
    let tally = load.stop()?;
    ensure!(tally.failures.is_empty(), "{tally:?}");
    Ok(())
}

#[test]
fn a_rollback_installs_the_program_of_before_unless_lbd_refuses_it() -> Result<()> {
    let net = Topology::new("l7back").nodes(1).build()?;
    let _nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let mut lb = Lb::prepare(&net, &config(&net, ""))?.with_own_program()?;
    lb.launch()?;
    serves(&net)?;
    let load = Requests::start(net.client(), web(), 2, 0, PATIENCE)?;
    let (program, previous) = (lb.directory().join("lbd"), lb.directory().join("previous"));
    let arguments = ["--program".to_owned(), program.display().to_string(), "--previous".to_owned()];
    let upgrade = |more: &[&str]| {
        let mut command = lb.lbctl_command(&["upgrade"])?;
        anyhow::Ok(command.args(&arguments).arg(&previous).args(more).output()?)
    };
    let nothing = upgrade(&["--rollback"])?;
    ensure!(nothing.status.code() == Some(1), "nothing is kept yet: {nothing:?}");

    // What follows the program in its file is nothing to the kernel.
    let old = fs::read(&program)?;
    let new = [&old[..], b"newer"].concat();
    lb.install_bytes(&new)?;
    ensure!(upgrade(&[])?.status.success() && fs::read(previous.join("lbd"))? == old, "the program of before is kept");
    let back = upgrade(&["--rollback"])?;
    ensure!(back.status.success(), "{back:?}\n{}", lb.log());
    let files = || anyhow::Ok((fs::read(&program)?, fs::read(previous.join("lbd"))?));
    ensure!(files()? == (old.clone(), new.clone()) && lb.status()?.upgrades == 2);
    ensure!(fs::read(format!("/proc/{}/exe", lb.pid()?))? == old, "it runs");

    // Not written over: a worker may still run it.
    fs::remove_file(previous.join("lbd"))?;
    fs::write(previous.join("lbd"), "#!/bin/sh\nexit 1\n")?;
    ensure!(upgrade(&["--rollback"])?.status.code() == Some(5));
    ensure!(files()? == (old, b"#!/bin/sh\nexit 1\n".to_vec()), "nothing has changed");
    load.wait_for_more(50, SOON)?;
    let tally = load.stop()?;
    ensure!(tally.failures.is_empty(), "{tally:?}");
    Ok(())
}

#[test]
fn a_program_that_cannot_take_over_changes_nothing() -> Result<()> {
    let net = Topology::new("l7noup").nodes(1).build()?;
    let _nginx = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    let mut lb = Lb::prepare(&net, &config(&net, ""))?.with_own_program()?;
    lb.launch()?;
    serves(&net)?;
    let load = Requests::start(net.client(), web(), 2, 0, PATIENCE)?;
    let (pid, before) = (lb.pid()?, worker(&lb)?);

    // It says itself that it would not start.
    lb.install_script("echo 'the maps have another layout' >&2; exit 1")?;
    let refused = lb.lbctl(&["upgrade"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(5) && said.contains("the maps have another layout"), "{refused:?}");
    ensure!(worker(&lb)? == before && lb.status()?.upgrades == 0, "{:?}", lb.status()?);

    // It would, and does not: the program before is put back in its place, and says why.
    let built = Lb::built_program()?;
    lb.install_script(&format!(
        "[ \"$1\" = rehearse ] && exit 0\nfor last; do :; done\nexec {} --config /nowhere.toml --handover \"$last\"",
        built.display()
    ))?;
    let failed = lb.lbctl(&["upgrade"])?;
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    ensure!(failed.status.code() == Some(1) && said.contains("/nowhere.toml"), "{failed:?}\n{}", lb.log());
    let status = lb.status()?;
    ensure!(status.pid == pid && status.upgrades == 0, "{status:?}");
    ensure!(status.upgrade_error.is_some_and(|why| why.contains("/nowhere.toml")), "not told");
    load.wait_for_more(50, SOON)?;

    // The next one is as good as ever.
    lb.install()?;
    lb.ctl(&["upgrade"])?;
    ensure!(lb.status()?.upgrades == 1 && lb.status()?.upgrade_error.is_none(), "{:?}", lb.status()?);
    load.wait_for_more(50, SOON)?;
    let tally = load.stop()?;
    ensure!(tally.failures.is_empty(), "{tally:?}");
    Ok(())
}
