//! The control task as the admin API sees it: questions and orders travel over a bounded channel to the one writer of
//! state; counters are read here, on the asker's thread, so that control never waits for the maps.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::revisions::Revisions;
use crate::{
    config::Config,
    control::{
        query::{Control, Counters, DataPath, Everything, Nodes, Order, Part, ProxyPath, QueryError},
        revision::{
            Applied, Author, Configuration, Content, Difference, Proposal, RevisionDocument, RevisionsView, Side,
            Source,
        },
        view::{CertificateView, PoolView, Status, VipsView, VirtualServerView},
    },
};

/// Requests that wait for the control task at most; further askers wait for their turn.
const QUEUE: usize = 64;

/// What the control task is asked.
#[derive(Debug)]
pub(super) enum Request {
    /// Whether everything serves.
    Ready(oneshot::Sender<bool>),
    /// The daemon.
    Status(Counters, oneshot::Sender<Status>),
    /// All virtual servers.
    VirtualServers(Counters, Nodes, oneshot::Sender<Vec<VirtualServerView>>),
    /// A virtual server.
    VirtualServer(String, Counters, oneshot::Sender<Option<VirtualServerView>>),
    /// A pool.
    Pool(String, Counters, oneshot::Sender<Option<PoolView>>),
    /// All pools.
    Pools(Counters, Nodes, oneshot::Sender<Vec<PoolView>>),
    /// All of it at one moment.
    Everything(Counters, oneshot::Sender<Everything>),
    /// The certificates of the configuration.
    Certificates(oneshot::Sender<Vec<CertificateView>>),
    /// VIP groups and machines.
    Vips(oneshot::Sender<VipsView>),
    /// To take a configuration into force, or why the one that was read cannot be.
    Configure(Result<Box<Config>, QueryError>, oneshot::Sender<Result<(), QueryError>>),
    /// To change something.
    Order(Order, oneshot::Sender<Result<(), QueryError>>),
}

/// The asking end. Its methods block: they are for the admin API's blocking threads.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) data_path: Arc<dyn DataPath>,
    pub(super) proxy: Arc<dyn ProxyPath>,
    pub(super) revisions: Arc<Revisions>,
}

/// Where requests go in, and the end that the control task reads.
pub(super) fn requests() -> (mpsc::Sender<Request>, mpsc::Receiver<Request>) {
    mpsc::channel(QUEUE)
}

impl Handle {
    /// Counters of both halves.
    fn counters(&self) -> Result<Counters, QueryError> {
        self.counters_of(Part::All)
    }

    fn counters_of(&self, part: Part<'_>) -> Result<Counters, QueryError> {
        Ok(Counters { proxy: self.proxy.counted(part), ..self.data_path.counters_of(part)? })
    }

    /// Says how many connections go through what changes.
    fn count(&self, difference: &mut Difference) -> Result<(), QueryError> {
        if difference.changes.is_empty() {
            return Ok(());
        }
        let part = match &difference.changes[..] {
            [change] if change.kind == "node" => change.name.split_once('/').map(|(pool, _)| Part::Pool(pool)),
            _ => None,
        };
        let Counters { nodes, proxy, .. } = self.counters_of(part.unwrap_or(Part::All))?;
        let l4 = |is_meant: &dyn Fn(&str, &str, &str) -> bool| -> u64 {
            nodes.iter().filter(|((server, pool, node), _)| is_meant(server, pool, node)).map(|(_, c)| c.active).sum()
        };
        let l7 = |server: &str| proxy.virtual_servers.get(server).map_or(0, |counters| counters.connections);
        let l7_nodes = |pool: &str, is_meant: &dyn Fn(&str) -> bool| -> u64 {
            let nodes = proxy.nodes.get(pool).into_iter().flatten();
            nodes.filter(|(node, _)| is_meant(node)).map(|(_, counters)| counters.connections).sum()
        };
        for change in &mut difference.changes {
            change.connections = match (change.kind.as_str(), change.name.split_once('/')) {
                ("node", Some((pool, name))) => {
                    l4(&|_, in_pool, node| in_pool == pool && node == name) + l7_nodes(pool, &|node| node == name)
                }
                ("pool", _) => l4(&|_, pool, _| pool == change.name) + l7_nodes(&change.name, &|_| true),
                _ => {
                    let servers = &change.virtual_servers;
                    let of_proxy: u64 = servers.iter().map(|server| l7(server)).sum();
                    l4(&|server, _, _| servers.iter().any(|name| name == server)) + of_proxy
                }
            };
        }
        Ok(())
    }

    fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, QueryError> {
        let stopping = || QueryError::Conflict("lbd is stopping".to_owned());
        let (answer, answered) = oneshot::channel();
        self.requests.blocking_send(request(answer)).map_err(|_| stopping())?;
        answered.blocking_recv().map_err(|_| stopping())
    }
}

impl Control for Handle {
    fn ready(&self) -> Result<bool, QueryError> {
        self.ask(Request::Ready)
    }

    fn status(&self) -> Result<Status, QueryError> {
        let counters = self.data_path.counters_of(Part::Machine)?;
        let mut status = self.ask(|answer| Request::Status(counters, answer))?;
        self.revisions.annotate(&mut status);
        Ok(status)
    }

    fn virtual_servers(&self, nodes: Nodes) -> Result<Vec<VirtualServerView>, QueryError> {
        let counters = self.counters_of(match nodes {
            Nodes::Shown => Part::All,
            Nodes::Counted => Part::VirtualServers,
        })?;
        self.ask(|answer| Request::VirtualServers(counters, nodes, answer))
    }

    fn virtual_server(&self, name: &str) -> Result<Option<VirtualServerView>, QueryError> {
        let counters = self.counters_of(Part::VirtualServer(name))?;
        self.ask(|answer| Request::VirtualServer(name.to_owned(), counters, answer))
    }

    fn pool(&self, name: &str) -> Result<Option<PoolView>, QueryError> {
        let counters = self.counters_of(Part::Pool(name))?;
        self.ask(|answer| Request::Pool(name.to_owned(), counters, answer))
    }

    fn pools(&self, nodes: Nodes) -> Result<Vec<PoolView>, QueryError> {
        let counters = self.counters()?;
        self.ask(|answer| Request::Pools(counters, nodes, answer))
    }

    fn everything(&self) -> Result<Everything, QueryError> {
        let counters = self.counters()?;
        let mut everything = self.ask(|answer| Request::Everything(counters, answer))?;
        self.revisions.annotate(&mut everything.status);
        Ok(everything)
    }

    fn certificates(&self) -> Result<Vec<CertificateView>, QueryError> {
        self.ask(Request::Certificates)
    }

    fn vips(&self) -> Result<VipsView, QueryError> {
        self.ask(Request::Vips)
    }

    fn order(&self, order: Order) -> Result<(), QueryError> {
        self.ask(|answer| Request::Order(order, answer))?
    }
}

impl Configuration for Handle {
    fn revisions(&self) -> Result<RevisionsView, QueryError> {
        Ok(self.revisions.view())
    }

    fn revision(&self, number: Option<u64>) -> Result<RevisionDocument, QueryError> {
        self.revisions.read(number)
    }

    fn difference(&self, from: Side, to: Side) -> Result<Difference, QueryError> {
        let mut difference = self.revisions.compare(from, to)?;
        self.count(&mut difference)?;
        Ok(difference)
    }

    fn apply(&self, proposal: Proposal, author: &Author) -> Result<Applied, QueryError> {
        let source = match proposal.content {
            Content::Whole(_) => Source::Apply,
            Content::Edits(_) => Source::Edit,
            Content::Revision(_) => Source::Rollback,
        };
        self.revisions.propose(proposal, author, source, &|difference| self.count(difference))
    }

    fn reload(&self, author: &Author) -> Result<Applied, QueryError> {
        self.revisions.read_again(Source::Reload, author)
    }

    fn confirm(&self, author: &Author) -> Result<u64, QueryError> {
        let revision = self.revisions.confirm()?;
        tracing::info!(revision, author, "the revision is confirmed");
        Ok(revision)
    }
}
