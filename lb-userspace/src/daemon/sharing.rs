//! Sharing of connections: the flow tables of this machine and the link to the others, put together.

use std::{
    cell::RefCell,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

use super::vips::Vips;
use crate::{
    config::{Config, cluster::Cluster},
    control::{
        shared::Shared,
        view::{SharingMachine, SharingView},
    },
    dataplane::{
        inspect::Context,
        share::{Arrivals, Fate, Interfaces, Owned, Survey},
    },
    failover::{
        share::{self, Settings, Sink, Source},
        told::Told,
    },
};

/// Places of a flow table that are looked at before others get their turn: well below a millisecond.
const STEP_PLACES: u32 = 8192;

/// The exchange, which runs while the configuration has machines to tell.
#[derive(Debug)]
pub(super) struct Sharing {
    context: Context,
    running: RefCell<Option<Arc<Running>>>,
}

/// It ends when this is dropped.
#[derive(Debug)]
struct Running {
    link: share::Sharing,
    interfaces: watch::Sender<Interfaces>,
    fates: Arc<Fates>,
}

type Fates = [AtomicU64; Fate::ALL.len()];

/// Starts it where machines are to tell each other.
pub(super) fn start(config: &Config, vips: &Vips, context: Context) -> Sharing {
    let sharing = Sharing { context, running: RefCell::default() };
    sharing.configure(config, vips);
    sharing
}

/// What is to be shared with whom; `None`: nothing.
fn settings(config: &Config, cluster: &Cluster) -> Option<Settings> {
    if !cluster.share_connections || cluster.peers.is_empty() {
        return None;
    }
    let files = &config.proxy.files;
    let keys = [Some(&cluster.key), cluster.old_key.as_ref()];
    Some(Settings {
        machine: cluster.machine.clone(),
        secrets: keys.into_iter().flatten().map(|file| files.bytes(file).to_vec()).collect(),
        listen: cluster.listen.clone(),
        peers: cluster.peers.clone(),
    })
}

impl Running {
    fn start(settings: Settings, interfaces: Interfaces, owned: &Told<Owned>, context: &Context) -> io::Result<Self> {
        let (interfaces, watched) = watch::channel(interfaces);
        let fates = Arc::new(Fates::default());
        let (told, surveyed) = (owned.clone(), context.clone());
        let source =
            move || -> Box<dyn Source> { Box::new(Telling { survey: Survey::new(&surveyed), owned: told.clone() }) };
        let arrivals = Arrivals::new(context).map_err(io::Error::other)?;
        let taking = Taking { arrivals, owned: owned.clone(), interfaces: watched, fates: Arc::clone(&fates) };
        Ok(Self { link: share::start(settings, source, Box::new(taking))?, interfaces, fates })
    }
}

impl Sharing {
    /// Follows the configuration and the cluster that is in force. A machine that cannot share does everything else.
    pub(super) fn configure(&self, config: &Config, vips: &Vips) {
        let mut running = self.running.borrow_mut();
        let wanted = vips.owned().and_then(|(cluster, owned)| Some((settings(config, &cluster)?, owned)));
        let Some((settings, owned)) = wanted else { return *running = None };
        let interfaces = of(config);
        match &*running {
            Some(running) => {
                running.link.configure(settings);
                running
                    .interfaces
                    .send_if_modified(|before| std::mem::replace(before, interfaces.clone()) != interfaces);
            }
            None => match Running::start(settings, interfaces, &owned, &self.context) {
                Ok(started) => *running = Some(Arc::new(started)),
                Err(error) => {
                    tracing::error!(%error, "connections are not shared, and end when a VIP group moves; it is tried again");
                }
            },
        }
    }

    /// Tells all that is new now, because VIPs are about to move.
    pub(super) async fn flush(&self) {
        let running = self.running.borrow().clone();
        if let Some(running) = running {
            running.link.flush().await;
        }
    }

    /// What an operator should know.
    pub(super) fn problems(&self) -> Vec<String> {
        let running = self.running.borrow();
        let deaf = running.iter().flat_map(|running| running.link.status().deaf);
        deaf.map(|(address, why)| format!("other machines cannot share their connections at {address}: {why}"))
            .collect()
    }

    pub(super) fn view(&self) -> Option<SharingView> {
        self.running.borrow().as_deref().map(Running::view)
    }
}

impl Running {
    fn view(&self) -> SharingView {
        let status = self.link.status();
        let machine = |(name, peer): (&String, &share::PeerStatus)| SharingMachine {
            name: name.clone(),
            is_connected: peer.is_connected,
            told: peer.told,
            sent: peer.sent,
            received: peer.received,
            why: peer.why.clone(),
        };
        let fates = Fate::ALL.iter().zip(self.fates.iter());
        SharingView {
            machines: status.peers.iter().map(machine).collect(),
            fates: fates.map(|((_, word), count)| ((*word).to_owned(), count.load(Ordering::Relaxed))).collect(),
            refused: status.refused,
        }
    }
}

/// The interface of each VIP.
fn of(config: &Config) -> Interfaces {
    config.vips.values().flat_map(|group| group.interfaces.clone()).collect()
}

struct Telling {
    survey: Survey,
    owned: Told<Owned>,
}

impl Source for Telling {
    fn restart(&mut self) {
        self.survey.restart();
    }

    fn advance(&mut self, out: &mut Vec<Shared>) -> bool {
        self.survey.advance(STEP_PLACES, &self.owned.now(), out)
    }

    fn told(&self) -> usize {
        self.survey.told()
    }
}

struct Taking {
    arrivals: Arrivals,
    owned: Told<Owned>,
    interfaces: watch::Receiver<Interfaces>,
    fates: Arc<Fates>,
}

impl Sink for Taking {
    fn take(&mut self, shared: &Shared) {
        let fate = self.arrivals.take(shared, &self.owned.now(), &self.interfaces.borrow());
        self.fates[fate as usize].fetch_add(1, Ordering::Relaxed);
    }
}
