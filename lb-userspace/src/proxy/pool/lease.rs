//! A request, or a connection of generic TCP, that a node was given: counted as long as it lives, and told what happened.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use super::{
    Pool,
    node::{Node, NodeId},
    persist::Lesson,
};
use crate::control::proxy::pool::Failure;

/// A node, taken for one request. Tell it what happens; drop it when the request is over, whichever way.
///
/// Order of calls: `connected` or `connect_failed` (not for a kept connection); then `responded`, `first_byte`,
/// `early_close` or `reply_timeout`. A request that its client gave up needs no call.
#[derive(Debug)]
#[must_use = "a lease that is dropped gives the node back"]
pub struct Lease {
    pool: Rc<Pool>,
    node: NodeId,
    address: SocketAddr,
    /// It has one of the node's `max_connections`.
    counted: bool,
    /// It tries a node that is out.
    probe: bool,
    /// What its response may teach of the client's session.
    pub(super) lesson: Lesson,
}

impl Lease {
    /// Takes the node; `None` when it has no room, or is out and another request tries it.
    pub(super) fn take(pool: &Rc<Pool>, node: &Node, key: Option<u64>) -> Option<Self> {
        let shared = &node.state.shared;
        let address = node.address(key)?;
        let probe = shared.is_out();
        if probe && !shared.start_probe() {
            return None;
        }
        let counted = node.max_connections != 0;
        if counted && !shared.take(node.max_connections) {
            if probe {
                shared.probed();
            }
            return None;
        }
        node.state.open.set(node.state.open.get() + 1);
        Some(Self { pool: Rc::clone(pool), node: node.id, address, counted, probe, lesson: Lesson::None })
    }

    /// The pool that serves: another than was asked for, if a failure pool had to.
    #[must_use]
    pub fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.pool.nodes[self.node.index()]
    }

    /// Where to connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A new connection stands, TLS included.
    pub fn connected(&self) {
        self.node().state.shared.worked(Failure::Connect);
    }

    /// The connection was refused or did not stand in time; `after`: how long that took.
    pub fn connect_failed(&self, after: Duration, now: Duration) {
        self.node().state.latency.observe(after, now);
        self.failed(Failure::Connect, now);
    }

    /// The node closed before a response, or what it sent was none. Not for a kept connection that was closed before it
    /// sent anything: that happens to healthy nodes.
    pub fn early_close(&self, now: Duration) {
        self.failed(Failure::EarlyClose, now);
    }

    /// The reply did not come in time; `after`: how long was waited.
    pub fn reply_timeout(&self, after: Duration, now: Duration) {
        self.node().state.latency.observe(after, now);
        self.failed(Failure::ReplyTimeout, now);
    }

    /// The head of the final response is there. `after`: since the request was sent.
    pub fn responded(&self, status: u16, after: Duration, now: Duration) {
        let passive = &self.pool.settings.passive;
        if passive.statuses.contains(&status) {
            self.node().state.latency.observe(after, now);
            self.failed(Failure::Status, now);
            return;
        }
        self.node().state.shared.worked(Failure::Status);
        self.first_byte(after, now);
    }

    /// Generic TCP: the node sent its first byte. `after`: since the connection stood.
    pub fn first_byte(&self, after: Duration, now: Duration) {
        let state = &self.node().state;
        state.latency.observe(after, now);
        state.shared.worked(Failure::EarlyClose);
        state.shared.worked(Failure::ReplyTimeout);
        if self.probe {
            state.shared.back(now);
        }
    }

    /// Whether [`Self::learn`] has to see the response.
    #[must_use]
    pub fn watches_response(&self) -> bool {
        self.lesson != Lesson::None
    }

    /// Learns the session that a response begins, from its `Set-Cookie` fields (one value each) and its `Location`. Returns
    /// the value of a `Set-Cookie` field to be added to the response, which tells the client its node.
    #[must_use = "the client has to be told"]
    pub fn learn<'a>(
        &self,
        set_cookies: impl IntoIterator<Item = &'a str>,
        location: Option<&str>,
        now: Duration,
    ) -> Option<&str> {
        let persistence = self.pool.persistence.as_ref()?;
        match self.lesson {
            Lesson::None => None,
            Lesson::SetCookie => persistence.set_cookie(self.node),
            Lesson::Session => {
                persistence.learn(&self.pool, self.node(), set_cookies, location, now);
                None
            }
        }
    }

    fn failed(&self, failure: Failure, now: Duration) {
        self.node().state.shared.failed(failure, &self.pool.settings.passive, self.probe, now);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let state = &self.node().state;
        state.open.set(state.open.get().saturating_sub(1));
        if self.probe {
            state.shared.probed();
        }
        if self.counted {
            state.shared.give_back();
        }
    }
}
