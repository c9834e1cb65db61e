//! Heartbeats between our own machines: what they look like, and which of them are genuine and fresh.
//!
//! One datagram (UDP, unicast or multicast) says for every VIP group what its sender is to it. Pure: no socket, clock or
//! randomness. Big-endian:
//!
//! ```text
//!  0  "LBH1"            4  key id           5  flags, 0          6  length of the whole datagram
//!  8  sender           16  boot: a random number, new at every start of the sender
//! 24  sequence: grows by one with every datagram of this boot    32  wall clock, ms since 1970
//! 40  echoes: count    41  0               42  groups: count     44  interval in ms    46  0
//! 48  echoes of 16 bytes: machine, its boot – whom the sender has heard lately
//!     groups of 16 bytes: group, role, priority, 0, successor (0: none)
//!     HMAC-SHA256 over everything before it, its first 16 bytes
//! ```
//!
//! Why not CARP's or VRRP's: their authentication does not stop a recorded advertisement from being sent again, and a stale
//! one of a dead owner, sent once per interval, keeps its successors from taking over for ever.

use aws_lc_rs::{constant_time, hmac};

use super::election::{MachineId, Role, Says};

mod freshness;

pub use self::freshness::{Freshness, Path, Refused};

const MAGIC: [u8; 4] = *b"LBH1";
const HEADER: usize = 48;
const ENTRY: usize = 16;
const TAG: usize = 16;

/// The longest heartbeat: it must fit an Ethernet frame behind IPv6 and UDP.
pub const MAX_BYTES: usize = 1_452;

/// The most echoes and groups of one heartbeat; further groups need a further heartbeat.
pub const MAX_ENTRIES: usize = (MAX_BYTES - HEADER - TAG) / ENTRY;

/// Tells groups apart: the same on all machines, made of the group's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

impl GroupId {
    /// Of a group's name: 32-bit FNV-1a. Stable for ever: machines of different versions must agree.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        Self(name.bytes().fold(0x811c_9dc5, step))
    }
}

/// A random number that is new at every start of a machine's lbd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boot(pub u64);

/// A heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who sent it.
    pub sender: MachineId,
    /// Of which start.
    pub boot: Boot,
    /// Its number within that start.
    pub sequence: u64,
    /// The sender's wall clock, in ms since 1970.
    pub sent_ms: u64,
    /// The sender's interval, in ms.
    pub interval_ms: u16,
    /// Whom the sender has heard lately, with the boot it heard.
    pub echoes: Vec<(MachineId, Boot)>,
    /// What it says of groups.
    pub groups: Vec<(GroupId, Says)>,
}

/// Why a datagram is no heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is something else.
    #[error("it is no heartbeat of lb")]
    Foreign,
    /// Lengths or values do not fit.
    #[error("lengths or values in it do not fit")]
    Format,
    /// It was made with another key, or changed on the way.
    #[error("its authentication is wrong: is the cluster's key the same on both machines?")]
    Forged,
}

/// The key that machines of a cluster share.
#[derive(Debug)]
pub struct Key {
    id: u8,
    key: hmac::Key,
}

impl Key {
    /// A key of any length; it is told apart from the one before it by what it is, so that nobody has to number keys.
    #[must_use]
    pub fn of_secret(secret: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret);
        Self::new(digest.as_ref()[0], secret)
    }

    /// The same with a number of one's own.
    #[must_use]
    pub fn new(id: u8, secret: &[u8]) -> Self {
        Self { id, key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }
}

impl Heartbeat {
    /// Writes it, with at most [`MAX_ENTRIES`] echoes and groups together: what is beyond is left out.
    pub fn write(&self, key: &Key, out: &mut Vec<u8>) {
        out.clear();
        let echoes = self.echoes.len().min(MAX_ENTRIES / 2);
        let groups = self.groups.len().min(MAX_ENTRIES - echoes);
        let length = HEADER + (echoes + groups) * ENTRY + TAG;
        out.extend(MAGIC);
        out.extend([key.id, 0]);
        out.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        out.extend(self.sender.0.to_be_bytes());
        out.extend(self.boot.0.to_be_bytes());
        out.extend(self.sequence.to_be_bytes());
        out.extend(self.sent_ms.to_be_bytes());
        out.extend([u8::try_from(echoes).unwrap_or(u8::MAX), 0]);
        out.extend(u16::try_from(groups).unwrap_or(u16::MAX).to_be_bytes());
        out.extend(self.interval_ms.to_be_bytes());
        out.extend([0, 0]);
        for (machine, boot) in &self.echoes[..echoes] {
            out.extend(machine.0.to_be_bytes());
            out.extend(boot.0.to_be_bytes());
        }
        for (group, says) in &self.groups[..groups] {
            out.extend(group.0.to_be_bytes());
            out.extend([role_number(says.role), says.priority, 0, 0]);
            out.extend(says.successor.map_or(0, |machine| machine.0).to_be_bytes());
        }
        let tag = hmac::sign(&key.key, out);
        out.extend(&tag.as_ref()[..TAG]);
    }

    /// Reads one that was made with one of `keys`.
    ///
    /// # Errors
    /// When it is something else, malformed, or not authentic. Nothing of it may be believed then.
    pub fn read(datagram: &[u8], keys: &[Key]) -> Result<Self, Malformed> {
        let header = datagram.first_chunk::<HEADER>().ok_or(Malformed::Foreign)?;
        if header[..4] != MAGIC {
            return Err(Malformed::Foreign);
        }
        let (echoes, groups) = (usize::from(header[40]), usize::from(u16_at(header, 42)));
        let length = HEADER + (echoes + groups) * ENTRY + TAG;
        if datagram.len() != length || length > MAX_BYTES || usize::from(u16_at(header, 6)) != length {
            return Err(Malformed::Format);
        }
        let (content, tag) = datagram.split_at(length - TAG);
        let signed = |key: &&Key| {
            let expected = hmac::sign(&key.key, content);
            constant_time::verify_slices_are_equal(&expected.as_ref()[..TAG], tag).is_ok()
        };
        // Two secrets may have the same number.
        keys.iter().filter(|key| key.id == header[4]).find(signed).ok_or(Malformed::Forged)?;

        let (echo_bytes, group_bytes) = content[HEADER..].split_at(echoes * ENTRY);
        let echo = |entry: &[u8]| (MachineId(u64_at(entry, 0)), Boot(u64_at(entry, 8)));
        Ok(Self {
            sender: MachineId(u64_at(header, 8)),
            boot: Boot(u64_at(header, 16)),
            sequence: u64_at(header, 24),
            sent_ms: u64_at(header, 32),
            interval_ms: u16_at(header, 44),
            echoes: echo_bytes.chunks_exact(ENTRY).map(echo).collect(),
            groups: group_bytes.chunks_exact(ENTRY).map(group).collect::<Result<_, _>>()?,
        })
    }

    /// Whether its sender has heard this start of `machine`.
    #[must_use]
    pub fn hears(&self, machine: MachineId, boot: Boot) -> bool {
        self.echoes.contains(&(machine, boot))
    }
}

fn group(entry: &[u8]) -> Result<(GroupId, Says), Malformed> {
    let role = match entry[4] {
        0 => Role::Idle,
        1 => Role::Backup,
        2 => Role::Active,
        _ => return Err(Malformed::Format),
    };
    let successor = Some(u64_at(entry, 8)).filter(|machine| *machine != 0).map(MachineId);
    let id = u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]]);
    Ok((GroupId(id), Says { role, priority: entry[5], successor }))
}

fn role_number(role: Role) -> u8 {
    match role {
        Role::Idle => 0,
        Role::Backup => 1,
        Role::Active => 2,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(word)
}

#[cfg(test)]
mod tests;
