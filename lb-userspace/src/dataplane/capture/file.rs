//! The capture file: pcapng (draft-ietf-opsawg-pcapng), a block for each interface when it is first met, and of each frame
//! its verdict as a comment. Pure: pieces of the file come out, records go in.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use lb_common::{
    capture::{Record, direction},
    reason::{Action, Reason},
};
use pcap_file::{
    DataLink, Endianness, PcapError,
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
            interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption},
            section_header::{SectionHeaderBlock, SectionHeaderOption},
        },
    },
};

use crate::dataplane::names::Names;

/// `if_tsresol`: nanoseconds.
const NANOSECONDS: u8 = 9;

/// A capture file in the making.
pub(super) struct File {
    writer: PcapNgWriter<Vec<u8>>,
    /// Numbers of the interfaces in the file, by ifindex.
    numbers: BTreeMap<u32, u32>,
    snaplen: u32,
    /// What CLOCK_MONOTONIC is behind the time since 1970.
    offset: Duration,
}

impl File {
    /// Begins a file. Fails only when there is no memory.
    pub(super) fn begin(snaplen: u32, offset: Duration) -> Result<Self, PcapError> {
        let application = format!("lbd {}", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: Endianness::native(),
            options: vec![SectionHeaderOption::UserApplication(Cow::Owned(application))],
            ..SectionHeaderBlock::default()
        };
        let writer = PcapNgWriter::with_section_header(Vec::new(), section)?;
        Ok(Self { writer, numbers: BTreeMap::new(), snaplen, offset })
    }

    /// A frame.
    pub(super) fn add(&mut self, record: &Record, data: &[u8], names: &Names) -> Result<(), PcapError> {
        let interface_id = self.number(record.ifindex, names)?;
        let flags = EnhancedPacketOption::Flags(if record.direction == direction::OUT { 2 } else { 1 });
        let comment = EnhancedPacketOption::Comment(Cow::Owned(comment(record, names)));
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: Duration::from_nanos(record.at_ns) + self.offset,
            original_len: record.length,
            data: Cow::Borrowed(data),
            options: vec![comment, flags],
        };
        self.writer.write_pcapng_block(block).map(|_| ())
    }

    /// Ends the file: how many frames were lost, of each interface that is in it. One that nothing was captured at is none.
    pub(super) fn end(&mut self, at: Duration, lost: u64, names: &Names) -> Result<(), PcapError> {
        if self.numbers.is_empty() {
            let first = names.interfaces.iter().find(|info| info.mode.is_some()).map_or(0, |info| info.ifindex);
            self.number(first, names)?;
        }
        let nanoseconds = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        for interface_id in self.numbers.values() {
            // One ring is for all interfaces.
            let lost = if *interface_id == 0 { lost } else { 0 };
            let block = InterfaceStatisticsBlock {
                interface_id: *interface_id,
                // The upper half comes first in the file, whatever the byte order (section 4.6); this writer takes it as one word.
                timestamp: if cfg!(target_endian = "little") { nanoseconds.rotate_left(32) } else { nanoseconds },
                options: vec![InterfaceStatisticsOption::IsbOsDrop(lost)],
            };
            self.writer.write_pcapng_block(block)?;
        }
        Ok(())
    }

    /// The blocks since the last piece.
    pub(super) fn piece(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.get_mut())
    }

    /// Bytes of them.
    pub(super) fn waiting(&self) -> usize {
        self.writer.get_ref().len()
    }

    fn number(&mut self, ifindex: u32, names: &Names) -> Result<u32, PcapError> {
        if let Some(number) = self.numbers.get(&ifindex) {
            return Ok(*number);
        }
        let attached = names.interfaces.iter().find(|info| info.ifindex == ifindex).map(|info| &info.name);
        let name = attached.or_else(|| names.links.get(&ifindex)).cloned();
        let name = name.unwrap_or_else(|| format!("interface {ifindex}"));
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: self.snaplen,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(name)),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        self.writer.write_pcapng_block(block)?;
        let number = self.numbers.len() as u32;
        self.numbers.insert(ifindex, number);
        Ok(number)
    }
}

/// The verdict in a line, like `lb: send forwarded_dsr, vs web, node n2 (10.0.0.2:80)`.
fn comment(record: &Record, names: &Names) -> String {
    let mut text = match Reason::ALL.get(usize::from(record.reason)) {
        Some(reason) => {
            let action = match reason.action() {
                Action::Send => "send",
                Action::Pass => "pass",
                Action::Drop => "drop",
            };
            format!("lb: {action} {}", reason.name())
        }
        None => format!("lb: reason {}", record.reason),
    };
    if record.virtual_server != 0 {
        let id = record.virtual_server;
        let name = names.virtual_servers.get(&id).cloned();
        text.push_str(&format!(", vs {}", name.unwrap_or_else(|| format!("{id} (gone)"))));
    }
    if record.node != 0 {
        let slot = record.node;
        text.push_str(&match names.slots.get(&slot) {
            Some(info) => {
                let address = info.address;
                // DSR leaves the port.
                let at = if address.port() == 0 { address.ip().to_string() } else { address.to_string() };
                format!(", node {} ({at})", info.node)
            }
            None => format!(", node of slot {slot} (gone)"),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::{Block, PcapNgParser};

    use super::*;
    use crate::{
        control::plan::Admission,
        dataplane::{
            names::{InterfaceInfo, SlotInfo},
            network::Mode,
        },
    };

    fn names() -> Names {
        let node = SlotInfo {
            virtual_server: "web".into(),
            pool: "web".into(),
            node: "n2".into(),
            address: "10.0.0.2:80".parse().unwrap(),
            source: None,
            generation: 1,
            admission: Admission::All,
            unresolved: None,
        };
        let interface = InterfaceInfo { name: "eth0".into(), ifindex: 3, slot: 0, mode: Some(Mode::Native) };
        Names {
            slots: [(9, node)].into(),
            virtual_servers: [(2, "web".to_owned())].into(),
            interfaces: vec![interface],
            links: [(5, "eth1".to_owned())].into(),
            ..Names::default()
        }
    }

    fn record(reason: Reason, direction: u8, ifindex: u32) -> Record {
        Record {
            at_ns: 1_000_000_001,
            length: 1514,
            captured: 4,
            ifindex,
            reason: reason as u8,
            direction,
            ..Record::default()
        }
    }

    fn blocks(mut bytes: &[u8]) -> Vec<Block<'static>> {
        let (rest, mut parser) = PcapNgParser::new(bytes).unwrap();
        bytes = rest;
        let mut blocks = Vec::new();
        while !bytes.is_empty() {
            let (rest, block) = parser.next_block(bytes).unwrap();
            blocks.push(block.into_owned());
            bytes = rest;
        }
        blocks
    }

    #[test]
    fn a_file_says_what_was_decided() {
        let names = names();
        let mut file = File::begin(128, Duration::from_secs(1_700_000_000)).unwrap();
        let mut bytes = file.piece();
        let sent = Record { virtual_server: 2, node: 9, ..record(Reason::ForwardedDsr, direction::IN, 3) };
        file.add(&sent, &[1, 2, 3, 4], &names).unwrap();
        file.add(&Record { direction: direction::OUT, ifindex: 5, ..sent }, &[5, 6, 7, 8], &names).unwrap();
        bytes.extend(file.piece());
        file.end(Duration::from_secs(1_700_000_009), 6, &names).unwrap();
        bytes.extend(file.piece());
        let blocks = blocks(&bytes);
        let [first, arrival, second, departure, lost, _] = &blocks[..] else { panic!("{blocks:?}") };
        for (block, name) in [(first, "eth0"), (second, "eth1")] {
            let Block::InterfaceDescription(interface) = block else { panic!("{block:?}") };
            assert_eq!(interface.options[0], InterfaceDescriptionOption::IfName(name.into()));
            assert_eq!((interface.linktype, interface.snaplen), (DataLink::ETHERNET, 128));
        }
        for (block, number, flags, data) in [(arrival, 0, 1, [1, 2, 3, 4]), (departure, 1, 2, [5, 6, 7, 8])] {
            let Block::EnhancedPacket(packet) = block else { panic!("{block:?}") };
            assert_eq!((packet.interface_id, packet.original_len, &*packet.data), (number, 1514, &data[..]));
            assert_eq!(packet.timestamp, Duration::new(1_700_000_001, 1));
            let comment = "lb: send forwarded_dsr, vs web, node n2 (10.0.0.2:80)";
            let expected = [EnhancedPacketOption::Comment(comment.into()), EnhancedPacketOption::Flags(flags)];
            assert_eq!(packet.options, expected);
        }
        let Block::InterfaceStatistics(statistics) = lost else { panic!("{lost:?}") };
        assert_eq!(statistics.options, [InterfaceStatisticsOption::IsbOsDrop(6)]);
    }

    #[test]
    fn a_file_without_a_packet_has_an_interface() {
        let mut file = File::begin(128, Duration::ZERO).unwrap();
        file.end(Duration::ZERO, 0, &names()).unwrap();
        assert_eq!(blocks(&file.piece()).len(), 2);
    }

    #[test]
    fn what_is_gone_is_named_by_its_number() {
        let of = |virtual_server, node, reason| {
            comment(&Record { virtual_server, node, ..record(reason, direction::IN, 3) }, &names())
        };
        assert_eq!(of(0, 0, Reason::NotVirtual), "lb: pass not_virtual");
        assert_eq!(of(2, 0, Reason::NoNode), "lb: drop no_node, vs web");
        assert_eq!(of(7, 8, Reason::ForwardedNat), "lb: send forwarded_nat, vs 7 (gone), node of slot 8 (gone)");
    }
}
