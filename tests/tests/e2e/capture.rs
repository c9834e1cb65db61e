//! `lbctl capture`: what XDP does with packets, on a file that others read, while it does it.

use std::{
    fs,
    io::{Read, Write},
    net::UdpSocket,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use lb_tests::harness::{
    Lb, Net, Nginx, Requests, Stop, Topology, command::sh, eventually, topology::vip4, wait::until,
};
use pcap_file::pcapng::{
    Block, PcapNgReader,
    blocks::{
        enhanced_packet::EnhancedPacketOption, interface_description::InterfaceDescriptionOption,
        interface_statistics::InterfaceStatisticsOption,
    },
};

use crate::support::{ONE_ARM, ask, nodes4, one4, pool, program_on, service, two4};

/// More than any of it takes on a machine that is busy.
const LONG: Duration = Duration::from_secs(60);

/// HTTP by DSR on VIP 1 and by NAT on VIP 2, and a UDP service whose node does not exist.
fn config(net: &Net) -> String {
    let nobody = ["node.gone = { address = \"10.1.77.77\" }".to_owned()];
    let nodes = nodes4(&net.nodes, 80, &[]);
    [
        ONE_ARM.to_owned(),
        service("direct", "one4", "tcp", 80, "forwarding = \"dsr\"", &nodes),
        service("translated", "two", "tcp", 80, "forwarding = \"nat\"\nsource_nat = true", &nodes),
        service("nobody", "two", "udp", 9, "forwarding = \"dsr\"", &nobody),
        pool("spare", "forwarding = \"dsr\"", &nodes),
    ]
    .concat()
}

fn network(name: &str) -> Result<(Net, Vec<Nginx>)> {
    let net = Topology::new(name).nodes(2).dsr(&[vip4(1)]).build()?;
    let web = net.nodes.iter().map(|node| Nginx::start(node, &[80])).collect::<Result<Vec<_>>>()?;
    Ok((net, web))
}

fn start<'n>(net: &'n Net) -> Result<Lb<'n>> {
    let lb = net.start_lb(&config(net))?;
    for pool in ["direct", "translated"] {
        lb.wait_for_next_hops(pool)?;
    }
    Ok(lb)
}

/// A capture into a file.
struct Capture {
    child: Child,
    file: PathBuf,
}

impl Capture {
    /// Begins it, with these arguments.
    fn begin(lb: &Lb<'_>, name: &str, arguments: &[&str]) -> Result<Self> {
        let file = lb.directory().join(name);
        if file.exists() {
            fs::remove_file(&file)?;
        }
        let mut command = lb.lbctl_command(&[&["capture", "-w", &file.display().to_string()], arguments].concat())?;
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        until("the capture begins", LONG, || {
            // One that wants little may have ended by now.
            let ended = child.try_wait()?;
            if fs::metadata(&file).is_ok_and(|file| file.len() > 0) {
                return Ok(Some(()));
            }
            match ended {
                Some(status) => bail!("lbctl capture: {status}"),
                None => Ok(None),
            }
        })?;
        Ok(Self { child, file })
    }

    /// Waits until it ends by itself; what it said, and the file.
    fn end(self) -> Result<(String, File)> {
        let output = self.child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{}: {said}", output.status);
        Ok((said, File::read(&self.file)?))
    }
}

/// A frame of a capture file.
#[derive(Debug)]
struct Frame {
    interface: String,
    flags: u32,
    data: Vec<u8>,
    length: u32,
    verdict: String,
}

#[derive(Debug, Default)]
struct File {
    frames: Vec<Frame>,
    lost: Option<u64>,
}

impl File {
    fn read(path: &Path) -> Result<Self> {
        let mut reader = PcapNgReader::new(fs::File::open(path)?)?;
        let (mut file, mut interfaces) = (Self::default(), Vec::new());
        while let Some(block) = reader.next_block() {
            match block? {
                Block::InterfaceDescription(block) => {
                    let name = block.options.iter().find_map(|option| {
                        if let InterfaceDescriptionOption::IfName(name) = option {
                            Some(name.to_string())
                        } else {
                            None
                        }
                    });
                    interfaces.push(name.context("an interface without a name")?);
                }
                Block::EnhancedPacket(block) => {
                    let mut frame = Frame {
                        interface: interfaces[block.interface_id as usize].clone(),
                        flags: 0,
                        data: block.data.to_vec(),
                        length: block.original_len,
                        verdict: String::new(),
                    };
                    for option in &block.options {
                        if let EnhancedPacketOption::Flags(flags) = option {
                            frame.flags = *flags;
                        } else if let EnhancedPacketOption::Comment(text) = option {
                            frame.verdict = text.to_string();
                        }
                    }
                    file.frames.push(frame);
                }
                Block::InterfaceStatistics(block) => {
                    for option in &block.options {
                        if let InterfaceStatisticsOption::IsbOsDrop(lost) = option {
                            file.lost = Some(file.lost.unwrap_or(0) + lost);
                        }
                    }
                }
                other @ (Block::SectionHeader(_)
                | Block::Packet(_)
                | Block::SimplePacket(_)
                | Block::NameResolution(_)
                | Block::SystemdJournalExport(_)
                | Block::Unknown(_)) => bail!("not expected: {other:?}"),
            }
        }
        Ok(file)
    }
}

/// A datagram that nobody gets.
fn lose(net: &Net) -> Result<()> {
    net.client().run(|| {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        socket.send_to(b"lost", two4(9)).map(drop)
    })?;
    Ok(())
}

#[test]
fn a_capture_tells_what_became_of_packets() -> Result<()> {
    let (net, _web) = network("capture")?;
    let lb = start(&net)?;
    // A request is more than this, in each of its two frames.
    let direct = Capture::begin(&lb, "direct", &["--vip", "10.1.1.1", "--port", "80", "-c", "6"])?;
    let node = ask(&net, one4(80), "/")?.node;
    let (said, file) = direct.end()?;
    ensure!(said.contains("6 packets") && file.lost == Some(0) && file.frames.len() == 6, "{said}{file:?}");
    let address = net.nodes.iter().find(|host| host.name == node).context("a node of ours")?.v4;
    for (index, frame) in file.frames.iter().enumerate() {
        let expected = format!("lb: send forwarded_dsr, vs direct, node {node} ({address}:80)");
        ensure!(frame.verdict == expected, "{frame:?}, not {expected}");
        ensure!(frame.interface == "eth0" && frame.flags == 1 + index as u32 % 2, "{index}: {frame:?}");
        ensure!(frame.data.len() <= 128 && frame.length as usize >= frame.data.len(), "{frame:?}");
    }
    ensure!(file.frames[0].data[12..] == file.frames[1].data[12..], "DSR changes MAC addresses alone: {file:?}");
    ensure!(file.frames[0].data[..6] != file.frames[1].data[..6], "and those it does: {file:?}");

    let translated = Capture::begin(&lb, "translated", &["--vip", "10.1.1.2", "-c", "8"])?;
    ask(&net, two4(80), "/")?;
    let (said, file) = translated.end()?;
    for reason in ["forwarded_nat", "forwarded_reply"] {
        let told: Vec<&Frame> = file.frames.iter().filter(|frame| frame.verdict.contains(reason)).collect();
        ensure!(told.len() >= 2 && told.iter().all(|f| f.verdict.contains("vs translated, node ")), "{said}{file:?}");
    }
    let translated = lb.directory().join("translated");
    let read = sh(&format!("tcpdump -nr {} host 10.1.1.2 and tcp port 80", translated.display()))?;
    ensure!(read.contains("10.1.1.2.80: Flags [S]") && read.contains("10.1.1.2.80 > "), "{read}");

    let dropped = Capture::begin(&lb, "dropped", &["--dropped", "-c", "2"])?;
    ask(&net, one4(80), "/")?;
    lose(&net)?;
    lose(&net)?;
    let (said, file) = dropped.end()?;
    let verdict = "lb: drop next_hop_unresolved, vs nobody";
    ensure!(
        file.frames.len() == 2 && file.frames.iter().all(|f| f.verdict == verdict && f.flags == 1),
        "{said}{file:?}"
    );

    let audit = lb.ctl(&["audit", "ls", "-o", "json"])?;
    ensure!(audit.matches("GET /api/v1/capture").count() == 3, "{audit}");
    Ok(())
}

#[test]
fn packets_are_shown_as_lines_and_a_capture_ends_by_its_time() -> Result<()> {
    let (net, _web) = network("caplines")?;
    let lb = start(&net)?;
    let plain = program_on(&net.balancer)?;
    let quiet = lb.lbctl(&["capture", "--for", "1s", "--reason", "loop"])?;
    let said = String::from_utf8_lossy(&quiet.stderr).into_owned();
    ensure!(quiet.status.success() && quiet.stdout.is_empty() && said.contains("0 packets"), "{quiet:?}");
    let is_plain = || program_on(&net.balancer).is_ok_and(|id| id == plain);
    eventually("the program that only forwards is back", LONG, is_plain)?;
    let lines = lb.lbctl_command(&["capture", "-c", "2", "--in", "--dst", "10.1.1.2/31", "--proto", "udp"])?;
    let lines = { lines }.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    eventually("the capturing program is on the interface", LONG, || !is_plain())?;
    lose(&net)?;
    lose(&net)?;
    let output = lines.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && text.lines().count() == 2, "{output:?}");
    let tail = "udp, 46 bytes: drop next_hop_unresolved, vs nobody";
    ensure!(text.lines().all(|line| line.contains(" eth0 in ") && line.ends_with(tail)), "{text}");
    Ok(())
}

#[test]
fn no_request_fails_while_captures_begin_and_end() -> Result<()> {
    let (net, _web) = network("capswap")?;
    let lb = start(&net)?;
    let plain = program_on(&net.balancer)?;
    let requests = [one4(80), two4(80)].map(|target| Requests::start(net.client(), target, 1, 0, LONG));
    let requests = requests.into_iter().collect::<Result<Vec<_>>>()?;
    for round in 0..5 {
        let capture = Capture::begin(&lb, "round", &["--vip", "10.1.1.2", "-c", "40"])?;
        let (said, file) = capture.end()?;
        ensure!(file.frames.len() == 40, "round {round}: {said}");
        eventually("the program that only forwards is back", LONG, || {
            program_on(&net.balancer).is_ok_and(|id| id == plain)
        })?;
    }
    for requests in requests {
        requests.wait_for_more(10, LONG)?;
        let tally = requests.stop()?;
        ensure!(tally.failures.is_empty(), "{tally:?}");
    }
    Ok(())
}

#[test]
fn a_capture_outlives_no_lbd_and_harms_nothing() -> Result<()> {
    let (net, _web) = network("capkill")?;
    let mut lb = start(&net)?;
    let plain = program_on(&net.balancer)?;
    let requests = Requests::start(net.client(), one4(80), 1, 0, LONG)?;
    let capture = Capture::begin(&lb, "killed", &["-c", "1000000", "--for", "1h"])?;
    let capturing = program_on(&net.balancer)?;
    ensure!(capturing != plain, "the capturing program is on the interface");
    requests.wait_for_more(5, LONG)?;
    lb.stop(Stop::Kill)?;
    let output = capture.child.wait_with_output()?;
    ensure!(!output.status.success(), "the capture did not end as it should: {output:?}");
    ensure!(!File::read(&capture.file)?.frames.is_empty(), "what was told until then is a file");
    requests.wait_for_more(20, LONG)?;
    ensure!(program_on(&net.balancer)? == capturing, "a dead lbd leaves forwarding as it is");
    lb.launch()?;
    let now = program_on(&net.balancer)?;
    ensure!(now != capturing, "lbd puts a program that only forwards on the interface when it starts");
    requests.wait_for_more(20, LONG)?;
    Capture::begin(&lb, "again", &["-c", "2", "--vip", "10.1.1.1"])?.end()?;
    lb.stop(Stop::Graceful)?;
    eventually("the program that only forwards is back", LONG, || program_on(&net.balancer).is_ok_and(|id| id == now))?;
    let tally = requests.stop()?;
    ensure!(tally.failures.is_empty(), "{tally:?}");
    Ok(())
}

#[test]
fn one_who_does_not_read_holds_nothing_up() -> Result<()> {
    let (net, _web) = network("capslow")?;
    let lb = start(&net)?;
    let plain = program_on(&net.balancer)?;
    let mut slow = UnixStream::connect(lb.directory().join("admin.sock"))?;
    slow.write_all(b"GET /api/v1/capture?count=1000000&seconds=3600&snaplen=16384 HTTP/1.1\r\nHost: lbd\r\n\r\n")?;
    let mut head = [0; 12];
    slow.read_exact(&mut head)?;
    ensure!(&head == b"HTTP/1.1 200", "{}", String::from_utf8_lossy(&head));
    let requests = Requests::start(net.client(), one4(80), 2, 0, LONG)?;
    requests.wait_for_more(100, LONG)?;
    let second = lb.lbctl(&["capture", "-c", "1"])?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(second.status.code() == Some(5) && said.contains("one at a time"), "{second:?}");
    lb.ctl(&["status"])?;
    requests.wait_for_more(100, LONG)?;
    drop(slow);
    eventually("the program that only forwards is back", LONG, || {
        program_on(&net.balancer).is_ok_and(|id| id == plain)
    })?;
    Capture::begin(&lb, "next", &["-c", "2", "--vip", "10.1.1.1"])?.end()?;
    let tally = requests.stop()?;
    ensure!(tally.failures.is_empty(), "{tally:?}");
    Ok(())
}
