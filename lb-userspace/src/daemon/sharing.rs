//! Sharing of connections: the flow tables of this machine and the link to the others, put together.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

use super::vips::Vips;
use crate::{
    config::Config,
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

/// The running exchange. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Sharing {
    link: share::Sharing,
    interfaces: watch::Sender<Interfaces>,
    fates: Arc<Fates>,
}

type Fates = [AtomicU64; Fate::ALL.len()];

/// Starts it where machines are to tell each other. One that cannot does everything else.
pub(super) fn start(config: &Config, vips: &Vips, context: &Context) -> Option<Sharing> {
    let (cluster, owned) = vips.owned()?;
    if !cluster.share_connections || cluster.peers.is_empty() {
        return None;
    }
    let files = &config.proxy.files;
    let keys = [Some(&cluster.key), cluster.old_key.as_ref()];
    let settings = Settings {
        machine: cluster.machine.clone(),
        secrets: keys.into_iter().flatten().map(|file| files.bytes(file).to_vec()).collect(),
        listen: cluster.listen.clone(),
        peers: cluster.peers.clone(),
    };
    let (interfaces, watched) = watch::channel(of(config));
    let fates = Arc::new(Fates::default());
    let source = || -> Box<dyn Source> { Box::new(Telling { survey: Survey::new(context), owned: owned.clone() }) };
    let started = Arrivals::new(context).map_err(io::Error::other).and_then(|arrivals| {
        let taking = Taking { arrivals, owned: owned.clone(), interfaces: watched, fates: Arc::clone(&fates) };
        share::start(settings, source, Box::new(taking))
    });
    match started {
        Ok(link) => Some(Sharing { link, interfaces, fates }),
        Err(error) => {
            tracing::error!(%error, "connections are not shared with other machines, and end when a VIP group moves");
            None
        }
    }
}

impl Sharing {
    /// Follows the configuration.
    pub(super) fn configure(&self, config: &Config) {
        let interfaces = of(config);
        self.interfaces.send_if_modified(|before| std::mem::replace(before, interfaces.clone()) != interfaces);
    }

    pub(super) fn view(&self) -> SharingView {
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
