//! The control task as the admin API sees it: questions and orders travel over a bounded channel to the one writer of
//! state; counters are read here, on the asker's thread, so that control never waits for the maps.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::control::{
    query::{Control, Counters, DataPath, Order, ProxyPath, QueryError},
    view::{CertificateView, PoolView, Status, VipsView, VirtualServerView},
};

/// Requests that wait for the control task at most; further askers wait for their turn.
const QUEUE: usize = 64;

/// What the control task is asked.
#[derive(Debug)]
pub(super) enum Request {
    /// The daemon.
    Status(Counters, oneshot::Sender<Status>),
    /// All virtual servers.
    VirtualServers(Counters, oneshot::Sender<Vec<VirtualServerView>>),
    /// All pools.
    Pools(Counters, oneshot::Sender<Vec<PoolView>>),
    /// The certificates of the configuration.
    Certificates(oneshot::Sender<Vec<CertificateView>>),
    /// VIP groups and machines.
    Vips(oneshot::Sender<VipsView>),
    /// To change something.
    Order(Order, oneshot::Sender<Result<(), QueryError>>),
}

/// The asking end. Its methods block: they are for the admin API's blocking threads.
#[derive(Debug)]
pub(super) struct Handle {
    requests: mpsc::Sender<Request>,
    data_path: Arc<dyn DataPath>,
    proxy: Arc<dyn ProxyPath>,
}

impl Handle {
    /// A handle and the end that the control task reads.
    pub(super) fn new(data_path: Arc<dyn DataPath>, proxy: Arc<dyn ProxyPath>) -> (Self, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(QUEUE);
        (Self { requests, data_path, proxy }, receiver)
    }

    /// Counters of both halves.
    fn counters(&self) -> Result<Counters, QueryError> {
        Ok(Counters { proxy: self.proxy.counted(), ..self.data_path.counters()? })
    }

    fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, QueryError> {
        let stopping = || QueryError::Conflict("lbd is stopping".to_owned());
        let (answer, answered) = oneshot::channel();
        self.requests.blocking_send(request(answer)).map_err(|_| stopping())?;
        answered.blocking_recv().map_err(|_| stopping())
    }
}

impl Control for Handle {
    fn status(&self) -> Result<Status, QueryError> {
        let counters = self.data_path.counters()?;
        self.ask(|answer| Request::Status(counters, answer))
    }

    fn virtual_servers(&self) -> Result<Vec<VirtualServerView>, QueryError> {
        let counters = self.counters()?;
        self.ask(|answer| Request::VirtualServers(counters, answer))
    }

    fn pools(&self) -> Result<Vec<PoolView>, QueryError> {
        let counters = self.counters()?;
        self.ask(|answer| Request::Pools(counters, answer))
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
