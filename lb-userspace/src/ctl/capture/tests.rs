//! A capture file in pieces of any size, as it is shown.

use std::borrow::Cow;

use pcap_file::{
    DataLink,
    pcapng::{
        PcapNgWriter,
        blocks::{interface_description::InterfaceDescriptionBlock, interface_statistics::InterfaceStatisticsBlock},
    },
};

use super::*;

/// A SYN from 203.0.113.7, port 40000, to 192.0.2.10, port 80, in VLAN 7.
fn syn() -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x81, 0, 0, 7, 8, 0]);
    frame.extend([0x45, 0, 0, 60, 0, 1, 0x40, 0, 64, 6, 0, 0, 203, 0, 113, 7, 192, 0, 2, 10]);
    frame.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0xa0, 2, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(78, 0);
    frame
}

fn file(snaplen: usize) -> Vec<u8> {
    let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
    let interface = InterfaceDescriptionBlock {
        linktype: DataLink::ETHERNET,
        snaplen: 0,
        options: vec![InterfaceDescriptionOption::IfName("eth0".into()), InterfaceDescriptionOption::IfTsResol(9)],
    };
    writer.write_pcapng_block(interface).unwrap();
    for flags in [1, 2] {
        let frame = syn();
        let packet = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::new(1_700_000_000, 123_456_789),
            original_len: frame.len() as u32,
            data: Cow::Owned(frame[..snaplen].to_vec()),
            options: vec![
                EnhancedPacketOption::Comment("lb: send forwarded_dsr, vs web, node n2 (10.0.0.2)".into()),
                EnhancedPacketOption::Flags(flags),
            ],
        };
        writer.write_pcapng_block(packet).unwrap();
    }
    let options = vec![InterfaceStatisticsOption::IsbOsDrop(3)];
    writer.write_pcapng_block(InterfaceStatisticsBlock { interface_id: 0, timestamp: 0, options }).unwrap();
    writer.into_inner()
}

#[test]
fn packets_are_shown_however_the_file_is_cut_into_pieces() {
    let file = file(78);
    for size in [1, 7, 64, file.len()] {
        let mut reader = Reader::default();
        let told: Vec<Told> = file.chunks(size).flat_map(|piece| reader.take(piece).unwrap()).collect();
        assert_eq!((reader.count, reader.lost), (2, Some(3)), "pieces of {size}");
        let [arrival, departure] = &told[..] else { panic!("{told:?}") };
        let expected = "eth0 in  vlan 7 203.0.113.7:40000 > 192.0.2.10:80 tcp S, 78 bytes: send forwarded_dsr, vs web, node n2 (10.0.0.2)";
        assert!(arrival.line().ends_with(&format!(".123456 {expected}")), "{}", arrival.line());
        assert!(departure.line().ends_with(&expected.replace(" in  ", " out ")), "{}", departure.line());
        let json: serde_json::Value = serde_json::from_str(&departure.json()).unwrap();
        assert_eq!((json["direction"].as_str(), json["length"].as_u64()), (Some("out"), Some(78)), "{json}");
    }
}

#[test]
fn a_file_that_does_not_end_is_told_from_one_that_does() {
    let file = file(78);
    let mut reader = Reader::default();
    reader.take(&file[..file.len() - 1]).unwrap();
    assert_eq!((reader.count, reader.lost), (2, None));
    assert!(Reader::default().take(b"HTTP/1.1 and what follows").is_err(), "not a capture file");
}

#[test]
fn headers_are_enough() {
    let frame = syn();
    assert_eq!(describe(&frame[..58], frame.len()), "vlan 7 203.0.113.7:40000 > 192.0.2.10:80 tcp S");
    assert_eq!(describe(&frame[..38], frame.len()), "vlan 7 203.0.113.7 > 192.0.2.10 tcp");
    for length in 0..frame.len() {
        assert!(!describe(&frame[..length], frame.len()).is_empty(), "{length}");
    }
    let mut arp = vec![2; 12];
    arp.extend([8, 6]);
    assert_eq!(describe(&arp, 60), "ethertype 0x0806");
}
