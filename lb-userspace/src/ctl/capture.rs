//! `lbctl capture`: packets with the data path's verdicts, a line each or as a capture file.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use lb_common::{
    conntrack::tcp_flag,
    flow::{FAMILY_V4, FAMILY_V6},
    packet::{ETHERNET, Frame, Packet, SliceFrame, SliceView, ethertype, parse, protocol},
};
use pcap_file::{
    PcapError,
    pcapng::{
        Block, PcapNgParser,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::InterfaceDescriptionOption,
            interface_statistics::InterfaceStatisticsOption,
        },
    },
};
use serde_json::json;

use super::{
    args,
    client::{Client, query_path},
    failure::Failure,
    output::Output,
};
use crate::control::capture::{DEFAULT_COUNT, DEFAULT_SECONDS};

pub(super) fn run(client: &Client, output: &Output, arguments: &args::Capture) -> Result<(), Failure> {
    let mut file = None;
    let request = arguments.request();
    let mut reader = Reader::default();
    client.stream(&query_path("capture", &request)?, &mut |piece| {
        if !reader.has_begun() {
            // Not before: a capture that is refused takes no older one's place.
            file = arguments.write.as_deref().map(open).transpose()?;
            let (count, seconds) = (request.count.unwrap_or(DEFAULT_COUNT), request.seconds.unwrap_or(DEFAULT_SECONDS));
            output.note(&format!("capturing: {count} packets or {seconds} s; Ctrl-C ends it"));
        }
        if let Some((file, path)) = &mut file {
            file.write_all(piece).and_then(|()| file.flush()).map_err(|error| failed(path, error))?;
        }
        let told = reader.take(piece)?;
        if file.is_none() {
            for packet in &told {
                output.print(&if output.is_json() { packet.json() } else { packet.line() })?;
            }
        }
        Ok(true)
    })?;
    let Reader { count, lost, .. } = reader;
    let packets = if count == 1 { "packet" } else { "packets" };
    output.note(&match lost {
        Some(0) => format!("{count} {packets}"),
        Some(lost) => format!("{count} {packets}; {lost} more are lost: they came faster than they were read"),
        None => format!("{count} {packets}; lbd ended before the capture did"),
    });
    Ok(())
}

fn failed(path: &Path, source: io::Error) -> Failure {
    Failure::File { path: path.to_owned(), source }
}

/// The file, which root alone may read: it has what clients send.
fn open(path: &Path) -> Result<(Box<dyn Write>, &Path), Failure> {
    if path == Path::new("-") {
        if io::stdout().is_terminal() {
            return Err(Failure::Usage(
                "a capture file is nothing for a terminal: leave -w out, or name a file".to_owned(),
            ));
        }
        return Ok((Box::new(io::stdout()), path));
    }
    use std::os::unix::fs::OpenOptionsExt;
    let options = &mut File::options();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    Ok((Box::new(file.map_err(|error| failed(path, error))?), path))
}

/// What comes, block by block.
#[derive(Default)]
struct Reader {
    waiting: Vec<u8>,
    parser: Option<PcapNgParser>,
    count: u64,
    /// `None`: the file has not ended.
    lost: Option<u64>,
}

impl Reader {
    fn has_begun(&self) -> bool {
        self.parser.is_some() || !self.waiting.is_empty()
    }

    /// The packets that are whole by now.
    fn take(&mut self, piece: &[u8]) -> Result<Vec<Told>, Failure> {
        self.waiting.extend(piece);
        let waiting = std::mem::take(&mut self.waiting);
        let mut rest = waiting.as_slice();
        let mut told = Vec::new();
        loop {
            let before = rest;
            match self.next(&mut rest) {
                Ok(packet) => told.extend(packet),
                Err(PcapError::IncompleteBuffer) => {
                    self.waiting = before.to_vec();
                    return Ok(told);
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error).into()),
            }
        }
    }

    fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Told>, PcapError> {
        let Some(parser) = &mut self.parser else {
            let (rest, parser) = PcapNgParser::new(bytes)?;
            (*bytes, self.parser) = (rest, Some(parser));
            return Ok(None);
        };
        if bytes.is_empty() {
            return Err(PcapError::IncompleteBuffer);
        }
        let (rest, block) = parser.next_block(bytes)?;
        *bytes = rest;
        if let Block::EnhancedPacket(packet) = &block {
            self.count += 1;
            return Ok(Some(Told::of(packet, interface(parser, packet))));
        }
        if let Block::InterfaceStatistics(statistics) = &block {
            let total = self.lost.get_or_insert(0);
            for option in &statistics.options {
                if let InterfaceStatisticsOption::IsbOsDrop(lost) = option {
                    *total += lost;
                }
            }
        }
        Ok(None)
    }
}

fn interface(parser: &PcapNgParser, packet: &EnhancedPacketBlock<'_>) -> String {
    let options = parser.packet_interface(packet).map(|interface| interface.options.as_slice());
    let name = options.unwrap_or_default().iter().find_map(|option| {
        let InterfaceDescriptionOption::IfName(name) = option else { return None };
        Some(name.as_ref())
    });
    name.unwrap_or("?").to_owned()
}

/// A packet, as it is shown.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    at: Duration,
    interface: String,
    leaves: bool,
    length: u32,
    what: String,
    verdict: String,
}

impl Told {
    fn of(packet: &EnhancedPacketBlock<'_>, interface: String) -> Self {
        let mut told = Self {
            at: packet.timestamp,
            interface,
            leaves: false,
            length: packet.original_len,
            what: describe(&packet.data, packet.original_len as usize),
            verdict: String::new(),
        };
        for option in &packet.options {
            if let EnhancedPacketOption::Flags(flags) = option {
                // Bits 0 and 1: inbound, outbound.
                told.leaves = flags & 3 == 2;
            }
            if let EnhancedPacketOption::Comment(text) = option {
                told.verdict = text.clone().into_owned();
            }
        }
        told
    }

    fn line(&self) -> String {
        let Self { interface, what, length, .. } = self;
        let direction = if self.leaves { "out" } else { "in " };
        let verdict = self.verdict.strip_prefix("lb: ").unwrap_or(&self.verdict);
        format!("{} {interface} {direction} {what}, {length} bytes: {verdict}", time(self.at))
    }

    fn json(&self) -> String {
        let direction = if self.leaves { "out" } else { "in" };
        json!({
            "at_ns": u64::try_from(self.at.as_nanos()).unwrap_or(u64::MAX),
            "interface": self.interface,
            "direction": direction,
            "length": self.length,
            "packet": self.what,
            "verdict": self.verdict,
        })
        .to_string()
    }
}

/// In the time of this machine, with microseconds.
fn time(since_1970: Duration) -> String {
    let nanoseconds = i128::try_from(since_1970.as_nanos()).unwrap_or_default();
    let stamp = jiff::Timestamp::from_nanosecond(nanoseconds).ok();
    let zoned = stamp.map(|stamp| stamp.to_zoned(jiff::tz::TimeZone::system()));
    zoned.map_or_else(String::new, |zoned| zoned.strftime("%H:%M:%S%.6f").to_string())
}

/// The beginning of a frame that was longer.
#[derive(Clone, Copy)]
struct Cut<'a> {
    bytes: SliceFrame<'a>,
    length: usize,
}

impl<'a> Frame for Cut<'a> {
    type View = SliceView<'a>;

    fn view<const LEN: usize>(self, offset: usize) -> Option<SliceView<'a>> {
        self.bytes.view::<LEN>(offset)
    }

    fn len(self) -> usize {
        self.length
    }
}

/// Who speaks to whom.
fn describe(bytes: &[u8], length: usize) -> String {
    let mut l3 = ETHERNET;
    let kind = |at: usize| bytes.get(at - 2..at).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let mut of = kind(l3);
    let mut tags = String::new();
    while let Some(ethertype::VLAN | ethertype::QINQ) = of {
        let id = kind(l3 + 2).unwrap_or_default() & 0xfff;
        tags.push_str(&format!("vlan {id} "));
        l3 += 4;
        of = kind(l3);
    }
    let family = match of {
        Some(ethertype::IPV4) => FAMILY_V4,
        Some(ethertype::IPV6) => FAMILY_V6,
        Some(other) => return format!("{tags}ethertype {other:#06x}"),
        None => return format!("{tags}cut short"),
    };
    let mut packet = Packet::default();
    // What it stops at is in the verdict; the addresses are there all the same.
    let _ = parse(Cut { bytes: SliceFrame(bytes), length }, l3, family, &mut packet);
    let key = &packet.key;
    let address = |octets: [u8; 16]| {
        let [a, b, c, d, ..] = octets;
        if family == FAMILY_V4 { IpAddr::from([a, b, c, d]) } else { IpAddr::from(octets) }
    };
    let (source, destination) = (address(key.source()), address(key.destination()));
    let (from, to) = match (key.source_port(), key.destination_port()) {
        (0, 0) => (source.to_string(), destination.to_string()),
        (from, to) => (SocketAddr::new(source, from).to_string(), SocketAddr::new(destination, to).to_string()),
    };
    let name = match key.protocol() {
        protocol::TCP => format!("tcp {}", letters(packet.tcp_flags)),
        protocol::UDP => "udp".to_owned(),
        protocol::ICMP | protocol::ICMPV6 => "icmp".to_owned(),
        other => format!("protocol {other}"),
    };
    format!("{tags}{from} > {to} {}", name.trim_end())
}

fn letters(flags: u8) -> String {
    let known =
        [(tcp_flag::SYN, 'S'), (tcp_flag::FIN, 'F'), (tcp_flag::RST, 'R'), (tcp_flag::PSH, 'P'), (tcp_flag::ACK, 'A')];
    known.into_iter().filter(|(bit, _)| flags & bit != 0).map(|(_, letter)| letter).collect()
}

#[cfg(test)]
mod tests;
