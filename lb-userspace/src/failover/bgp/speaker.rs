//! The BGP speakers: a task for each neighbour, which keeps a session with it and announces what is to be announced.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::{Duration, Instant},
};

use tokio::{io::AsyncReadExt, net::TcpStream, sync::watch, task::AbortHandle, time};

use super::{
    Neighbor, NeighborStatus, OPEN_WITHIN, State,
    session::{End, Ends, Session},
    socket,
};
use crate::failover::until;

/// Between a session that has ended, or a connection that did not come about, and the next try.
const AGAIN: Duration = Duration::from_secs(1);

/// What is read at once: a neighbour that floods waits for heartbeats, and not they for it.
const READ: usize = 8 * 1024;

/// What waits to be sent, at most: beyond, the neighbour does not read, and the hold timer decides.
const MAX_UNSENT: usize = 256 * 1024;

/// All speakers.
#[derive(Debug, Default)]
pub struct Speakers {
    speakers: BTreeMap<String, Speaker>,
    announced: BTreeSet<IpAddr>,
}

#[derive(Debug)]
struct Speaker {
    neighbor: Neighbor,
    wanted: watch::Sender<BTreeSet<IpAddr>>,
    status: watch::Receiver<NeighborStatus>,
    task: AbortHandle,
}

impl Drop for Speaker {
    fn drop(&mut self) {
        // Its connection is closed, and the neighbour withdraws what it has heard there.
        self.task.abort();
    }
}

impl Speakers {
    /// The neighbours from now on. Sessions with those that stay as they are go on. On a runtime.
    pub fn configure(&mut self, neighbors: Vec<Neighbor>) {
        let mut before = std::mem::take(&mut self.speakers);
        for neighbor in neighbors {
            let same = before.remove(&neighbor.name).filter(|speaker| speaker.neighbor == neighbor);
            let speaker = same.unwrap_or_else(|| Speaker::start(neighbor, self.announced.clone()));
            self.speakers.insert(speaker.neighbor.name.clone(), speaker);
        }
    }

    /// Whether there is anybody to announce to.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.speakers.is_empty()
    }

    /// Withdraws what is not among these.
    pub fn keep(&mut self, vips: &BTreeSet<IpAddr>) {
        let kept = self.announced.intersection(vips).copied().collect();
        self.announce(&kept);
    }

    /// What is announced from now on.
    pub fn announce(&mut self, vips: &BTreeSet<IpAddr>) {
        if self.announced != *vips {
            self.announced.clone_from(vips);
            for speaker in self.speakers.values() {
                speaker.wanted.send_replace(vips.clone());
            }
        }
    }

    /// How the sessions stand.
    #[must_use]
    pub fn status(&self) -> Vec<NeighborStatus> {
        self.speakers.values().map(|speaker| speaker.status.borrow().clone()).collect()
    }
}

impl Speaker {
    fn start(neighbor: Neighbor, announced: BTreeSet<IpAddr>) -> Self {
        let (wanted, wants) = watch::channel(announced);
        let (status, watched) = watch::channel(NeighborStatus {
            name: neighbor.name.clone(),
            address: neighbor.address,
            asn: neighbor.settings.peer_as,
            state: State::Connecting,
            since: Instant::now(),
            announced: 0,
            why: None,
        });
        let task = tokio::spawn(run(neighbor.clone(), wants, status)).abort_handle();
        Self { neighbor, wanted, status: watched, task }
    }
}

async fn run(neighbor: Neighbor, mut wanted: watch::Receiver<BTreeSet<IpAddr>>, status: watch::Sender<NeighborStatus>) {
    loop {
        let connected = time::timeout(OPEN_WITHIN, socket::connect(&neighbor)).await;
        let why = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => converse(&neighbor, stream, &mut wanted, &status).await,
            Err(error) => format!("no connection: {error}"),
        };
        if status.borrow().why.as_ref() != Some(&why) || status.borrow().state == State::Established {
            tracing::warn!(neighbor = neighbor.name, address = %neighbor.address, why, "there is no BGP session");
        }
        note(&status, State::Connecting, 0, Some(why));
        time::sleep(AGAIN).await;
    }
}

/// Keeps the session until it ends: why.
async fn converse(
    neighbor: &Neighbor,
    mut stream: TcpStream,
    wanted: &mut watch::Receiver<BTreeSet<IpAddr>>,
    status: &watch::Sender<NeighborStatus>,
) -> String {
    let ends = match ends(neighbor, &stream) {
        Ok(ends) => ends,
        Err(why) => return why,
    };
    let (mut session, mut unsent) = Session::open(neighbor.settings.clone(), ends, Instant::now());
    let vips = wanted.borrow_and_update().clone();
    unsent.extend(session.announce(vips, Instant::now()));
    let mut buffer = [0; READ];
    loop {
        let why = status.borrow().why.clone().filter(|_| session.state() != State::Established);
        note(status, session.state(), session.announced(), why);
        let step = step(&mut stream, &mut session, &mut unsent, &mut buffer, wanted).await;
        let step = step.and_then(|()| if unsent.len() > MAX_UNSENT { Err(unread()) } else { Ok(()) });
        if let Err(End { last_words, why }) = step {
            // What cannot be said at once is said by the end of the connection.
            let _ = stream.try_write(&last_words);
            return why;
        }
    }
}

/// Waits for one thing and does what follows.
async fn step(
    stream: &mut TcpStream,
    session: &mut Session,
    unsent: &mut Vec<u8>,
    buffer: &mut [u8],
    wanted: &mut watch::Receiver<BTreeSet<IpAddr>>,
) -> Result<(), End> {
    let output = if unsent.is_empty() {
        tokio::select! {
            biased;
            changed = wanted.changed() => {
                changed.map_err(|_| lost("lbd ends"))?;
                let vips = wanted.borrow_and_update().clone();
                session.announce(vips, Instant::now())
            }
            () = until(session.deadline()) => session.tick(Instant::now())?,
            read = stream.read(buffer) => match read {
                Ok(0) => return Err(lost("the neighbour has closed the connection")),
                Ok(length) => session.receive(&buffer[..length], Instant::now())?,
                Err(error) => return Err(lost(&error.to_string())),
            },
        }
    } else {
        tokio::select! {
            writable = stream.writable() => writable.map_err(|error| lost(&error.to_string()))?,
            () = until(session.deadline()) => return session.tick(Instant::now()).map(|output| unsent.extend(output)),
        }
        Vec::new()
    };
    unsent.extend(output);
    match stream.try_write(unsent) {
        Ok(sent) => drop(unsent.drain(..sent)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(lost(&error.to_string())),
    }
    Ok(())
}

/// What the session takes from its connection.
fn ends(neighbor: &Neighbor, stream: &TcpStream) -> Result<Ends, String> {
    let own = stream.local_addr().map_err(|error| error.to_string())?.ip();
    let (own4, own6) = match own {
        IpAddr::V4(own) => (Some(own), None),
        IpAddr::V6(own) => (None, Some(own).filter(|own| !own.is_unicast_link_local())),
    };
    let router_id = neighbor.router_id.or(own4).ok_or("an IPv6 session needs router_id")?;
    Ok(Ends { router_id, next_hop4: neighbor.next_hop4.or(own4), next_hop6: neighbor.next_hop6.or(own6) })
}

fn note(status: &watch::Sender<NeighborStatus>, state: State, announced: usize, why: Option<String>) {
    status.send_if_modified(|status| {
        if (status.state, status.announced, &status.why) == (state, announced, &why) {
            return false;
        }
        if status.state != state {
            status.since = Instant::now();
            if state == State::Established {
                tracing::info!(neighbor = status.name, address = %status.address, "BGP session established");
            }
        }
        (status.state, status.announced, status.why) = (state, announced, why);
        true
    });
}

fn lost(why: &str) -> End {
    End { last_words: Vec::new(), why: why.to_owned() }
}

fn unread() -> End {
    lost("the neighbour does not read")
}
