//! The other end of a veth: rtnetlink tells its index, and looks into its network namespace for us. Used by `interfaces`.

#![expect(clippy::wildcard_enum_match_arm, reason = "of rtnetlink's many attributes few concern us")]

use std::io;

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached},
};
use rtnetlink::{
    packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload},
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

/// What is known of a veth's other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// Its name there.
    pub(super) name: String,
    /// Whether it is in another network namespace.
    pub(super) elsewhere: bool,
    /// The XDP program on it.
    pub(super) xdp: PeerXdp,
}

/// The XDP program on the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerXdp {
    /// None.
    None,
    /// In the generic path, which does not make a veth take frames that XDP sends.
    Generic,
    /// In the driver.
    Native,
}

/// Looks for the other end.
///
/// # Errors
/// When it is out of sight, with the kernel's reason.
pub(super) fn find(ifindex: u32) -> io::Result<Peer> {
    let own = link(ifindex, None)?;
    let mut other = None;
    let mut namespace = None;
    for attribute in &own.attributes {
        if let LinkAttribute::Link(index) = attribute {
            other = Some(*index);
        }
        if let LinkAttribute::LinkNetNsId(id) = attribute {
            namespace = Some(*id);
        }
    }
    let other = other.filter(|index| *index != 0).ok_or_else(|| io::Error::other("the kernel does not name it"))?;
    if namespace.is_some_and(|id| id < 0) {
        return Err(io::Error::other("it is in a network namespace that has no id here"));
    }
    let message = link(other, namespace)?;
    let name = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    Ok(Peer { name: name.unwrap_or_else(|| other.to_string()), elsewhere: namespace.is_some(), xdp: xdp(&message) })
}

fn xdp(message: &LinkMessage) -> PeerXdp {
    for attribute in &message.attributes {
        if let LinkAttribute::Xdp(facts) = attribute {
            return match facts.iter().find_map(|fact| if let LinkXdp::Attached(how) = fact { Some(how) } else { None })
            {
                None | Some(XdpAttached::None) => PeerXdp::None,
                Some(XdpAttached::SocketBuffer) => PeerXdp::Generic,
                Some(_) => PeerXdp::Native,
            };
        }
    }
    PeerXdp::None
}

/// One interface, in the namespace with this id (from here) or in ours.
fn link(ifindex: u32, namespace: Option<i32>) -> io::Result<LinkMessage> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.attributes.extend(namespace.map(LinkAttribute::IfNetnsId));
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(RouteNetlinkMessage::GetLink(message)));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => Ok(message),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        other => Err(io::Error::other(format!("unexpected netlink answer {}", other.message_type()))),
    }
}
