//! What the worker and the spawner could still do if somebody took them over.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{Lb, Nginx, Topology};

use super::{config, serves};

const NOBODY: u32 = 65_534;

#[test]
fn the_kernel_refuses_a_worker_whatever_serving_does_not_need() -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let program = dir.path().join("lbd");
    fs::copy(Lb::built_program()?, &program)?;
    let output = Command::new(&program).arg("confined").uid(NOBODY).gid(NOBODY).env_clear().output()?;
    let told = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<(&str, &str)> = told.lines().filter_map(|line| line.split_once('\t')).collect();
    ensure!(lines.len() == 24, "{told}");
    for (what, outcome) in lines {
        // Landlock says EACCES; the filter of system calls EPERM.
        let expected = match what {
            "socket of TCP" | "connect" | "memory" => "ok",
            _ if what.starts_with("landlock") => "EACCES: Permission denied",
            _ => "EPERM: Operation not permitted",
        };
        ensure!(outcome == expected, "{what}: {outcome}\n{told}");
    }
    Ok(())
}

#[test]
fn a_worker_is_not_shut_in_as_root() -> Result<()> {
    let output = Command::new(Lb::built_program()?).arg("confined").output()?;
    ensure!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    Ok(())
}

#[test]
fn the_spawner_keeps_what_it_needs() -> Result<()> {
    let net = Topology::new("l7spawn").nodes(1).build()?;
    let _nginx = Nginx::start(&net.nodes[0], &[80])?;
    let lb = net.start_lb(&config(&net, ""))?;
    serves(&net)?;
    let pid = lb.pid()?;
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let is_spawner = |pid: &&str| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == b"lbd\0spawner\0");
    let spawner =
        children.split_whitespace().find(is_spawner).with_context(|| format!("no spawner in {children:?}"))?;
    let status = fs::read_to_string(format!("/proc/{spawner}/status"))?;
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t")).map(str::to_owned);
    // SETUID, SETGID, KILL, and the six of lbd (its failover thread has real-time priority).
    let kept = [5, 6, 7, 10, 12, 13, 23, 38, 39].map(|capability| 1_u64 << capability).iter().sum::<u64>();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        ensure!(field(set) == Some(format!("{kept:016x}")), "{set}: {status}");
    }
    ensure!(field("NoNewPrivs").as_deref() == Some("1") && field("Seccomp").as_deref() == Some("2"), "{status}");
    Ok(())
}
