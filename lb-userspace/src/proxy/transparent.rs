//! Connections to nodes that come from the client's own address (`transparent`).
//!
//! Only a socket with `IP_TRANSPARENT` may be bound to an address that is not this machine's, and setting that takes a right
//! that the worker does not have. So lbd makes such sockets, unbound, and hands them over in advance; binding and connecting
//! them needs no right any more. What a worker that was taken over gains by them is what it could do anyway for its clients:
//! connections that seem to come from somebody else.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use super::reactor::{self, Deadline, Socket};
use crate::control::proxy::ProxyPlan;

/// Sockets that are asked for at a time: what one message of lbd's holds.
pub const PORTION: usize = 200;

/// With so many left, more are asked for.
const LOW: usize = 150;

/// Why there is no connection from the client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSource {
    /// Of IPv4 and IPv6, one cannot speak to the other.
    #[error("the client's address is of another family than the node's")]
    Family,
    /// lbd gave no socket in time.
    #[error("lbd gives no sockets for clients' addresses")]
    NoSocket,
}

/// The sockets that lbd made, for all threads.
#[derive(Debug, Default)]
pub struct Stock {
    families: [Family; 2],
    ask: OnceLock<Ask>,
}

#[derive(Debug, Default)]
struct Family {
    sockets: Mutex<Vec<OwnedFd>>,
    /// lbd was asked, and did not answer yet.
    asked: AtomicBool,
}

/// Asks lbd for a portion: of IPv6, or of IPv4.
struct Ask(Box<dyn Fn(bool) + Send + Sync>);

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ask")
    }
}

impl Stock {
    /// How lbd is asked, from now on. The first word holds.
    pub fn ask_by(&self, ask: impl Fn(bool) + Send + Sync + 'static) {
        // Set before, it stays.
        let _ = self.ask.set(Ask(Box::new(ask)));
    }

    /// Takes in what lbd made.
    pub fn put(&self, ipv6: bool, sockets: Vec<OwnedFd>) {
        let family = self.family(ipv6);
        family.lock().extend(sockets);
        family.asked.store(false, Relaxed);
    }

    /// lbd could not be asked: the next who needs one tries again.
    pub fn not_asked(&self, ipv6: bool) {
        self.family(ipv6).asked.store(false, Relaxed);
    }

    /// Asks for what a plan will need.
    pub(super) fn prepare(&self, plan: &ProxyPlan) {
        let nodes = plan.pools.values().filter(|pool| pool.transparent).flat_map(|pool| pool.nodes.values());
        for address in nodes.flat_map(|node| &node.addresses) {
            let left = self.family(address.is_ipv6()).lock().len();
            self.ask_if_low(address.is_ipv6(), left);
        }
    }

    fn take(&self, ipv6: bool) -> Option<OwnedFd> {
        let (socket, left) = {
            let mut sockets = self.family(ipv6).lock();
            (sockets.pop(), sockets.len())
        };
        self.ask_if_low(ipv6, left);
        socket
    }

    fn ask_if_low(&self, ipv6: bool, left: usize) {
        if left < LOW
            && let Some(ask) = self.ask.get()
            && !self.family(ipv6).asked.swap(true, Relaxed)
        {
            (ask.0)(ipv6);
        }
    }

    fn family(&self, ipv6: bool) -> &Family {
        &self.families[usize::from(ipv6)]
    }
}

impl Family {
    fn lock(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins to connect to `address` from the client's address, with a port that the kernel chooses.
///
/// # Errors
/// [`NoSource`] in the outer result; the kernel's in the inner one.
pub(super) async fn connect(
    stock: &Stock,
    client: IpAddr,
    address: SocketAddr,
    deadline: &Deadline,
    until_ms: u64,
) -> Result<std::io::Result<Socket>, NoSource> {
    let client = client.to_canonical();
    if client.is_ipv4() != address.is_ipv4() {
        return Err(NoSource::Family);
    }
    let socket = loop {
        if let Some(socket) = stock.take(address.is_ipv6()) {
            break socket;
        }
        let now_ms = reactor::now_ms();
        if now_ms >= until_ms {
            return Err(NoSource::NoSocket);
        }
        // Looked at again at the next tick.
        deadline.sleep_until(now_ms + 1).await;
    };
    Ok(Socket::connect_by(socket, Some(SocketAddr::new(client, 0)), address))
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpListener,
        os::fd::OwnedFd,
        sync::{Arc, atomic::AtomicUsize},
    };

    use super::*;

    fn socket() -> OwnedFd {
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM.nonblocking(), None).unwrap().into()
    }

    #[test]
    fn lbd_is_asked_once_until_it_answers() {
        let stock = Stock::default();
        assert!(stock.take(false).is_none(), "nobody to ask yet");
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        stock.ask_by(move |ipv6| {
            counted.fetch_add(if ipv6 { 100 } else { 1 }, Relaxed);
        });
        for _ in 0..3 {
            assert!(stock.take(false).is_none());
        }
        assert_eq!(asked.load(Relaxed), 1);
        stock.put(false, (0..PORTION).map(|_| socket()).collect());
        for taken in 1..=PORTION {
            assert!(stock.take(false).is_some());
            assert_eq!(asked.load(Relaxed), 1 + usize::from(PORTION - taken < LOW), "{taken}");
        }
        assert!(stock.take(true).is_none());
        assert_eq!(asked.load(Relaxed), 102);
        stock.not_asked(true);
        assert!(stock.take(true).is_none());
        assert_eq!(asked.load(Relaxed), 202, "asked again");
    }

    #[test]
    fn connections_come_from_the_clients_address() {
        reactor::run(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let (stock, deadline) = (Stock::default(), Deadline::new());
            stock.put(false, vec![socket()]);
            // All of 127.0.0.0/8 is this machine's: binding to it takes no right.
            let client: IpAddr = "::ffff:127.0.0.77".parse().unwrap();
            let until = reactor::now_ms() + 100;
            let connected = connect(&stock, client, address, &deadline, until).await.unwrap().unwrap();
            connected.connected().await.unwrap();
            assert_eq!(listener.accept().unwrap().1.ip(), client.to_canonical());
            let none = connect(&stock, client, address, &deadline, until).await;
            assert_eq!(none.err(), Some(NoSource::NoSocket));
            let other = connect(&stock, "::1".parse().unwrap(), address, &deadline, until).await;
            assert_eq!(other.err(), Some(NoSource::Family));
        })
        .unwrap();
    }
}
