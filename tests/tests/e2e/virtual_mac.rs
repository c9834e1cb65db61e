//! VIP groups with a virtual MAC address: neighbours never learn another one, whatever happens to the machines.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lb::control::view::VipState;
use lb_tests::harness::{
    EchoServer, Host, Lb, LiveStreams, Net, Nginx, Stop, Topology, eventually, http,
    raw::RawSocket,
    topology::{vip4, vip6},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::NamedTempFile;

use super::{failover::children, support::SOON};

const ECHO: u16 = 7;
const TRANSLATED: u16 = 8007;
const PAGE: u16 = 80;
const STREAMS: usize = 20;
pub(crate) const MAC4: &str = "00:00:5e:00:01:2a";
pub(crate) const MAC6: &str = "00:00:5e:00:02:2a";
const GROUPS: [&str; 2] = ["web", "web6"];

fn network(name: &str) -> Result<Net> {
    Topology::new(name).pair().nodes(2).dsr(&[vip4(1), vip6(1)]).build()
}

/// One group for each family with the same id; DSR, NAT and the proxy behind it.
fn config(net: &Net, priority: u8, virtual_mac: bool) -> String {
    let group = |name: &str, vip: IpAddr| {
        format!(
            "[vip.{name}]\naddresses = [\"{vip}\"]\ninterface = \"eth0\"\nmode = \"failover\"\npriority = {priority}\n\
             failback_delay = \"1ms\"\n\
             router = {{ protocol = \"vrrp\", id = 42, interval = \"100ms\", virtual_mac = {virtual_mac} }}\n"
        )
    };
    let nodes = |port: u16| {
        let node = |node: &Host| {
            let (name, v4, v6) =
                (&node.name, SocketAddr::new(node.v4.into(), port), SocketAddr::new(node.v6.into(), port));
            format!("node.{name} = {{ address = \"{v4}\" }}\nnode.{name}6 = {{ address = \"{v6}\" }}\n")
        };
        net.nodes.iter().map(node).collect::<String>()
    };
    let server = |name: &str, protocol: &str, port: u16, pool: &str| {
        format!(
            "[virtual_server.{name}]\nvips = [\"web\", \"web6\"]\nprotocol = \"{protocol}\"\nports = {port}\npool = \"{name}\"\n\
             [pool.{name}]\n{pool}\n{}",
            nodes(if protocol == "http" { 8080 } else { ECHO })
        )
    };
    format!(
        "[interface.eth0]\n[proxy]\nthreads = 1\n{}{}{}{}{}{}",
        group("web", vip4(1)),
        group("web6", vip6(1)),
        server("echo", "tcp", ECHO, "forwarding = \"dsr\"\nscheduler = \"maglev\""),
        server("datagrams", "udp", ECHO, "forwarding = \"dsr\"\nscheduler = \"maglev\""),
        server("translated", "tcp", TRANSLATED, "forwarding = \"nat\"\nsource_nat = true"),
        server("page", "http", PAGE, "forwarding = \"proxy\""),
    )
}

fn second(net: &Net) -> &Host {
    net.second.as_ref().expect("a pair has a second balancer")
}

fn states(lb: &Lb<'_>) -> BTreeSet<String> {
    let view = lb.vips().map(|view| view.groups).unwrap_or_default();
    view.iter().map(|group| format!("{:?}", group.state)).collect()
}

fn all(lb: &Lb<'_>, state: VipState) -> bool {
    states(lb) == BTreeSet::from([format!("{state:?}")])
}

/// The macvlans of a machine, and which of them are up.
fn macvlans(host: &Host) -> Result<Vec<(String, bool)>> {
    let links: serde_json::Value = serde_json::from_str(&host.sh("ip -d -j link show type macvlan")?)?;
    let links = links.as_array().into_iter().flatten().filter(|link| link["ifname"].is_string());
    Ok(links
        .map(|link| {
            let is_up = link["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "UP"));
            (link["ifname"].as_str().unwrap_or_default().to_owned(), is_up)
        })
        .collect())
}

/// Whether both macvlans of a machine are there, and are all up or all down.
fn are(host: &Host, up: bool) -> bool {
    macvlans(host).is_ok_and(|found| found.len() == GROUPS.len() && found.iter().all(|(_, is_up)| *is_up == up))
}

/// What a client learns of its neighbours, from the start.
pub(crate) struct Learnt {
    monitor: Child,
    log: NamedTempFile,
}

impl Learnt {
    pub(crate) fn start(client: &Host) -> Result<Self> {
        let log = NamedTempFile::new()?;
        let mut command = Command::new("ip");
        command.args(["-o", "monitor", "neigh"]).stdin(Stdio::null()).stdout(File::create(log.path())?);
        Ok(Self { monitor: client.start(&mut command)?, log })
    }

    /// The MAC addresses that a VIP was at.
    pub(crate) fn of(&self, vip: IpAddr) -> Result<BTreeSet<String>> {
        let text = fs::read_to_string(self.log.path())?;
        let lines = text.lines().filter(|line| line.split_whitespace().any(|word| word == vip.to_string()));
        let mac = |line: &str| line.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).map(str::to_owned);
        Ok(lines.filter_map(mac).collect())
    }
}

impl Drop for Learnt {
    fn drop(&mut self) {
        // It has ended, or is ended here.
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
    }
}

/// Who answers when a client asks for a VIP by ARP: all of them.
fn who_has(client: &Host, vip: [u8; 4]) -> Result<BTreeSet<String>> {
    let own: Vec<u8> =
        client.mac("eth0")?.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    let IpAddr::V4(address) = IpAddr::from(client.v4) else { unreachable!("an IPv4 address") };
    let sender = address.octets();
    let frame =
        [&[0xff; 6][..], &own, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &own, &sender, &[0; 6], &vip, &[0; 18]].concat();
    client.run(|| {
        let socket = RawSocket::open("eth0", Duration::from_millis(20))?;
        socket.send(&frame)?;
        let (start, mut buffer, mut found) = (Instant::now(), [0; 2048], BTreeSet::new());
        // Longer when nobody has answered yet: a busy machine is slow.
        while start.elapsed() < Duration::from_millis(300) || (found.is_empty() && start.elapsed() < SOON) {
            let Some(frame) = socket.receive(&mut buffer)? else { continue };
            if frame.len() >= 42 && frame[12..14] == [8, 6] && frame[20..22] == [0, 2] && frame[28..32] == vip {
                ensure!(frame[6..12] == frame[22..28], "an answer from another address than it names");
                let mac: Vec<String> = frame[22..28].iter().map(|byte| format!("{byte:02x}")).collect();
                found.insert(mac.join(":"));
            }
        }
        Ok(found)
    })
}

/// Two machines with the groups on the first, clients' streams through both families, and what a client learns.
struct Site<'n> {
    net: &'n Net,
    first: Lb<'n>,
    second: Lb<'n>,
    streams: [LiveStreams; 2],
    learnt: Learnt,
    _echoes: Vec<EchoServer>,
    _pages: Vec<Nginx>,
}

impl<'n> Site<'n> {
    fn start(net: &'n Net) -> Result<Self> {
        let echoes = net.nodes.iter().map(|node| EchoServer::start(node, ECHO)).collect::<Result<Vec<_>>>()?;
        let pages = net.nodes.iter().map(|node| Nginx::start(node, &[8080])).collect::<Result<Vec<_>>>()?;
        let learnt = Learnt::start(net.client())?;
        let first = Lb::start(net, &config(net, 200, true))?;
        eventually("the first machine owns alone", SOON, || all(&first, VipState::Active))?;
        let second_lb = Lb::start_on(net, second(net), &config(net, 100, true))?;
        for lb in [&first, &second_lb] {
            lb.wait_for_next_hops("echo")?;
            lb.wait_for_next_hops("translated")?;
        }
        let stream = |vip| LiveStreams::start(net.client(), SocketAddr::new(vip, ECHO), STREAMS);
        let streams = [stream(vip4(1))?, stream(vip6(1))?];
        let site = Self { net, first, second: second_lb, streams, learnt, _echoes: echoes, _pages: pages };
        site.is_served_by(0).context("at the start")?;
        Ok(site)
    }

    fn machines(&self) -> [&'n Host; 2] {
        [&self.net.balancer, second(self.net)]
    }

    /// Waits until one machine has everything, and everything works with neighbours that know nothing and ones that do.
    fn is_served_by(&self, owner: usize) -> Result<()> {
        let lbs = [&self.first, &self.second];
        eventually("one machine owns both groups", 2 * SOON, || {
            all(lbs[owner], VipState::Active) && !states(lbs[1 - owner]).contains("Active")
        })?;
        for (index, host) in self.machines().into_iter().enumerate() {
            eventually("the owner's macvlans are up, the other's down", SOON, || are(host, index == owner))
                .with_context(|| format!("{:?}", macvlans(host)))?;
        }
        self.works()
    }

    fn works(&self) -> Result<()> {
        for streams in &self.streams {
            streams.all_go_on(3, 2 * SOON)?;
        }
        let client = self.net.client();
        ensure!(who_has(client, [10, 1, 1, 1])? == BTreeSet::from([MAC4.to_owned()]), "who answers ARP for the VIP");
        client.ip(&["neigh flush dev eth0".to_owned()])?;
        for vip in [vip4(1), vip6(1)] {
            for port in [PAGE, ECHO, TRANSLATED] {
                let target = SocketAddr::new(vip, port);
                eventually(&format!("{target} answers"), SOON, || {
                    client.run(|| match port {
                        PAGE => http::get(target, None, "/", Duration::from_secs(1)).is_ok(),
                        _ => http::connect(target, None, Duration::from_secs(1)).is_ok(),
                    })
                })?;
            }
        }
        Ok(())
    }

    /// Nothing broke, and no client ever learnt another MAC address.
    fn nothing_changed(&self) -> Result<()> {
        for streams in &self.streams {
            ensure!(streams.broken().is_empty(), "{:?}", streams.broken());
        }
        for (vip, mac) in [(vip4(1), MAC4), (vip6(1), MAC6)] {
            let learnt = self.learnt.of(vip)?;
            ensure!(learnt == BTreeSet::from([mac.to_owned()]), "{vip} was at {learnt:?}");
        }
        Ok(())
    }

    fn move_away(&self, lb: &Lb<'_>) -> Result<()> {
        GROUPS.iter().try_for_each(|group| lb.ctl(&["vip", "failover", group]).map(drop))
    }
}

#[test]
fn neighbours_know_one_mac_address_over_all_failovers() -> Result<()> {
    let net = network("vmac-failovers")?;
    let mut site = Site::start(&net)?;
    let text = site.first.ctl(&["vip", "status"])?;
    ensure!(text.contains("VIRTUAL MAC") && text.contains(MAC4) && text.contains(MAC6), "{text}");

    site.first.ctl(&["vip", "maintenance", "on"])?;
    site.is_served_by(1).context("maintenance")?;
    site.first.ctl(&["vip", "maintenance", "off"])?;
    site.is_served_by(0).context("back from maintenance")?;

    net.pull_cable("lb")?;
    // The first one hears of nobody who could take the groups, and nobody hears it.
    eventually("the second machine owns when the cable is pulled", SOON, || all(&site.second, VipState::Active))?;
    site.works().context("the cable is pulled")?;
    net.plug_cable("lb")?;
    site.is_served_by(0).context("it is plugged in again")?;

    site.first.stop(Stop::Kill)?;
    let gone = || macvlans(&net.balancer).is_ok_and(|found| found.is_empty());
    eventually("the guard has taken the macvlans away", SOON, gone)?;
    eventually("the second machine owns", SOON, || all(&site.second, VipState::Active))?;
    site.works().context("lbd is killed")?;
    site.first.launch()?;
    site.is_served_by(0).context("lbd is back")?;
    site.move_away(&site.first).context("a move")?;
    eventually("they were moved", SOON, || {
        site.first.vips().is_ok_and(|view| view.groups.iter().all(|group| group.transitions.unwrap_or(0) >= 2))
    })?;
    site.is_served_by(0).context("the better machine takes them back")?;
    site.nothing_changed()
}

#[test]
fn what_a_dead_lbd_and_its_dead_guard_leave_is_silent_and_goes_before_anything_is_said() -> Result<()> {
    let net = network("vmac-left")?;
    let mut site = Site::start(&net)?;
    for child in children(&site.first)? {
        // The worker and the spawner end by themselves as well.
        let _ = kill(child, Signal::SIGKILL);
    }
    kill(Pid::from_raw(site.first.pid()?.cast_signed()), Signal::SIGKILL)?;
    eventually("the second machine owns", SOON, || all(&site.second, VipState::Active))?;
    if are(&net.balancer, true) {
        ensure!(net.balancer.has_address(vip4(1))?, "nobody was left to take it down");
    }
    site.works().context("two machines have the address now, and one speaks")?;
    site.first.stop(Stop::Kill)?;
    // It has a better peer when it comes back.
    let ears = net.switch().run(|| RawSocket::open("lb.eth0", Duration::from_millis(5)))?;
    site.first.configure(&config(&net, 50, true))?;
    site.first.launch()?;
    site.is_served_by(1).context("lbd is back, and worse")?;
    let (mut buffer, mut said) = ([0; 2048], 0);
    while let Some(frame) = ears.try_receive(&mut buffer)? {
        said += usize::from(frame.len() > 24 && frame[6..12] == [0, 0, 0x5e, 0, 1, 42] && frame[23] == 112);
    }
    // What the other one says to everybody comes by here as well: 10.1.0.2 is the first machine.
    ensure!(said > 0, "the second machine advertises from the virtual address");
    site.nothing_changed()
}

#[test]
fn a_backup_leaves_frames_to_the_virtual_address_alone() -> Result<()> {
    let net = network("vmac-flood")?;
    let site = Site::start(&net)?;
    for port in ["lb.eth0", "lb2.eth0"] {
        net.switch().sh(&format!("bridge link set dev {port} learning off"))?;
        for mac in [MAC4, MAC6] {
            // It is not there on one of them.
            let _ = net.switch().sh(&format!("bridge fdb del {mac} dev {port} master"));
        }
    }
    let before = site.second.packets("not_for_us")?;
    let socket = net.client().run(|| UdpSocket::bind((net.client().v4, 0)))?;
    socket.connect((vip4(1), ECHO))?;
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    let (mut answers, mut buffer) = (0, [0; 64]);
    for _ in 0..50 {
        socket.send(b"once")?;
        answers += usize::from(socket.recv(&mut buffer).is_ok());
    }
    match socket.recv(&mut buffer) {
        Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {}
        more => anyhow::bail!("a datagram was answered twice: {more:?}"),
    }
    ensure!(answers > 40, "{answers} of 50 were answered");
    let flooded = site.second.packets("not_for_us")? - before;
    ensure!(flooded >= answers as u64, "the second machine has seen {flooded} of them");
    ensure!(site.second.packets("forwarded_dsr")? == 0, "and forwarded some");
    site.nothing_changed()
}

#[test]
fn a_reload_makes_and_removes_macvlans_and_puts_arp_back() -> Result<()> {
    let net = network("vmac-reload")?;
    let setting = |name: &str| net.balancer.sh(&format!("cat /proc/sys/net/ipv4/conf/eth0/{name}"));
    let arp = || {
        Ok::<_, anyhow::Error>((setting("arp_ignore")?.trim().to_owned(), setting("arp_announce")?.trim().to_owned()))
    };
    let theirs = "link add lbv4-x link eth0 type macvlan mode bridge";
    net.balancer
        .ip(&[theirs.to_owned(), "link add vrrp.7 link eth0 address 00:00:5e:00:01:07 type macvlan".to_owned()])?;
    let own = |host: &Host| -> Result<Vec<String>> {
        let all = macvlans(host)?.into_iter().map(|(name, _)| name);
        Ok(all.filter(|name| !["lbv4-x", "vrrp.7"].contains(&name.as_str())).collect())
    };
    let before = arp()?;
    let (with, without) = (config(&net, 200, true), config(&net, 200, false));
    let mut lb = Lb::start(&net, &with)?;
    eventually("it owns", SOON, || all(&lb, VipState::Active))?;
    ensure!(own(&net.balancer)?.len() == 2 && arp()? == ("1".to_owned(), "2".to_owned()), "{:?}", arp()?);
    for name in own(&net.balancer)? {
        let deaf = net.balancer.sh(&format!("cat /proc/sys/net/ipv6/conf/{name}/accept_ra"))?;
        let addresses = net.balancer.sh(&format!("ip -o addr show dev {name}"))?;
        ensure!(deaf.trim() == "0" && addresses.lines().count() == 1, "{name} has but its VIP: {addresses}");
    }
    lb.reload(&without)?;
    eventually("it owns without", SOON, || {
        all(&lb, VipState::Active) && own(&net.balancer).is_ok_and(|left| left.is_empty())
    })?;
    ensure!(arp()? == before, "{:?}", arp()?);
    let mac = net.balancer.mac("eth0")?;
    ensure!(who_has(net.client(), [10, 1, 1, 1])? == BTreeSet::from([mac]), "its own address answers");
    lb.reload(&with)?;
    eventually("it owns with them again", SOON, || {
        all(&lb, VipState::Active) && own(&net.balancer).is_ok_and(|left| left.len() == 2)
    })?;
    ensure!(who_has(net.client(), [10, 1, 1, 1])? == BTreeSet::from([MAC4.to_owned()]), "the virtual one answers");
    lb.stop(Stop::Kill)?;
    lb.configure(&without)?;
    lb.launch()?;
    eventually("the next lbd puts back what the one before changed", SOON, || {
        own(&net.balancer).is_ok_and(|left| left.is_empty()) && arp().is_ok_and(|now| now == before)
    })?;
    lb.reload(&with)?;
    eventually("it owns with them once more", SOON, || {
        all(&lb, VipState::Active) && own(&net.balancer).is_ok_and(|found| found.len() == 2)
    })?;
    lb.stop(Stop::Kill)?;
    let withdrawn = lb.withdraw()?;
    ensure!(withdrawn.status.success(), "{withdrawn:?}");
    ensure!(own(&net.balancer)?.is_empty() && arp()? == before, "lbd --withdraw leaves nothing");
    ensure!(macvlans(&net.balancer)?.len() == 2, "those of others are theirs");
    Ok(())
}

#[test]
fn a_machine_that_cannot_have_the_address_gives_the_group_away() -> Result<()> {
    let net = network("vmac-refused")?;
    let link = net.balancer.sh("ip -o link show dev eth0")?;
    let index = link.split(':').next().context("no index")?;
    let name = format!("lbv4-{index}-42");
    net.balancer.ip(&[format!("link add {name} type veth peer name occupied")])?;
    let first = Lb::start(&net, &config(&net, 200, true))?;
    let fault = || first.vips().ok()?.cluster?.fault;
    eventually("the first machine has a fault", SOON, || fault().is_some_and(|fault| fault.contains(&name)))?;
    let second_lb = Lb::start_on(&net, second(&net), &config(&net, 100, true))?;
    eventually("the second machine owns", 2 * SOON, || all(&second_lb, VipState::Active))?;
    ensure!(first.status()?.warnings.iter().any(|warning| warning.contains(&name)), "status says so");
    net.balancer.ip(&[format!("link del {name}")])?;
    eventually("the first machine is well, and owns", 2 * SOON, || fault().is_none() && all(&first, VipState::Active))
        .map(drop)
}
