//! rtnetlink behind one module, because its crates change often: what the kernel knows of interfaces, routes and
//! neighbours, asked for ([`Netlink`]) and told ([`Watcher`]). Turns messages into [`Event`]s and decides nothing.
//!
//! Questions are answered in microseconds by the kernel itself, so they are plain blocking calls.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of rtnetlink's many kinds of messages and attributes few concern us"
)]

use std::{future::poll_fn, io, net::IpAddr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{
        InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, VlanProtocol,
        XdpAttached,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload},
    sys::{AsyncSocket, Socket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};

use super::network::{Event, Link, Mode, Neighbour, Reachability, Route, Vlan, Xdp};

/// Receive buffer of the event socket: some thousand events. When it overflows, everything is read anew.
const EVENT_BUFFER: usize = 1 << 20;

/// Why the kernel could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket.
    #[error("netlink: {action}: {source}")]
    Socket {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// An answer that makes no sense.
    #[error("netlink: {action}: the kernel's answer cannot be decoded: {reason}")]
    Decode {
        /// What was asked.
        action: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The kernel refused.
    #[error("netlink: {action}: {source}")]
    Refused {
        /// What was asked.
        action: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

/// A socket for questions.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens it in the network namespace of this thread.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> Result<Self, NetlinkError> {
        let failed = |action| move |source| NetlinkError::Socket { action, source };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("open"))?;
        socket.bind_auto().map_err(failed("bind"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed("connect"))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// All interfaces.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.ask("list interfaces", request, NLM_F_DUMP)?;
        Ok(answers
            .iter()
            .filter_map(|answer| if let RouteNetlinkMessage::NewLink(m) = answer { link(m) } else { None })
            .collect())
    }

    /// All neighbour entries, of both families.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>, NetlinkError> {
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let answers = self.ask("list neighbours", request, NLM_F_DUMP)?;
        Ok(answers
            .iter()
            .filter_map(|answer| if let RouteNetlinkMessage::NewNeighbour(m) = answer { neighbour(m) } else { None })
            .collect())
    }

    /// The route that a packet of ours to `destination` would take now; `None` when there is none.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn route(&mut self, destination: IpAddr) -> Result<Option<Route>, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(destination);
        message.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
        message.attributes.push(RouteAttribute::Destination(destination.into()));
        match self.ask("look up a route", RouteNetlinkMessage::GetRoute(message), 0) {
            Ok(answers) => Ok(answers
                .iter()
                .find_map(|answer| if let RouteNetlinkMessage::NewRoute(m) = answer { route(m) } else { None })),
            // ENETUNREACH, EHOSTUNREACH, EACCES (prohibit), EINVAL (blackhole): no route, each in its own words.
            Err(NetlinkError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks the kernel to find out, or confirm, the MAC address of `address`, as if a packet were to be sent there.
    ///
    /// # Errors
    /// When the kernel refuses: the interface is gone, or the neighbour table is full.
    pub fn probe(&mut self, ifindex: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = ifindex;
        message.header.state = NeighbourState::None;
        message.header.flags = NeighbourFlags::Use;
        message.attributes.push(NeighbourAttribute::Destination(address.into()));
        self.ask("probe a neighbour", RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_ACK)?;
        Ok(())
    }

    fn ask(
        &mut self,
        action: &'static str,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let failed = |source| NetlinkError::Socket { action, source };
        self.socket.send(&bytes, 0).map_err(failed)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full().map_err(failed)?;
            let last = parse(action, &datagram, |header, payload| {
                if header.sequence_number == self.sequence {
                    answers.push((header, payload));
                }
            });
            last?;
            if let Some(done) = finished(action, &mut answers, flags) {
                return done;
            }
        }
    }
}

type Answer = (NetlinkHeader, NetlinkPayload<RouteNetlinkMessage>);

/// Whether the answer is complete: the last one is "done" or an acknowledgement, or the one that was asked for.
fn finished(
    action: &'static str,
    answers: &mut Vec<Answer>,
    flags: u16,
) -> Option<Result<Vec<RouteNetlinkMessage>, NetlinkError>> {
    let (_, last) = answers.last()?;
    match last {
        NetlinkPayload::Error(error) => {
            if let Some(code) = error.code {
                let source = io::Error::from_raw_os_error(code.get().saturating_abs());
                return Some(Err(NetlinkError::Refused { action, source }));
            }
        }
        NetlinkPayload::InnerMessage(_) if flags & (NLM_F_DUMP | NLM_F_ACK) != 0 => return None,
        _ => {}
    }
    let messages = answers.drain(..).filter_map(|(_, payload)| match payload {
        NetlinkPayload::InnerMessage(message) => Some(message),
        _ => None,
    });
    Some(Ok(messages.collect()))
}

/// Calls `each` for every message of a datagram. A message of a kind that the crate cannot decode is skipped: the kernel
/// invents attributes faster than crates learn them.
fn parse(
    action: &'static str,
    datagram: &[u8],
    mut each: impl FnMut(NetlinkHeader, NetlinkPayload<RouteNetlinkMessage>),
) -> Result<(), NetlinkError> {
    let mut rest = datagram;
    while rest.len() >= 16 {
        let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        if length < 16 || length > rest.len() {
            return Err(NetlinkError::Decode {
                action,
                reason: format!("message of {length} bytes in {}", rest.len()),
            });
        }
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&rest[..length]) {
            Ok(message) => each(message.header, message.payload),
            Err(error) => tracing::debug!(action, %error, "netlink message not understood"),
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    Ok(())
}

/// Tells what changes.
pub struct Watcher {
    socket: TokioSocket,
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").finish_non_exhaustive()
    }
}

impl Watcher {
    /// Subscribes. Ask [`Netlink`] for the state after this, so that nothing falls in between. Needs a tokio runtime.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> Result<Self, NetlinkError> {
        let failed = |action| move |source| NetlinkError::Socket { action, source };
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(failed("open"))?;
        let inner = socket.socket_mut();
        inner.bind_auto().map_err(failed("bind"))?;
        inner.set_rx_buf_sz(EVENT_BUFFER).map_err(failed("enlarge the buffer"))?;
        for group in [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ] {
            inner.add_membership(group as u32).map_err(failed("subscribe"))?;
        }
        Ok(Self { socket })
    }

    /// The next changes; never empty. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the socket is broken. Events lost by an overflow are no error but [`Event::Overrun`].
    pub async fn next(&mut self) -> Result<Vec<Event>, NetlinkError> {
        loop {
            let datagram = match poll_fn(|context| self.socket.poll_recv_from_full(context)).await {
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(vec![Event::Overrun]),
                Err(source) => return Err(NetlinkError::Socket { action: "receive", source }),
                Ok((datagram, _)) => datagram,
            };
            let mut events = Vec::new();
            parse("receive", &datagram, |_, payload| {
                if let NetlinkPayload::InnerMessage(message) = payload {
                    events.extend(event(&message));
                }
            })?;
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

fn event(message: &RouteNetlinkMessage) -> Option<Event> {
    match message {
        RouteNetlinkMessage::NewLink(m) => link(m).map(Event::Link),
        // A bridge port leaving its bridge is told as DelLink of family AF_BRIDGE: the interface is still there.
        RouteNetlinkMessage::DelLink(m) if m.header.interface_family == AddressFamily::Bridge => None,
        RouteNetlinkMessage::DelLink(m) => Some(Event::LinkGone(m.header.index)),
        RouteNetlinkMessage::NewNeighbour(m) => neighbour(m).map(Event::Neighbour),
        RouteNetlinkMessage::DelNeighbour(m) => {
            neighbour(m).map(|gone| Event::NeighbourGone { ifindex: gone.ifindex, address: gone.address })
        }
        RouteNetlinkMessage::NewRoute(_)
        | RouteNetlinkMessage::DelRoute(_)
        | RouteNetlinkMessage::NewAddress(_)
        | RouteNetlinkMessage::DelAddress(_) => Some(Event::Routes),
        _ => None,
    }
}

fn link(message: &LinkMessage) -> Option<Link> {
    if message.header.interface_family == AddressFamily::Bridge {
        return None;
    }
    let mut link = Link {
        ifindex: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        ..Link::default()
    };
    // What it stands on; the index is of another namespace when one is named.
    let (mut below, mut elsewhere) = (None, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            LinkAttribute::Controller(ifindex) => link.controller = Some(*ifindex),
            LinkAttribute::Link(ifindex) => below = Some(*ifindex),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(kind);
                link.vlan = infos.iter().find_map(vlan);
            }
            LinkAttribute::Xdp(attributes) => link.xdp = xdp(attributes),
            _ => {}
        }
    }
    if let Some(vlan) = &mut link.vlan {
        vlan.parent = below.filter(|_| !elsewhere);
    }
    (!link.name.is_empty()).then_some(link)
}

fn kind(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(InfoKind::Other(kind)) => Some(kind.clone()),
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

fn vlan(info: &LinkInfo) -> Option<Vlan> {
    let LinkInfo::Data(InfoData::Vlan(attributes)) = info else { return None };
    let id = attributes.iter().find_map(|a| if let InfoVlan::Id(id) = a { Some(*id) } else { None })?;
    let service = attributes.iter().any(|a| matches!(a, InfoVlan::Protocol(VlanProtocol::Ieee8021Ad)));
    Some(Vlan { parent: None, id, service })
}

fn xdp(attributes: &[LinkXdp]) -> Option<Xdp> {
    let mut mode = None;
    let mut program = 0;
    for attribute in attributes {
        match attribute {
            LinkXdp::Attached(XdpAttached::None) => return None,
            LinkXdp::Attached(XdpAttached::SocketBuffer) => mode = Some(Mode::Generic),
            LinkXdp::Attached(_) => mode = Some(Mode::Native),
            LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::HwProgId(id) => program = *id,
            // With several attached, the driver's is the one that matters; this one only when it is alone.
            LinkXdp::SkbProgId(id) if program == 0 => program = *id,
            _ => {}
        }
    }
    mode.map(|mode| Xdp { mode, program })
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            _ => {}
        }
    }
    let reachability = match message.header.state {
        NeighbourState::Reachable | NeighbourState::Permanent => Reachability::Confirmed,
        NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => Reachability::Believed,
        NeighbourState::Incomplete => Reachability::Asking,
        _ => Reachability::Failed,
    };
    Some(Neighbour { ifindex: message.header.ifindex, address: address?, mac, reachability })
}

fn route(message: &RouteMessage) -> Option<Route> {
    let mut route = Route { local: message.header.kind != RouteType::Unicast, ..Route::default() };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(ifindex) => route.ifindex = *ifindex,
            RouteAttribute::Gateway(address) => route.gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet6(address)) => route.gateway = Some(IpAddr::V6(*address)),
            RouteAttribute::Via(RouteVia::Inet(address)) => route.gateway = Some(IpAddr::V4(*address)),
            RouteAttribute::PrefSource(address) => route.source = ip(address),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|m| if let RouteMetric::Mtu(mtu) = m { Some(*mtu) } else { None });
            }
            _ => {}
        }
    }
    (route.ifindex != 0).then_some(route)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
