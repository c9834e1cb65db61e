//! Real threads and datagrams over loopback.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    sync::LazyLock,
    time::{Duration, Instant},
};

use super::{Host, Unmoved};
use crate::failover::{
    Error,
    cluster::{Command, Group, Incident, Machine, Paths},
    election::{MachineId, Role},
    heartbeat::{Boot, Key},
};

/// What `Host` starts beside its thread runs while something is waited for on it.
static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());

fn host(index: u64, ports: [u16; 2], state: &tempfile::TempDir) -> Host {
    let address = |index: usize| SocketAddr::from(([127, 0, 0, 1], ports[index]));
    let own = usize::try_from(index).unwrap();
    let machine = Machine {
        id: MachineId(index + 1),
        boot: Boot(index + 1_000),
        keys: vec![Key::new(1, b"a key of the cluster")],
        names: BTreeMap::new(),
        interval: Duration::from_millis(20),
        misses: 3,
        resumes: BTreeSet::new(),
    };
    let paths = Paths { listen: vec![address(own)], peers: vec![address(1 - own)] };
    let host = started(state.path(), machine, paths).unwrap();
    drop(host.addresses(BTreeSet::new(), BTreeMap::new()));
    host
}

fn started(state_dir: &Path, machine: Machine, paths: Paths) -> Result<Host, Error> {
    let _entered = RUNTIME.enter();
    Host::start(state_dir, machine, paths, None, || Ok(()))
}

fn group(priority: u8) -> Command {
    let group = Group { name: "web".into(), priority, failback: true, failback_delay: Duration::from_millis(100) };
    Command::Groups(vec![group])
}

fn free_ports() -> [u16; 2] {
    let sockets = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    sockets.each_ref().map(|socket| socket.local_addr().unwrap().port())
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen within 5 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn role(host: &Host) -> Role {
    host.status().groups.first().map_or(Role::Idle, |group| group.role)
}

#[test]
fn two_machines_elect_move_and_leave_over_real_sockets() {
    let state = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let ports = free_ports();
    let mut first = host(0, ports, &state[0]);
    let second = host(1, ports, &state[1]);
    first.command(group(200));
    second.command(group(100));
    wait_for("the election", || role(&first) == Role::Active && role(&second) == Role::Backup);
    let move_group = |host: &Host, to| RUNTIME.block_on(host.move_group("web", to));
    assert_eq!(move_group(&second, None), Err(Unmoved::NotOwner));
    assert_eq!(move_group(&first, Some(MachineId(7))), Err(Unmoved::NoSuccessor));
    assert_eq!(move_group(&first, None), Ok(()));
    wait_for("the move", || role(&second) == Role::Active && role(&first) == Role::Backup);
    wait_for("the failback", || role(&first) == Role::Active && role(&second) == Role::Backup);
    let mut incidents = first.incidents().unwrap();
    RUNTIME.block_on(first.leave());
    wait_for("the takeover", || role(&second) == Role::Active);
    let mut transitions = 0;
    while let Ok(incident) = incidents.try_recv() {
        transitions += usize::from(matches!(incident, Incident::Transition { .. }));
    }
    assert_eq!(transitions, 4, "owner, moved away, back, left");
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_it() {
    let state = tempfile::tempdir().unwrap();
    let machine = Machine {
        id: MachineId(1),
        boot: Boot(1),
        keys: vec![],
        names: BTreeMap::new(),
        interval: Duration::from_millis(100),
        misses: 3,
        resumes: BTreeSet::new(),
    };
    let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let paths = Paths { listen: vec![taken], peers: vec![] };
    let error = started(state.path(), machine, paths).unwrap_err().to_string();
    assert!(error.contains(&taken.to_string()), "{error}");
}

#[test]
fn a_machine_that_cannot_send_says_so_and_still_owns_when_nobody_else_is_there() {
    let state = tempfile::tempdir().unwrap();
    let machine = Machine {
        id: MachineId(1),
        boot: Boot(1),
        keys: vec![Key::new(1, b"a key of the cluster")],
        names: BTreeMap::new(),
        interval: Duration::from_millis(20),
        misses: 3,
        resumes: BTreeSet::new(),
    };
    // The kernel refuses to send to a broadcast address without being asked to.
    let paths =
        Paths { listen: vec!["127.0.0.1:0".parse().unwrap()], peers: vec!["255.255.255.255:3780".parse().unwrap()] };
    let host = started(state.path(), machine, paths).unwrap();
    drop(host.addresses(BTreeSet::new(), BTreeMap::new()));
    host.command(group(100));
    wait_for("the fault", || host.status().fault.is_some_and(|fault| fault.starts_with("heartbeats: ")));
    wait_for("the election", || role(&host) == Role::Active);
}
