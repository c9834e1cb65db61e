//! Addresses and interfaces over rtnetlink: what there is, when it changes, and adding and removing VIPs.

use std::{fmt, io, net::IpAddr, pin::Pin, time::Duration};

use futures_util::{Stream, StreamExt, TryStreamExt};
use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo},
    link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
};
use rtnetlink::{Handle, MulticastGroup};
use tokio::{task::AbortHandle, time};

use super::{
    Error,
    vips::{Link, Place, Snapshot, host_prefix},
};

/// The kernel answers at once; what takes longer will not come.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Between two tries to follow the kernel's notifications again.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// `IFA_CACHEINFO` lifetime without end.
const FOREVER: u32 = u32::MAX;

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
        Ok(Snapshot {
            links: links.into_iter().filter_map(link).collect(),
            addresses: addresses.into_iter().filter_map(address).collect(),
        })
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

fn link(message: LinkMessage) -> Option<(String, Link)> {
    let mut name = None;
    let mut mac = None;
    let mut carrier_ups = 0;
    for attribute in message.attributes {
        // Only these three matter here.
        if let LinkAttribute::IfName(value) = attribute {
            name = Some(value);
        } else if let LinkAttribute::Address(value) = attribute {
            mac = value.try_into().ok();
        } else if let LinkAttribute::CarrierUpCount(value) = attribute {
            carrier_ups = value;
        }
    }
    let is_ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let link = Link {
        index: message.header.index,
        mac: mac.filter(|_| is_ethernet),
        is_running: message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        carrier_ups,
    };
    Some((name?, link))
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
