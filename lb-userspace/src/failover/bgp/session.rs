//! One BGP session from the moment its connection stands (RFC 4271 §8), without a socket or a clock: bytes and time go in,
//! bytes come out.

use std::{
    collections::BTreeSet,
    mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use super::{
    OPEN_WITHIN, State,
    message::{self, Community, Family, Fault, Message, Open, Path, ROUTES},
};

/// Degree of preference of what is announced by iBGP: the usual one.
const LOCAL_PREFERENCE: u32 = 100;

/// What is said in a session, whatever connection it uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The own autonomous system.
    pub own_as: u32,
    /// The neighbour's; the same: iBGP.
    pub peer_as: u32,
    /// Without a word for so long the session ends; whole seconds.
    pub hold_time: Duration,
    /// What routes are marked with.
    pub communities: Vec<Community>,
    /// Multi-exit discriminator.
    pub med: Option<u32>,
    /// How often the own autonomous system is repeated.
    pub prepend: u8,
}

/// What depends on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) router_id: Ipv4Addr,
    pub(super) next_hop4: Option<Ipv4Addr>,
    pub(super) next_hop6: Option<Ipv6Addr>,
}

/// Why a session ends, and what the neighbour is told before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) last_words: Vec<u8>,
    pub(super) why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Our OPEN is out.
    OpenSent,
    /// The neighbour's was good.
    OpenConfirm,
    Established,
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    settings: Settings,
    ends: Ends,
    phase: Phase,
    /// What came and is not a whole message yet.
    input: Vec<u8>,
    four_octets: bool,
    families: Vec<Family>,
    /// Zero: neither side says that it lives.
    hold: Duration,
    heard: Instant,
    said: Instant,
    wanted: BTreeSet<IpAddr>,
    announced: BTreeSet<IpAddr>,
}

impl Session {
    /// A session on a new connection, and what is to be sent first.
    pub(super) fn open(settings: Settings, ends: Ends, now: Instant) -> (Self, Vec<u8>) {
        let open = Open {
            asn: settings.own_as,
            hold: settings.hold_time,
            router_id: ends.router_id,
            four_octets: true,
            families: Family::ALL.to_vec(),
        };
        let session = Self {
            settings,
            ends,
            phase: Phase::OpenSent,
            input: Vec::new(),
            four_octets: false,
            families: Vec::new(),
            hold: OPEN_WITHIN,
            heard: now,
            said: now,
            wanted: BTreeSet::new(),
            announced: BTreeSet::new(),
        };
        (session, open.write())
    }

    pub(super) fn state(&self) -> State {
        if self.phase == Phase::Established { State::Established } else { State::Opening }
    }

    pub(super) fn announced(&self) -> usize {
        self.announced.len()
    }

    /// When [`Self::tick`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let hold = (!self.hold.is_zero()).then_some(self.heard + self.hold);
        let word = (self.phase == Phase::Established && !self.hold.is_zero()).then(|| self.said + self.hold / 3);
        hold.into_iter().chain(word).min()
    }

    /// Bytes came: what is to be sent.
    pub(super) fn receive(&mut self, bytes: &[u8], now: Instant) -> Result<Vec<u8>, End> {
        self.input.extend(bytes);
        let input = mem::take(&mut self.input);
        let (mut rest, mut output) = (input.as_slice(), Vec::new());
        while let Some((message, length)) = message::read(rest).map_err(|fault| refuse(fault, ""))? {
            rest = &rest[length..];
            output.extend(self.hear(&message, now)?);
        }
        self.input = rest.to_vec();
        Ok(output)
    }

    /// Time has passed: what is to be sent.
    pub(super) fn tick(&mut self, now: Instant) -> Result<Vec<u8>, End> {
        if !self.hold.is_zero() && now >= self.heard + self.hold {
            return Err(refuse(Fault::HOLD_TIMER, &format!("nothing was heard for {:?}", self.hold)));
        }
        if self.phase == Phase::Established && !self.hold.is_zero() && now >= self.said + self.hold / 3 {
            self.said = now;
            return Ok(message::keep_alive());
        }
        Ok(Vec::new())
    }

    /// What is to be announced from now on: what is to be sent for that.
    pub(super) fn announce(&mut self, wanted: BTreeSet<IpAddr>, now: Instant) -> Vec<u8> {
        self.wanted = wanted;
        self.follow(now)
    }

    fn hear(&mut self, message: &Message, now: Instant) -> Result<Vec<u8>, End> {
        self.heard = now;
        match (message, self.phase) {
            (Message::Notification(fault), _) => {
                Err(End { last_words: Vec::new(), why: format!("the neighbour says: {}", fault.meaning()) })
            }
            (Message::Open(open), Phase::OpenSent) => {
                self.accept(open)?;
                (self.phase, self.said) = (Phase::OpenConfirm, now);
                Ok(message::keep_alive())
            }
            (Message::KeepAlive, Phase::OpenConfirm) => {
                self.phase = Phase::Established;
                Ok(self.follow(now))
            }
            (Message::KeepAlive | Message::Update, Phase::Established) => Ok(Vec::new()),
            (Message::RouteRefresh, Phase::Established) => {
                self.announced.clear();
                Ok(self.follow(now))
            }
            _ => Err(refuse(Fault::STATE_MACHINE, "a message that does not belong here")),
        }
    }

    fn accept(&mut self, open: &Open) -> Result<(), End> {
        if open.asn != self.settings.peer_as {
            let why = format!("the neighbour is AS {}, not {}", open.asn, self.settings.peer_as);
            return Err(refuse(Fault::BAD_PEER_AS, &why));
        }
        let internal = self.settings.own_as == self.settings.peer_as;
        // RFC 6286 §2.2: another one within an autonomous system, and never none.
        if open.router_id.is_unspecified() || internal && open.router_id == self.ends.router_id {
            let why = format!("its identifier is {}", open.router_id);
            return Err(refuse(Fault::BAD_IDENTIFIER, &why));
        }
        self.hold = open.hold.min(self.settings.hold_time);
        self.four_octets = open.four_octets;
        self.families.clone_from(&open.families);
        Ok(())
    }

    /// Sends what has changed. Withdrawals first: they are what others wait for.
    fn follow(&mut self, now: Instant) -> Vec<u8> {
        if self.phase != Phase::Established {
            return Vec::new();
        }
        let mut output = Vec::new();
        for family in Family::ALL {
            let next_hop = match family {
                Family::V4 => self.ends.next_hop4.map(IpAddr::V4),
                Family::V6 => self.ends.next_hop6.map(IpAddr::V6),
            };
            let Some(next_hop) = next_hop.filter(|_| self.families.contains(&family)) else { continue };
            let of = |set: &BTreeSet<IpAddr>| -> BTreeSet<IpAddr> {
                set.iter().filter(|vip| Family::of(vip) == family).copied().collect()
            };
            let (wanted, before) = (of(&self.wanted), of(&self.announced));
            let gone: Vec<IpAddr> = before.difference(&wanted).copied().collect();
            output.extend(gone.chunks(ROUTES).flat_map(|vips| message::withdraw(family, vips)));
            let new: Vec<IpAddr> = wanted.difference(&before).copied().collect();
            output.extend(new.chunks(ROUTES).flat_map(|vips| message::announce(next_hop, vips, &self.path())));
            self.announced.retain(|vip| Family::of(vip) != family);
            self.announced.extend(wanted);
        }
        if !output.is_empty() {
            self.said = now;
        }
        output
    }

    fn path(&self) -> Path<'_> {
        let Settings { own_as, peer_as, communities, med, prepend, .. } = &self.settings;
        let internal = own_as == peer_as;
        Path {
            path: if internal { Vec::new() } else { vec![*own_as; usize::from(*prepend) + 1] },
            four_octets: self.four_octets,
            med: *med,
            local_preference: internal.then_some(LOCAL_PREFERENCE),
            communities,
        }
    }
}

fn refuse(fault: Fault, why: &str) -> End {
    let why = if why.is_empty() { fault.meaning().to_owned() } else { why.to_owned() };
    End { last_words: message::notification(fault), why }
}

#[cfg(test)]
mod tests;
