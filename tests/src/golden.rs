//! Golden packets: frames that went into the data path and what came out, byte for byte, as they stand in `golden.txt`. Tests
//! and `xtask verify` replay them. They are written by the verdict tests, which take the expected frames from the plain-Rust
//! model, not from the program (`LB_GOLDEN=write`).
//!
//! A story is a configuration of one virtual server and packets that come one after the other:
//!
//! ```text
//! story C dsr ipv4 tcp 1 a connection ends
//! > 0200000000aa…
//! < TX forwarded_dsr 0200000001…
//! ```

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use anyhow::{Context, Result, bail, ensure};
use lb_common::reason::Reason;

use crate::rig::{
    Rig, action,
    world::{MODES, Mode, TCP, UDP, World},
};

/// The recorded stories.
pub static TEXT: &str = include_str!("golden.txt");

/// The acceptance families of the data path: verdicts, malformed packets, flows, translation and ICMP errors, echo, ring,
/// mutated packets.
pub const FAMILIES: [char; 7] = ['A', 'B', 'C', 'D', 'E', 'F', 'G'];

/// How many golden packets there must be.
pub const LEAST: usize = 160;

/// A frame, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Golden {
    /// As it comes in.
    pub frame: Vec<u8>,
    /// `rig::action`.
    pub action: u32,
    /// The counter that goes up.
    pub reason: Reason,
    /// As it leaves, unless it is dropped.
    pub out: Option<Vec<u8>>,
}

/// Packets that come one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// One of [`FAMILIES`].
    pub family: char,
    /// Forwarding of the one virtual server.
    pub mode: Mode,
    /// Whether it has an IPv4 address.
    pub v4: bool,
    /// TCP or UDP.
    pub protocol: u8,
    /// Its nodes.
    pub nodes: u8,
    /// What it tells.
    pub name: String,
    /// The packets.
    pub packets: Vec<Golden>,
}

impl Story {
    /// What the balancer is configured with.
    #[must_use]
    pub fn world(&self) -> World {
        World::of(self.mode, self.v4, self.protocol, self.nodes)
    }

    /// Runs its packets, beginning without connections.
    ///
    /// # Errors
    /// Says which packet became something else.
    pub fn replay(&self, rig: &mut Rig) -> Result<()> {
        rig.configure(self.world())?;
        rig.forget()?;
        for (i, golden) in self.packets.iter().enumerate() {
            let outcome = rig.run(&golden.frame)?;
            let out = (outcome.action != action::DROP).then_some(outcome.bytes);
            let found = Golden { frame: golden.frame.clone(), action: outcome.action, reason: outcome.reason, out };
            ensure!(found == *golden, "{}: packet {}\nexpected {golden}\nfound    {found}", self.title(), i + 1);
        }
        Ok(())
    }

    fn title(&self) -> String {
        let Self { family, nodes, name, .. } = self;
        let (version, protocol) =
            (if self.v4 { "ipv4" } else { "ipv6" }, if self.protocol == TCP { "tcp" } else { "udp" });
        format!("{family} {} {version} {protocol} {nodes} {name}", mode_name(self.mode))
    }

    fn of_title(title: &str) -> Result<Self> {
        let words: Vec<&str> = title.splitn(6, ' ').collect();
        let [family, mode, version, protocol, nodes, name] = words[..] else { bail!("not a story's title: {title}") };
        let family = family.chars().next().filter(|family| FAMILIES.contains(family)).context("no such family")?;
        let mode = MODES.into_iter().find(|known| mode_name(*known) == mode).context("no such mode")?;
        Ok(Self {
            family,
            mode,
            v4: version == "ipv4",
            protocol: if protocol == "tcp" { TCP } else { UDP },
            nodes: nodes.parse().context("no number of nodes")?,
            name: name.to_owned(),
            packets: Vec::new(),
        })
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "story {}", self.title())?;
        self.packets.iter().try_for_each(|golden| writeln!(f, "> {}\n< {golden}", hex(&golden.frame)))
    }
}

impl fmt::Display for Golden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let out = self.out.as_deref().map(hex).unwrap_or_default();
        write!(f, "{}", format!("{} {} {out}", action::name(self.action), self.reason.name()).trim_end())
    }
}

/// Reads stories as they are written.
///
/// # Errors
/// Names the line that is none of a story.
pub fn parse(text: &str) -> Result<Vec<Story>> {
    let mut stories: Vec<Story> = Vec::new();
    let mut frame = None;
    for (number, line) in text.lines().enumerate() {
        read_line(line, &mut stories, &mut frame).with_context(|| format!("golden.txt, line {}", number + 1))?;
    }
    Ok(stories)
}

fn read_line(line: &str, stories: &mut Vec<Story>, frame: &mut Option<Vec<u8>>) -> Result<()> {
    if let Some(title) = line.strip_prefix("story ") {
        stories.push(Story::of_title(title)?);
    } else if let Some(bytes) = line.strip_prefix("> ") {
        *frame = Some(unhex(bytes)?);
    } else if let Some(verdict) = line.strip_prefix("< ") {
        let mut words = verdict.split(' ');
        let (action, reason) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let golden = Golden {
            frame: frame.take().context("no frame before this")?,
            action: (1..=4).find(|known| action::name(*known) == action).context("no such action")?,
            reason: Reason::ALL.iter().copied().find(|known| known.name() == reason).context("no such reason")?,
            out: words.next().map(unhex).transpose()?,
        };
        stories.last_mut().context("no story before this")?.packets.push(golden);
    } else if !line.starts_with('#') {
        bail!("neither a story nor a packet: {line}");
    }
    Ok(())
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Dsr => "dsr",
        Mode::Nat => "nat",
        Mode::SourceNat => "source_nat",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    ensure!(text.is_ascii() && text.len().is_multiple_of(2), "not whole bytes");
    (0..text.len()).step_by(2).map(|at| Ok(u8::from_str_radix(&text[at..at + 2], 16)?)).collect()
}

/// How many golden packets there are, by family and mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<(char, Mode), usize>);

impl Tally {
    /// Of stories.
    #[must_use]
    pub fn of(stories: &[Story]) -> Self {
        let mut tally = Self::default();
        for story in stories {
            *tally.0.entry((story.family, story.mode)).or_default() += story.packets.len();
        }
        tally
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.values().sum()
    }

    /// Every family has some in every mode, and there are [`LEAST`].
    ///
    /// # Errors
    /// Says what is missing.
    pub fn is_enough(&self) -> Result<()> {
        ensure!(self.total() >= LEAST, "{} golden packets are fewer than {LEAST}", self.total());
        for (family, mode) in FAMILIES.into_iter().flat_map(|family| MODES.map(|mode| (family, mode))) {
            ensure!(self.0.contains_key(&(family, mode)), "family {family} has no golden packet in mode {mode:?}");
        }
        Ok(())
    }
}

/// Modes and, for each, the families: `dsr A 28 B 56 …; nat A …`.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} golden packets:", self.total())?;
        for mode in MODES {
            write!(f, " {}", mode_name(mode))?;
            for family in FAMILIES {
                write!(f, " {family} {}", self.0.get(&(family, mode)).copied().unwrap_or(0))?;
            }
            f.write_str(";")?;
        }
        Ok(())
    }
}
