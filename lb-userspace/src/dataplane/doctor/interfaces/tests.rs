//! What is found about interfaces, and said.

use super::*;
use crate::control::view::Severity;

fn link(xdp: Option<Xdp>) -> Link {
    Link { ifindex: 7, name: "eth0".to_owned(), mtu: 1500, up: true, xdp, ..Link::default() }
}

#[test]
fn the_program_on_the_interface_must_be_one_of_ours() {
    let with = |program| Some(Xdp { mode: Mode::Native, program });
    let rows = [(with(5), Severity::Ok), (with(6), Severity::Problem), (None, Severity::Problem)];
    for (xdp, expected) in rows {
        assert_eq!(judge_attached(&link(xdp), &[4, 5]).severity, expected, "{xdp:?}");
    }
}

#[test]
fn the_generic_mode_is_a_warning_that_says_why() {
    let found = judge_mode("eth0", Mode::Generic, AttachMode::Auto, "e1000");
    assert_eq!(found.severity, Severity::Warning);
    assert!(found.finding.contains("e1000"), "{found:?}");
    assert!(judge_mode("eth0", Mode::Generic, AttachMode::Generic, "e1000").finding.contains("as configured"));
    assert_eq!(judge_mode("eth0", Mode::Native, AttachMode::Auto, "e1000").severity, Severity::Ok);
}

#[test]
fn offloads_that_hurt() {
    let rows: [(&str, &[&str], bool, bool, Severity); 9] = [
        ("none", &[], false, false, Severity::Ok),
        ("gro after the program", &["rx-gro"], false, false, Severity::Ok),
        ("gro before it", &["rx-gro"], true, false, Severity::Problem),
        ("lro", &["rx-lro"], false, false, Severity::Problem),
        ("lro, generic", &["rx-lro"], true, false, Severity::Problem),
        ("gro in hardware", &["rx-gro-hw"], false, false, Severity::Warning),
        ("tags stripped, none served", &["rx-vlan-hw-parse"], false, false, Severity::Ok),
        ("tags stripped", &["rx-vlan-hw-parse"], false, true, Severity::Warning),
        ("others", &["tx-checksum-ip-generic"], true, true, Severity::Ok),
    ];
    for (name, on, generic, vlans, expected) in rows {
        let features = on.iter().map(|feature| ((*feature).to_owned(), true));
        let features = features.chain([("rx-udp-gro-forwarding".to_owned(), false)]).collect();
        let found = judge_offloads("eth0", generic, vlans, Ok(features));
        assert_eq!(found.iter().map(|finding| finding.severity).max(), Some(expected), "{name}: {found:?}");
    }
    let unknown = judge_offloads("eth0", false, false, Err(io::ErrorKind::Unsupported.into()));
    assert_eq!(unknown[0].severity, Severity::Warning, "what is not known is said");
}

#[test]
fn a_veth_needs_a_native_program_at_its_other_end() {
    let peer = |xdp| Ok(Peer { name: "p".to_owned(), elsewhere: true, xdp });
    let rows = [
        (peer(PeerXdp::Native), false, Severity::Ok),
        (peer(PeerXdp::None), false, Severity::Problem),
        (peer(PeerXdp::Generic), false, Severity::Problem),
        (peer(PeerXdp::None), true, Severity::Ok),
        (Err(io::ErrorKind::PermissionDenied.into()), false, Severity::Warning),
    ];
    for (found, generic, expected) in rows {
        let name = format!("{found:?} {generic}");
        assert_eq!(judge_peer("eth0", generic, found).severity, expected, "{name}");
    }
}
