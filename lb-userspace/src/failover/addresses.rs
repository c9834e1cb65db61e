//! Addresses and interfaces over rtnetlink: what there is, when it changes, and adding and removing VIPs and the macvlans that have virtual
//! MAC addresses.

use std::{fmt, fs, io, net::IpAddr, path::Path, pin::Pin, time::Duration};

use futures_util::{Stream, StreamExt, TryStreamExt};
use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo},
    link::{
        AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoKind, LinkAttribute, LinkFlags, LinkInfo,
        LinkLayerType, LinkMessage, MacVlanMode,
    },
};
use nix::net::if_::if_nametoindex;
use rtnetlink::{
    Handle, LinkMacVlan, LinkUnspec, MulticastGroup,
    packet_core::{DefaultNla, Emitable, NLA_F_NESTED},
};
use tokio::{task::AbortHandle, time};

use super::{
    Error,
    vips::{Link, Place, Snapshot, host_prefix},
    virtual_mac::{self, Arp, NewLink, VirtualLink},
};

/// The kernel answers at once; what takes longer will not come.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Between two tries to follow the kernel's notifications again.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// `IFA_CACHEINFO` lifetime without end.
const FOREVER: u32 = u32::MAX;

/// How the alias of a macvlan of lbd's begins.
const ALIAS: &str = "lbd:";

/// `IFLA_INET_CONF`, and what is set by it (`IPV4_DEVCONF_*`, linux/ip.h).
const INET_CONF: u16 = 1;
const RP_FILTER: u16 = 8;
const ARP_ANNOUNCE: u16 = 18;
const ARP_IGNORE: u16 = 19;
/// What comes in for a VIP need not be answered by the same interface.
const LOOSE: i32 = 2;

/// A socket for requests. Notifications have their own: an overflow there must not swallow an answer here.
#[derive(Debug)]
pub(super) struct Netlink {
    handle: Handle,
    connection: AbortHandle,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, connection: tokio::spawn(connection).abort_handle() })
    }

    /// All interfaces and addresses.
    pub(super) async fn observe(&self) -> Result<Snapshot, Error> {
        let links = in_time(self.handle.link().get().execute().try_collect::<Vec<_>>()).await?;
        let addresses = in_time(self.handle.address().get().execute().try_collect::<Vec<_>>()).await?;
        let mut snapshot =
            Snapshot { addresses: addresses.into_iter().filter_map(address).collect(), ..Snapshot::default() };
        for Found { name, link, arp, virtual_link } in links.into_iter().filter_map(link) {
            if let Some((key, link)) = virtual_link {
                snapshot.virtuals.insert(key, link);
            } else {
                snapshot.arp.insert(name.clone(), arp);
                snapshot.links.insert(name, link);
            }
        }
        Ok(snapshot)
    }

    /// Makes a macvlan, down, that answers for its own addresses alone and gets none by itself.
    pub(super) async fn create(&self, NewLink { address, below, name }: &NewLink) -> Result<(), Error> {
        let link = LinkMacVlan::new(name, *below, MacVlanMode::Bridge).address(address.mac.to_vec()).build();
        in_time(self.handle.link().add(link).execute()).await?;
        let index = if_nametoindex(name.as_str()).map_err(|error| Error::Netlink { source: error.into() })?;
        let arp = Arp { ignore: 1, announce: 2 };
        let settings = vec![
            AfSpecUnspec::Inet(vec![inet_conf(&[
                (RP_FILTER, LOOSE),
                (ARP_IGNORE, arp.ignore),
                (ARP_ANNOUNCE, arp.announce),
            ])]),
            AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]),
        ];
        let alias = format!("{ALIAS} virtual router {} on {}", address.mac[5], address.interface);
        let message = LinkUnspec::new_with_index(index)
            .append_extra_attribute(LinkAttribute::IfAlias(alias))
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(settings))
            .build();
        let set = in_time(self.handle.link().set(message).execute()).await;
        if set.is_err() {
            // It would be in the way of the next try.
            let _ = self.delete(index).await;
        }
        deaf_to_routers(name);
        set
    }

    /// Sets an interface up or down.
    pub(super) async fn set_up(&self, index: u32, up: bool) -> Result<(), Error> {
        let link = LinkUnspec::new_with_index(index);
        let message = if up { link.up() } else { link.down() }.build();
        in_time(self.handle.link().set(message).execute()).await
    }

    /// Deletes an interface.
    pub(super) async fn delete(&self, index: u32) -> Result<(), Error> {
        in_time(self.handle.link().del(index).execute()).await
    }

    /// Sets how an interface answers ARP. By netlink and not by `/proc/sys`, which may be read-only.
    pub(super) async fn set_arp(&self, index: u32, Arp { ignore, announce }: Arp) -> Result<(), Error> {
        let conf = inet_conf(&[(ARP_IGNORE, ignore), (ARP_ANNOUNCE, announce)]);
        let settings = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![conf])]);
        let message = LinkUnspec::new_with_index(index).append_extra_attribute(settings).build();
        in_time(self.handle.link().set(message).execute()).await
    }

    /// Adds the address alone: no network route comes with it, and IPv6 asks nobody (the VIP may still answer elsewhere)
    /// and does not choose it as the source of own connections.
    pub(super) async fn add(&self, place: &Place) -> Result<(), Error> {
        let address = place.vip.address;
        let mut request = self.handle.address().add(place.index, address, host_prefix(address));
        if address.is_ipv6() {
            let message = request.message_mut();
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            let mut lifetime = CacheInfo::default();
            lifetime.ifa_preferred = 0;
            lifetime.ifa_valid = FOREVER;
            message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        }
        in_time(request.execute()).await
    }

    /// Removes what [`Netlink::add`] added.
    pub(super) async fn remove(&self, place: &Place) -> Result<(), Error> {
        let address = place.vip.address;
        // The request to add it has the same fields.
        let message = self.handle.address().add(place.index, address, host_prefix(address)).message_mut().clone();
        in_time(self.handle.address().del(message).execute()).await
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn in_time<T>(request: impl Future<Output = Result<T, rtnetlink::Error>>) -> Result<T, Error> {
    match time::timeout(ANSWER_WITHIN, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(rtnetlink::Error::NetlinkError(refused))) => Err(Error::Netlink { source: refused.to_io() }),
        Ok(Err(error)) => Err(Error::Netlink { source: io::Error::other(error) }),
        Err(_) => Err(Error::NoAnswer(ANSWER_WITHIN)),
    }
}

/// Tells that interfaces or addresses have changed, not how: the reader observes anew.
pub(super) struct Notifications {
    messages: Option<Pin<Box<dyn Stream<Item = ()> + Send + Sync>>>,
}

impl fmt::Debug for Notifications {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifications").field("open", &self.messages.is_some()).finish()
    }
}

impl Notifications {
    pub(super) fn open() -> io::Result<Self> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)?;
        // The connection ends when the receiver of its messages is gone.
        tokio::spawn(connection);
        Ok(Self { messages: Some(Box::pin(messages.map(drop))) })
    }

    /// Waits for a notification. Also returns when some may have been lost. Nothing is lost when the future is dropped.
    pub(super) async fn changed(&mut self) {
        if let Some(messages) = &mut self.messages
            && messages.next().await.is_some()
        {
            return;
        }
        self.messages = None;
        time::sleep(REOPEN_AFTER).await;
        match Self::open() {
            Ok(fresh) => *self = fresh,
            Err(error) => tracing::warn!(%error, "interfaces are not followed: no netlink socket; trying again"),
        }
    }
}

/// `net.ipv4.conf` of an interface. The crate's own type leaves out zeros, which are what is put back.
fn inet_conf(values: &[(u16, i32)]) -> AfSpecInet {
    let mut bytes = Vec::new();
    for (kind, value) in values {
        let attribute = DefaultNla::new(*kind, value.to_ne_bytes().to_vec());
        let start = bytes.len();
        bytes.resize(start + attribute.buffer_len(), 0);
        attribute.emit(&mut bytes[start..]);
    }
    AfSpecInet::Other(DefaultNla::new(INET_CONF | NLA_F_NESTED, bytes))
}

/// A macvlan must take neither addresses nor routes from routers' advertisements: those are the interface's below. Netlink has no
/// way to say so.
fn deaf_to_routers(name: &str) {
    let directory = Path::new("/proc/sys/net/ipv6/conf").join(name);
    let silenced =
        fs::write(directory.join("accept_ra"), "0").and_then(|()| fs::write(directory.join("autoconf"), "0"));
    match silenced {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, name, "IPv6 addresses and routes may come up on it: accept_ra cannot be set to 0");
        }
        // Without IPv6 there is none to be taken.
        Ok(()) | Err(_) => {}
    }
}

/// An interface as it is.
struct Found {
    name: String,
    link: Link,
    arp: Arp,
    /// It is a macvlan of ours.
    virtual_link: Option<((u32, [u8; 6]), VirtualLink)>,
}

fn link(message: LinkMessage) -> Option<Found> {
    let mut name = None;
    let mut mac = None;
    let mut carrier_ups = 0;
    let mut arp = Arp::default();
    let (mut is_macvlan, mut alias) = (false, String::new());
    for attribute in message.attributes {
        // Only these matter here.
        if let LinkAttribute::IfName(value) = attribute {
            name = Some(value);
        } else if let LinkAttribute::Address(value) = attribute {
            mac = value.try_into().ok();
        } else if let LinkAttribute::CarrierUpCount(value) = attribute {
            carrier_ups = value;
        } else if let LinkAttribute::AfSpecUnspec(settings) = attribute {
            arp = arp_of(&settings).unwrap_or_default();
        } else if let LinkAttribute::LinkInfo(info) = attribute {
            is_macvlan = info.contains(&LinkInfo::Kind(InfoKind::MacVlan));
        } else if let LinkAttribute::IfAlias(value) = attribute {
            alias = value;
        }
    }
    let name: String = name?;
    let is_ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let link = Link {
        index: message.header.index,
        mac: mac.filter(|_| is_ethernet),
        is_running: message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        carrier_ups,
    };
    // Without an alias: an lbd was killed while it made it.
    let is_ours = is_macvlan && (alias.is_empty() || alias.starts_with(ALIAS));
    let named = virtual_mac::of_name(&name).filter(|(_, mac)| is_ours && link.mac == Some(*mac));
    let is_up = message.header.flags.contains(LinkFlags::Up);
    let virtual_link = named.map(|key| (key, VirtualLink { index: link.index, is_up }));
    Some(Found { name, link, arp, virtual_link })
}

fn arp_of(settings: &[AfSpecUnspec]) -> Option<Arp> {
    let ipv4 =
        settings.iter().find_map(|family| if let AfSpecUnspec::Inet(ipv4) = family { Some(ipv4) } else { None })?;
    let conf = ipv4.iter().find_map(|item| if let AfSpecInet::DevConf(conf) = item { Some(conf) } else { None })?;
    Some(Arp { ignore: conf.arp_ignore, announce: conf.arp_announce })
}

fn address(message: AddressMessage) -> Option<(u32, IpAddr, u8)> {
    let mut address = None;
    for attribute in message.attributes {
        // IPv4 peers: `Local` is this end, `Address` the other. IPv6 has `Local` only on such links.
        if let AddressAttribute::Local(local) = attribute {
            address = Some(local);
        } else if let AddressAttribute::Address(value) = attribute {
            address = address.or(Some(value));
        }
    }
    Some((message.header.index, address?, message.header.prefix_len))
}
