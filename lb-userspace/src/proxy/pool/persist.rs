//! Session persistence: how a request tells which node its client was given before, and what is learnt for the next one.
//!
//! A cookie of ours carries the answer itself; every other kind finds it in a table that all threads and all pools of the
//! kind share. What a client sends is never trusted: an unknown session is a new one, a forged cookie is ignored.

use std::{sync::Arc, time::Duration};

use super::{Node, NodeId, Pool, key, shared::Shared};
use crate::{
    control::proxy::{
        Secret,
        pool::{NodeGone, PersistenceKind, Pool as PlanPool},
    },
    proxy::facts::Facts,
};

mod cookie;
mod session;
pub(super) mod table;

use cookie::Cookies;
use table::{Session, Table, TableKind};

/// A pool's persistence.
#[derive(Debug)]
pub(super) struct Persistence {
    kind: PersistenceKind,
    pub(super) node_gone: NodeGone,
    timeout: Duration,
    /// Hash of the pool's name: sessions of pools are told apart by it.
    pool: u64,
    memory: Memory,
}

/// Where it is remembered.
#[derive(Debug)]
enum Memory {
    /// By the client.
    Cookies(Box<Cookies>),
    /// By us.
    Table(Arc<Table>),
}

/// What a request says of its client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) known: Known,
    /// Its session, for the table.
    session: Option<Session>,
}

/// What is known of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing.
    Stranger,
    /// Its node.
    Node(NodeId),
    /// Its node, which the pool has no longer.
    Gone,
}

/// What the response may teach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Lesson {
    #[default]
    None,
    /// The client is to be told its node by our cookie.
    SetCookie,
    /// The node may begin a session.
    Session,
}

impl Persistence {
    pub(super) fn compile(
        pool: &PlanPool,
        name: (&str, u64),
        nodes: &[Node],
        secret: &Secret,
        shared: &Shared,
    ) -> Option<Self> {
        let plan = pool.persistence.as_ref()?;
        let memory = match (&plan.kind, TableKind::of(&plan.kind)) {
            (PersistenceKind::Cookie { name: cookie, attributes }, _) => {
                Memory::Cookies(Box::new(Cookies::new(secret, name.0, nodes, (cookie, attributes))))
            }
            (_, Some(kind)) => Memory::Table(Arc::clone(shared.table(kind))),
            (_, None) => return None,
        };
        Some(Self { kind: plan.kind.clone(), node_gone: plan.node_gone, timeout: plan.timeout, pool: name.1, memory })
    }

    /// Whose request it is.
    pub(super) fn ask(&self, pool: &Pool, facts: &dyn Facts, now: Duration) -> Asked {
        match &self.memory {
            Memory::Cookies(cookies) => {
                let known = facts.cookie(&cookies.name).map_or(Known::Stranger, |value| cookies.find(&value));
                Asked { known, session: None }
            }
            Memory::Table(table) => {
                let found = session::of_request(&self.kind, facts);
                let session = found.id.map(|id| Session { pool: self.pool, id: id.number(&pool.hashes) });
                let node = session.and_then(|session| table.find(session, self.timeout, now));
                let known = match (node, found.route) {
                    (Some(identity), _) => by_identity(&pool.nodes, identity).map_or(Known::Gone, Known::Node),
                    (None, Some(route)) => by_name(&pool.nodes, &route).map_or(Known::Stranger, Known::Node),
                    (None, None) => Known::Stranger,
                };
                Asked { known, session }
            }
        }
    }

    /// Whether the table of `kind` has sessions of this pool, under this number.
    pub(super) fn is_in(&self, kind: TableKind, pool: u64) -> bool {
        TableKind::of(&self.kind) == Some(kind) && self.pool == pool
    }

    /// Another node was chosen for the client than it had, or its first: remembers it. Returns what the response may teach.
    pub(super) fn chosen(&self, asked: &Asked, node: &Node, now: Duration) -> Lesson {
        let Memory::Table(table) = &self.memory else { return Lesson::SetCookie };
        if let Some(session) = asked.session
            && (asked.known != Known::Stranger || !self.is_begun_by_nodes())
        {
            table.learn(session, node.identity, self.timeout, now);
        }
        self.lesson_of_known()
    }

    /// What the response to a client that keeps its node may teach.
    pub(super) fn lesson_of_known(&self) -> Lesson {
        if self.is_begun_by_nodes() { Lesson::Session } else { Lesson::None }
    }

    /// The `Set-Cookie` value that tells a client its node.
    pub(super) fn set_cookie(&self, node: NodeId) -> Option<&str> {
        match &self.memory {
            Memory::Cookies(cookies) => cookies.set_cookie(node),
            Memory::Table(_) => None,
        }
    }

    /// Learns the sessions that a response begins.
    pub(super) fn learn<'a>(
        &self,
        pool: &Pool,
        node: &Node,
        set_cookies: impl IntoIterator<Item = &'a str>,
        location: Option<&str>,
        now: Duration,
    ) {
        let Memory::Table(table) = &self.memory else { return };
        let begun = set_cookies.into_iter().filter_map(|value| session::of_set_cookie(&self.kind, value));
        for id in begun.chain(location.and_then(|location| session::of_location(&self.kind, location))) {
            let session = Session { pool: self.pool, id: id.number(&pool.hashes) };
            table.learn(session, node.identity, self.timeout, now);
        }
    }

    /// Whether nodes begin sessions: what clients say is then not learnt.
    fn is_begun_by_nodes(&self) -> bool {
        match self.kind {
            PersistenceKind::ApplicationCookie(_) | PersistenceKind::Jsession | PersistenceKind::AspNet => true,
            PersistenceKind::SourceAddress { .. }
            | PersistenceKind::Cookie { .. }
            | PersistenceKind::Header(_)
            | PersistenceKind::Query(_)
            | PersistenceKind::TlsSession => false,
        }
    }
}

/// What keeps a persistent client on one address of a node that has several.
pub(super) fn address_key(facts: &dyn Facts) -> u64 {
    key::address_key(facts.client())
}

fn by_identity(nodes: &[Node], identity: u64) -> Option<NodeId> {
    nodes.iter().find(|node| node.identity == identity).map(Node::id)
}

fn by_name(nodes: &[Node], name: &str) -> Option<NodeId> {
    nodes.iter().find(|node| node.name() == name).map(Node::id)
}
