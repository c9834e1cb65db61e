//! Events: what happened that an operator may want to know of, each by a name that never changes, with the object it is
//! about. Pure; made by `control::state` and `daemon`, kept in the [`journal`], told to operators by `alerts`.

pub mod journal;

use serde::{Deserialize, Serialize};

/// How much an event matters.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know: changes, and what is well again.
    #[default]
    Info,
    /// Something is wrong, and traffic is served.
    Warning,
    /// Traffic is not served, or soon will not be.
    Critical,
}

impl Severity {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// As the configuration and JSON call it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Names, severities, and which events they end, in one place. The doc comment of a name is its text in `docs/config.md`.
macro_rules! names {
    ($($(#[doc = $meaning:literal])+ $name:ident, $word:literal, $severity:ident $(, ends [$($ended:ident),+])?;)+) => {
        /// What happened.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum Name {
            $($(#[doc = $meaning])+ $name,)+
        }

        impl Name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// As the configuration and JSON call it.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word),+ }
            }

            /// What it means, in a sentence or two.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($meaning),+).trim_ascii()),+ }
            }

            /// How much it matters.
            #[must_use]
            pub fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity),+ }
            }

            /// What it ends, when it happens to the same object.
            #[must_use]
            pub fn ends(self) -> &'static [Self] {
                match self { $(Self::$name => &[$($(Self::$ended),+)?]),+ }
            }
        }
    };
}

names! {
    /// A monitor, or several, say that a node is down.
    NodeDown, "node_down", Warning;
    /// A node that was down answers again, and was taken in.
    NodeUp, "node_up", Info, ends [NodeDown];
    /// Passive monitoring took a node of the L7 proxy out.
    NodeOut, "node_out", Warning;
    /// A node that passive monitoring took out serves again.
    NodeBack, "node_back", Info, ends [NodeOut];
    /// An operator drains a node.
    NodeDraining, "node_draining", Info;
    /// A node that is drained has no connections any more.
    NodeDrained, "node_drained", Info;
    /// An operator disabled a node.
    NodeDisabled, "node_disabled", Info;
    /// An operator made a node active again.
    NodeEnabled, "node_enabled", Info;
    /// No node of a pool takes new connections.
    PoolDown, "pool_down", Critical;
    /// A pool without a live node has one again.
    PoolUp, "pool_up", Info, ends [PoolDown];
    /// Nobody serves a virtual server: neither its pool nor a failure pool.
    VirtualServerDown, "virtual_server_down", Critical;
    /// The failure pool serves a virtual server.
    VirtualServerFailedOver, "virtual_server_failed_over", Warning, ends [VirtualServerDown];
    /// A virtual server is served by its own pool again.
    VirtualServerUp, "virtual_server_up", Info, ends [VirtualServerDown, VirtualServerFailedOver];
    /// This machine owns a VIP group now.
    VipRaised, "vip_raised", Info, ends [VipLost];
    /// This machine does not own a VIP group any more.
    VipLost, "vip_lost", Warning;
    /// Somebody else claims an address of a VIP group.
    VipClaimed, "vip_claimed", Critical;
    /// Two machines own a VIP group.
    SplitBrain, "split_brain", Critical;
    /// This machine's own heartbeats or advertisements come back to it: a loop or a mirror in the network.
    LoopedBack, "looped_back", Warning;
    /// A VIP group could not be moved.
    VipNotMoved, "vip_not_moved", Warning;
    /// Heartbeats are refused: forged, repeated, or of something else.
    HeartbeatRefused, "heartbeat_refused", Warning;
    /// This machine is not well, and gives its VIPs away.
    MachineFault, "machine_fault", Critical;
    /// The fault of this machine is gone.
    MachineWell, "machine_well", Info, ends [MachineFault];
    /// Another machine is not heard any more.
    PeerLost, "peer_lost", Critical;
    /// Another machine is heard.
    PeerFound, "peer_found", Info, ends [PeerLost];
    /// An operator took this machine out: it leaves its VIPs to the others.
    MaintenanceOn, "maintenance_on", Info;
    /// This machine takes part again.
    MaintenanceOff, "maintenance_off", Info;
    /// A certificate ends within 30, 7 or 1 days, or is not valid yet.
    CertificateExpiring, "certificate_expiring", Warning;
    /// A certificate has expired.
    CertificateExpired, "certificate_expired", Critical;
    /// A certificate is in use now.
    CertificateLoaded, "certificate_loaded", Info, ends [CertificateExpiring, CertificateExpired];
    /// A configuration came into force.
    ConfigAccepted, "config_accepted", Info, ends [ConfigRejected];
    /// A configuration was refused: the one before it stays in force.
    ConfigRejected, "config_rejected", Warning;
    /// A flow table of the data path is more than 70 % full.
    MapPressure, "map_pressure", Warning;
    /// A flow table has room again.
    MapRelieved, "map_relieved", Info, ends [MapPressure];
    /// The worker of the L7 proxy ended without being told to, or hung.
    WorkerCrashed, "worker_crashed", Critical;
    /// A worker of the L7 proxy serves again.
    WorkerReady, "worker_ready", Info, ends [WorkerCrashed];
    /// The data path, or the L7 proxy, does not do what it should; it is tried again.
    DataPathBehind, "data_path_behind", Critical;
    /// They do what they should again.
    DataPathFollows, "data_path_follows", Info, ends [DataPathBehind];
    /// What was set at run time cannot be saved: it would not survive a restart.
    StateUnsaved, "state_unsaved", Warning;
    /// It is saved again.
    StateSaved, "state_saved", Info, ends [StateUnsaved];
    /// A rule of a virtual server has the action `event`.
    RuleEvent, "rule_event", Info;
    /// lbd is ready.
    Started, "started", Info;
    /// lbd was told to stop.
    Stopping, "stopping", Info;
}

impl Name {
    /// Whether another event may end it.
    #[must_use]
    pub fn is_fault(self) -> bool {
        Self::ALL.iter().any(|name| name.ends().contains(&self))
    }

    /// The one of this word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|name| name.word() == word)
    }
}

/// The longest object and text of an event, in bytes: some quote what rules made of requests.
pub const MOST_TEXT: usize = 1024;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What.
    pub name: Name,
    /// To what: `pool/node`, a name, or nothing when it is about lbd as a whole.
    pub object: String,
    /// A sentence for people, without control characters.
    pub text: String,
}

impl Fact {
    /// Control characters in what is quoted become spaces, and what is too long is cut.
    #[must_use]
    pub fn new(name: Name, object: impl AsRef<str>, text: impl AsRef<str>) -> Self {
        Self { name, object: plain(object.as_ref()), text: plain(text.as_ref()) }
    }
}

fn plain(text: &str) -> String {
    let end = text.floor_char_boundary(MOST_TEXT);
    text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// An event as it is kept and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Entry {
    /// Counts from 1, and goes on over a restart.
    pub number: u64,
    /// When: milliseconds since 1970.
    pub at_ms: u64,
    /// What.
    pub name: Name,
    /// How much it matters.
    pub severity: Severity,
    /// To what; empty: to lbd as a whole.
    pub object: String,
    /// In words.
    pub text: String,
}

/// Which events to list. What is not said matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Only those with a greater number.
    pub after: Option<u64>,
    /// Only this name.
    pub name: Option<Name>,
    /// Only this object.
    pub object: Option<String>,
    /// Only those that matter so much, or more.
    pub severity: Option<Severity>,
    /// At most so many: the newest.
    pub limit: Option<usize>,
    /// When there is none: wait so many seconds for one (at most 15).
    pub wait: Option<u64>,
}

impl Filter {
    /// Whether an event is one of them.
    #[must_use]
    pub fn passes(&self, entry: &Entry) -> bool {
        self.after.is_none_or(|after| entry.number > after)
            && self.name.is_none_or(|name| entry.name == name)
            && self.object.as_ref().is_none_or(|object| entry.object == *object)
            && self.severity.is_none_or(|least| entry.severity >= least)
    }
}

/// `GET /api/v1/events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Events {
    /// Those that match, the oldest first.
    pub events: Vec<Entry>,
    /// Number of the newest event of all: what `after` takes next.
    pub newest: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_json_and_unique() {
        for name in Name::ALL {
            assert_eq!(serde_json::to_value(name).unwrap(), name.word());
            assert_eq!(Name::of_word(name.word()), Some(*name));
        }
        for severity in Severity::ALL {
            assert_eq!(serde_json::to_value(severity).unwrap(), severity.word());
        }
        let mut words: Vec<_> = Name::ALL.iter().map(|name| name.word()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Name::ALL.len());
    }

    #[test]
    fn what_ends_a_fault_matters_less_than_the_fault() {
        for name in Name::ALL {
            for ended in name.ends() {
                assert!(ended.is_fault() && ended.severity() > name.severity(), "{name:?} ends {ended:?}");
            }
        }
        assert!(Name::NodeDown.is_fault() && !Name::NodeUp.is_fault() && !Name::Started.is_fault());
    }

    #[test]
    fn the_docs_have_every_event() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/events.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (begin, end) = ("| event | severity | ends | meaning |", "\n## Alerts");
        let head = &text[..text.find(begin).unwrap()];
        let tail = &text[text.find(end).unwrap()..];
        let row = |name: &Name| {
            let ends: Vec<String> = name.ends().iter().map(|name| format!("`{}`", name.word())).collect();
            let (word, severity) = (name.word(), name.severity().word());
            format!("| `{word}` | {severity} | {} | {} |\n", ends.join(", "), name.meaning())
        };
        let rows: String = Name::ALL.iter().map(row).collect();
        let expected = format!("{head}{begin}\n|---|---|---|---|\n{rows}{tail}");
        if std::env::var_os("LB_UPDATE_DOCS").is_some() {
            std::fs::write(path, &expected).unwrap();
        } else {
            assert!(
                text == expected,
                "docs/events.md is out of date: LB_UPDATE_DOCS=1 cargo test -p lb-userspace event"
            );
        }
    }

    #[test]
    fn quoted_text_is_bounded_and_of_one_line() {
        let fact = Fact::new(Name::RuleEvent, "a\nb", format!("x\x1b[31m{}", "é".repeat(MOST_TEXT)));
        assert_eq!(fact.object, "a b");
        assert!(fact.text.starts_with("x [31m") && fact.text.len() <= MOST_TEXT);
    }
}
