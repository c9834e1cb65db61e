//! The task that carries out what [`Vips`] says: netlink requests, announcements, the record.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Error, RaisedVip, Wanted,
    addresses::{Netlink, Notifications},
    announce::Announcement,
    packet_socket::PacketSocket,
    record::{Own, Record},
    until,
    vips::{Announce, Changes, Event, Place, Surroundings, Vips},
    virtual_mac::{LinkChanges, NewLink},
};

/// Notifications come in bursts; one look at the kernel answers them all.
const SETTLE: Duration = Duration::from_millis(50);

/// A timer that is later than this finds a process that stood still: another machine may own by now.
const LATE: Duration = Duration::from_millis(40);

/// After the kernel could not be observed.
const OBSERVE_AGAIN: Duration = Duration::from_secs(1);

/// What sends the result of a withdrawal.
pub(super) type Done = oneshot::Sender<Result<(), Error>>;

/// What is ordered beside the set of wanted VIPs.
#[derive(Debug)]
pub(super) enum Order {
    /// This is to be there; the answer comes when the kernel was asked.
    Set(Wanted, oneshot::Sender<()>),
    /// These are to be announced again.
    Announce(BTreeSet<RaisedVip>),
}

#[derive(Debug)]
pub(super) struct Engine {
    vips: Vips,
    record: Record,
    netlink: Netlink,
    notifications: Notifications,
    packets: PacketSocket,
    observe_at: Option<Instant>,
    /// When the kernel was looked at because of a notification.
    glanced: Option<Instant>,
    /// Until then nothing is done but what is ordered: whoever orders learns first what happened meanwhile.
    held: Option<Instant>,
    /// What the kernel said of a VIP that it refused to add or remove.
    failures: BTreeMap<RaisedVip, String>,
    /// Why macvlans cannot be made, by their names: a fault of this machine.
    unmade: BTreeMap<String, String>,
    /// Why ones that are there cannot be raised, by their indices.
    unraised: BTreeMap<u32, String>,
    problems: watch::Sender<Vec<String>>,
    surroundings: watch::Sender<Surroundings>,
}

impl Engine {
    pub(super) fn new(
        state_dir: &Path,
        problems: watch::Sender<Vec<String>>,
        surroundings: watch::Sender<Surroundings>,
    ) -> Result<Self, Error> {
        let socket = |what| move |source| Error::Socket { what, source };
        let record = Record::new(state_dir);
        let own = record.read().unwrap_or_else(|error| {
            tracing::warn!(%error, "addresses raised by an earlier lbd are not known and stay if they left the configuration");
            Own::default()
        });
        Ok(Self {
            vips: Vips::new(own),
            record,
            // Before the first look at the kernel, so that no change falls between.
            notifications: Notifications::open().map_err(socket("netlink"))?,
            netlink: Netlink::open().map_err(socket("netlink"))?,
            packets: PacketSocket::open().map_err(socket("packet"))?,
            observe_at: None,
            glanced: None,
            held: None,
            failures: BTreeMap::new(),
            unmade: BTreeMap::new(),
            unraised: BTreeMap::new(),
            problems,
            surroundings,
        })
    }

    /// Runs until it is withdrawn or nobody can change what is wanted any longer.
    pub(super) async fn run(
        mut self,
        mut wanted: watch::Receiver<Option<Wanted>>,
        mut orders: mpsc::UnboundedReceiver<Order>,
        mut withdraw: mpsc::Receiver<Done>,
    ) {
        loop {
            let not_before = |at: Instant| self.held.map_or(at, |held| at.max(held));
            let (observe_at, wakeup) = (self.observe_at.map(not_before), self.vips.wakeup().map(not_before));
            tokio::select! {
                changed = wanted.changed() => {
                    let Ok(()) = changed else { return };
                    let wanted = wanted.borrow_and_update().clone();
                    self.step(Event::Wanted(wanted.unwrap_or_default())).await;
                }
                Some(order) = orders.recv() => match order {
                    Order::Set(wanted, done) => {
                        self.step(Event::Wanted(wanted)).await;
                        // Who asked has stopped waiting.
                        let _ = done.send(());
                    }
                    Order::Announce(vips) => self.step(Event::Announce(vips)).await,
                },
                done = withdraw.recv() => {
                    let Some(done) = done else { return };
                    // Nobody waits for the answer: there is nobody to tell.
                    let _ = done.send(self.take_down().await);
                    return;
                }
                () = self.notifications.changed() => self.notified().await,
                () = until(observe_at) => if !self.stood_still(observe_at) { self.observe().await },
                () = until(wakeup) => if !self.stood_still(wakeup) { self.step(Event::Tick).await },
            }
        }
    }

    /// Something has changed: others learn at once what, as it may be a carrier that is lost. What follows for addresses waits for the
    /// rest of the burst, and for whoever orders, who may have stood still as well.
    async fn notified(&mut self) {
        let now = Instant::now();
        if self.observe_at.is_none() && self.glanced.is_none_or(|at| now.saturating_duration_since(at) >= SETTLE) {
            self.glanced = Some(now);
            let _ = self.look().await;
        }
        self.observe_at.get_or_insert(now + SETTLE);
    }

    /// Whether this process stood still beyond a timer: once, then what is due is done.
    fn stood_still(&mut self, due: Option<Instant>) -> bool {
        let is_late = self.held.is_none() && due.is_some_and(|due| due.elapsed() > LATE);
        self.held = is_late.then(|| Instant::now() + SETTLE);
        is_late
    }

    async fn take_down(&mut self) -> Result<(), Error> {
        self.step(Event::Wanted(Wanted::default())).await;
        let left: Vec<String> =
            self.vips.ours().iter().map(|vip| format!("{} on {}", vip.address, vip.interface)).collect();
        if left.is_empty() { Ok(()) } else { Err(Error::Left(left.join(", "))) }
    }

    /// Applies the event and everything that follows from it.
    async fn step(&mut self, event: Event) {
        if matches!(event, Event::Wanted(_)) {
            // All of it is tried anew.
            self.unmade.clear();
            self.unraised.clear();
        }
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let changes = self.vips.apply(event, Instant::now());
            events.extend(self.carry_out(changes).await);
            if events.is_empty() && self.vips.is_blind() {
                events.extend(self.look().await);
            }
        }
        self.tell_problems();
    }

    async fn observe(&mut self) {
        self.observe_at = None;
        if let Some(observed) = self.look().await {
            self.step(observed).await;
        }
    }

    async fn look(&mut self) -> Option<Event> {
        match self.netlink.observe().await {
            Ok(snapshot) => {
                let unmade = self.unmade.values().cloned().collect();
                let now = Surroundings { unmade, ..snapshot.surroundings() };
                self.surroundings.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
                Some(Event::Observed(snapshot))
            }
            Err(error) => {
                tracing::warn!(%error, "cannot list interfaces and addresses; trying again");
                self.observe_at = Some(Instant::now() + OBSERVE_AGAIN);
                None
            }
        }
    }

    async fn carry_out(&mut self, changes: Changes) -> Vec<Event> {
        if let Some(own) = changes.record {
            self.write_record(own);
        }
        let LinkChanges { lower, delete, arp, create, raise } = changes.links;
        for index in lower.into_iter().chain(delete.iter().copied()) {
            let lowered = self.netlink.set_up(index, false).await;
            note_link("virtual MAC address lowered", index, lowered);
        }
        for place in &changes.remove {
            let removed = self.netlink.remove(place).await;
            self.note(place, "VIP taken down", removed);
        }
        for index in delete {
            note_link("virtual MAC address deleted", index, self.netlink.delete(index).await);
        }
        for (index, arp) in arp {
            note_link("how an interface answers ARP", index, self.netlink.set_arp(index, arp).await);
        }
        for link in &create {
            self.create(link).await;
        }
        for index in raise {
            self.unraised.remove(&index);
            if let Err(error) = self.netlink.set_up(index, true).await {
                let why =
                    format!("the virtual MAC address of a VIP group (interface {index}) cannot be raised: {error}");
                self.unraised.insert(index, why);
            }
        }
        let mut events = Vec::new();
        for place in changes.add {
            match self.netlink.add(&place).await {
                Err(Error::Netlink { source }) if source.kind() == io::ErrorKind::AlreadyExists => {
                    events.push(Event::WasThere(place.vip));
                }
                added => self.note(&place, "VIP raised", added),
            }
        }
        for announce in &changes.announce {
            self.announce(announce);
        }
        events
    }

    /// On this thread: a thread of lesser priority could be late, and the VIPs wait for it.
    fn write_record(&self, own: Own) {
        // The VIPs matter more than the record of them.
        if let Err(error) = self.record.write(own) {
            tracing::warn!(%error, "the record of raised addresses could not be written");
        }
    }

    fn note(&mut self, Place { vip, .. }: &Place, done: &'static str, result: Result<(), Error>) {
        let (address, interface) = (vip.address, &vip.interface);
        match result {
            Ok(()) => {
                self.failures.remove(vip);
                tracing::info!(%address, interface, "{done}");
            }
            Err(error) => {
                self.failures.insert(vip.clone(), error.to_string());
            }
        }
    }

    /// Makes a macvlan, down, and lets it answer for its own addresses alone.
    async fn create(&mut self, link: &NewLink) {
        let NewLink { address, name, .. } = link;
        let interface = &address.interface;
        match self.netlink.create(link).await {
            Ok(()) => {
                tracing::info!(name, interface, "interface with a virtual MAC address made");
                self.unmade.remove(name);
            }
            Err(error) => {
                let why = format!(
                    "interface {name} with the virtual MAC address of a VIP group cannot be made on {interface}: {error}"
                );
                self.unmade.insert(name.clone(), why);
            }
        }
    }

    fn announce(&self, Announce { vip, index, mac, carrier }: &Announce) {
        let is_router = vip.address.is_ipv6() && is_forwarding(carrier);
        let frame = Announcement { address: vip.address, mac: *mac, is_router }.frame();
        let (address, interface) = (vip.address, &vip.interface);
        match self.packets.send(*index, &frame) {
            Ok(()) => tracing::debug!(%address, interface, "VIP announced"),
            Err(error) => tracing::warn!(%address, interface, %error, "VIP could not be announced"),
        }
    }

    /// Warns of each problem when it appears.
    fn tell_problems(&mut self) {
        self.failures.retain(|vip, _| self.vips.is_settled(vip) != Some(true));
        let refused = self.failures.iter().map(|(vip, why)| (vip, why.clone()));
        let missing = self.vips.without_interface().map(|vip| (vip, "the interface does not exist (yet)".to_owned()));
        let now: Vec<String> = missing
            .chain(refused)
            .map(|(RaisedVip { address, interface, .. }, why)| format!("VIP {address} on {interface}: {why}"))
            .chain(self.unmade.values().chain(self.unraised.values()).cloned())
            .collect();
        for problem in now.iter().filter(|problem| !self.problems.borrow().contains(problem)) {
            tracing::warn!("{problem}");
        }
        self.problems.send_if_modified(|before| {
            let is_new = *before != now;
            *before = now;
            is_new
        });
    }
}

/// What fails is tried again: the next look shows it.
fn note_link(done: &'static str, index: u32, result: Result<(), Error>) {
    match result {
        Ok(()) => tracing::debug!(index, "{done}"),
        Err(error) => tracing::warn!(index, %error, "{done}: the kernel refuses; it is tried again"),
    }
}

/// Whether the kernel's own neighbour advertisements on this interface say "router".
fn is_forwarding(interface: &str) -> bool {
    let path = Path::new("/proc/sys/net/ipv6/conf").join(interface).join("forwarding");
    fs::read(path).is_ok_and(|value| value.first().is_some_and(|first| *first != b'0'))
}
