//! The command line of `lbctl`: nouns and verbs, each with examples first in its help.

mod access;
mod backup;
mod capture;
mod cert;
mod config;
mod connections;
mod events;
mod map;
mod requests;
mod stats;
mod top;
mod trace;
mod upgrade;
mod vip;

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub use self::{
    access::{AuditVerbs, PasswordSource, Remote, Setting as UserSetting, TokenVerbs, UserVerbs},
    backup::{Backup, Restore},
    capture::Capture,
    cert::{Cert, KeyType, Subject},
    config::{Apply, Change, Diff, Foreign, History, Lasting, Rollback, Setting, object},
    connections::ConnectionArguments,
    events::{AlertVerbs, EventArguments, EventVerbs},
    map::Map,
    requests::{RequestArguments, UrlArguments},
    stats::Stats,
    top::Top,
    trace::Trace,
    upgrade::Upgrade,
    vip::Vip,
};
use crate::control::plan::{Forwarding, Protocol};

/// Where lbd listens when nobody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/lb/admin.sock";

/// Examples before the rest: they answer most questions.
const TEMPLATE: &str = "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}";

/// Look at and operate the lb load balancer.
#[derive(Debug, Parser)]
#[command(
    name = "lbctl",
    version,
    before_help = "Examples:
  lbctl status                               is it running, and does it need attention?
  lbctl vs ls                                virtual servers, their nodes and connections
  lbctl node drain web/n1                    no new connections for n1; its own go on
  lbctl pool set web forwarding=nat          new connections by NAT from now on
  lbctl node add web/n4 address=10.0.0.14:80   one more, kept as a new revision
  lbctl history                              who changed what, when and why?
  lbctl conn ls --client 203.0.113.7         where do this client's connections go?
  lbctl conn ls --l7 --status 5xx            which requests failed lately?
  lbctl trace https://www.example.com/x      which rules match, which node may serve?
  lbctl trace tcp 203.0.113.7:40000 192.0.2.10:80
                                             what would happen to this packet, and why?
  lbctl capture --dropped                    which packets are dropped now, and why?
  lbctl doctor                               what keeps packets from flowing?
",
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 configuration invalid, 4 lbd unreachable, 5 conflict.
Colours are for terminals only; NO_COLOR switches them off."
)]
pub struct Arguments {
    /// lbd's admin socket
    #[arg(long, global = true, env = "LB_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH", display_order = 900)]
    pub socket: PathBuf,
    /// How to print; without it a table on a terminal, and plain text otherwise
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", display_order = 901)]
    pub output: Option<Format>,
    /// An lbd on another machine.
    #[command(flatten)]
    pub remote: Remote,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Drawn tables
    Table,
    /// The admin API's JSON, unchanged
    Json,
    /// More columns
    Wide,
    /// Aligned columns without lines or colours
    Plain,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The daemon, its interfaces and tables, and what needs attention
    #[command(before_help = "Examples:\n  lbctl status\n  lbctl status -o json | jq .warnings\n")]
    Status,
    /// Virtual servers
    #[command(
        subcommand,
        visible_alias = "virtual-server",
        before_help = "Examples:\n  lbctl vs ls\n  lbctl vs show web\n"
    )]
    Vs(Named),
    /// Pools of nodes
    #[command(
        subcommand,
        before_help = "Examples:\n  lbctl pool ls\n  lbctl pool show web\n  lbctl pool set web forwarding=nat\n"
    )]
    Pool(Pool),
    /// Nodes of pools
    #[command(
        subcommand,
        before_help = "Examples:\n  lbctl node ls\n  lbctl node drain web/n1\n  lbctl node set web/n1 weight=3\n"
    )]
    Node(Node),
    /// VIP groups, and the machines they move between
    #[command(
        subcommand,
        before_help = "Examples:\n  lbctl vip ls\n  lbctl vip status\n  lbctl vip failover web --to lb2\n  lbctl vip maintenance on\n"
    )]
    Vip(Vip),
    /// Tracked connections, and requests of the L7 proxy that ended lately
    #[command(
        subcommand,
        before_help = "Examples:\n  lbctl conn ls --vs web --state established\n  lbctl conn ls --client 203.0.113.7 -o wide\n  lbctl conn ls --l7 --slower-than 500ms\n"
    )]
    Conn(Conn),
    /// What happened: nodes, pools, VIPs, machines, certificates, configurations
    #[command(
        subcommand,
        visible_alias = "event",
        before_help = "Examples:\n  lbctl events ls\n  lbctl events ls --severity warning --limit 20\n  lbctl events ls --follow\n"
    )]
    Events(EventVerbs),
    /// Alerts: who is told of events
    #[command(subcommand, before_help = "Examples:\n  lbctl alert ls\n  lbctl alert test ops\n")]
    Alert(AlertVerbs),
    /// BPF maps of the data path
    #[command(
        subcommand,
        before_help = "Examples:\n  lbctl map ls\n  lbctl map dump NODES\n  lbctl map dump maglev --vs web\n"
    )]
    Map(Map),
    /// Counters: packets by interface and reason, traffic by virtual server and node
    #[command(
        before_help = "Examples:\n  lbctl stats\n  lbctl stats --watch\n  lbctl stats --watch --interval 5s --count 12\n  lbctl stats --since 1h --series 'virtual_server.web.*'\n"
    )]
    Stats(Stats),
    /// Virtual servers, nodes, packets and VIPs as they are now, on the whole terminal
    #[command(before_help = "Examples:\n  lbctl top\n  lbctl top --interval 5s\n  lbctl top --once | head -20\n")]
    Top(Top),
    /// What would be done with a packet, or a request by its URL, and why
    #[command(before_help = "Examples:
  lbctl trace tcp 203.0.113.7:40000 192.0.2.10:80
  lbctl trace 'tcp 203.0.113.7:40000 -> 192.0.2.10:80' --flags A
  lbctl trace udp '[2001:db8::7]:40000' '[2001:db8::10]:53' --interface eth1
  lbctl trace https://www.example.com/cart?id=7
  lbctl trace http://192.0.2.10/ --method POST --header 'Host: www.example.com' --client 203.0.113.7
")]
    Trace(Trace),
    /// Packets, as XDP decides about them, with its verdicts: as lines, or as a file for Wireshark and tcpdump
    #[command(before_help = "Examples:
  lbctl capture                                         what is for VIPs: 1000 packets, 60 s at most
  lbctl capture --dropped --for 10m                     what is dropped, and why?
  lbctl capture --vip 192.0.2.10 --port 443 -c 20
  lbctl capture --src 203.0.113.0/24 --proto icmp --in
  lbctl capture --reason no_node --reason unknown_flow
  lbctl capture -w web.pcapng -s 16384 --port 80        whole packets, with what clients send
  lbctl capture -w - --for 10s | tcpdump -nr -
")]
    Capture(Capture),
    /// Users of the admin API
    #[command(
        subcommand,
        before_help = "Examples:\n  lbctl user add ann --role admin\n  lbctl user set ann role=operator\n  lbctl user passwd ann\n"
    )]
    User(UserVerbs),
    /// Tokens for programs that use the admin API
    #[command(
        subcommand,
        before_help = "Examples:\n  lbctl token create ci --role operator --for 30d\n  lbctl token ls\n  lbctl token revoke 0123456789abcdef\n"
    )]
    Token(TokenVerbs),
    /// Who changed what
    #[command(subcommand, before_help = "Examples:\n  lbctl audit ls\n  lbctl audit verify\n")]
    Audit(AuditVerbs),
    /// Write all that is needed to restore this machine into one encrypted file
    #[command(
        before_help = "Examples:\n  lbctl backup lb1.backup\n  lbctl backup --passphrase-file /root/passphrase --replace lb1.backup\n"
    )]
    Backup(Backup),
    /// Restore a backup as a new revision: all of it or nothing
    #[command(before_help = "Examples:\n  lbctl restore lb1.backup --compare\n  lbctl restore lb1.backup\n")]
    Restore(Restore),
    /// Keys, signing requests and certificates for TLS; needs no lbd
    #[command(
        subcommand,
        before_help = "Examples:
  lbctl cert csr --key site.key --out site.csr --name www.example.com
  lbctl cert import --key site.key --out site.pem answer.pem
  lbctl cert show site.pem
"
    )]
    Cert(Cert),
    /// Find what keeps packets from flowing; exits with 1 when there is a problem
    #[command(before_help = "Examples:\n  lbctl doctor\n  lbctl doctor -o wide      what is as it should be, too\n")]
    Doctor,
    /// Make lbd read its configuration again; an invalid one changes nothing
    #[command(before_help = "Examples:\n  lbctl check /etc/lb/lb.toml && lbctl reload\n")]
    Reload,
    /// Revisions of the configuration: who took which into force, when and why
    #[command(before_help = "Examples:\n  lbctl history\n  lbctl history show 12\n")]
    History {
        /// What of them
        #[command(subcommand)]
        verb: Option<History>,
    },
    /// What sets two configurations apart, and which virtual servers and connections that touches
    #[command(before_help = "Examples:
  lbctl diff                 the files as they are now: what would a reload change?
  lbctl diff 12              from revision 12 to what is in force
  lbctl diff 12 14
  lbctl diff --exit-code && echo nothing to load
")]
    Diff(Diff),
    /// Take a configuration into force, write it to lbd's file, and keep it as a revision
    #[command(before_help = "Examples:
  lbctl apply new.toml --dry-run             what would it change?
  lbctl apply new.toml -m ticket-4711
  lbctl apply new.toml --confirm 5m          and back again, unless: lbctl confirm
  ssh lb1 lbctl export | ssh lb2 lbctl apply -
")]
    Apply(Apply),
    /// Keep the revision that waits to be confirmed
    #[command(before_help = "Examples:\n  lbctl apply new.toml --confirm 5m && lbctl confirm\n")]
    Confirm,
    /// Take an earlier revision into force again, as a new one
    #[command(before_help = "Examples:\n  lbctl rollback             to the one before\n  lbctl rollback 12 -m slow\n")]
    Rollback(Rollback),
    /// The text of the configuration in force, or of a revision; -o json has its files one by one
    #[command(before_help = "Examples:\n  lbctl export > lb.toml\n  lbctl export 12\n")]
    Export {
        /// A revision; without it the one in force
        #[arg(value_name = "N")]
        number: Option<u64>,
    },
    /// Replace lbd by the program that is installed now; connections go on, and so does lbd when that one would not start
    #[command(
        before_help = "Examples:\n  apt install ./lb_2.0.0_amd64.deb   (does it by itself)\n  lbctl upgrade --rollback\n"
    )]
    Upgrade(Upgrade),
    /// Write an archive for whoever helps you: state, configuration and system, without secrets; works without lbd, too
    #[command(before_help = "Examples:\n  lbctl support-bundle\n  lbctl support-bundle /tmp/for-support.tar.gz\n")]
    SupportBundle {
        /// The archive; it must not be there yet
        file: Option<PathBuf>,
        /// The configuration that lbd runs with
        #[arg(long, env = "LB_CONFIG", default_value = "/etc/lb/lb.toml", value_name = "PATH")]
        config: PathBuf,
    },
    /// Check a configuration file, without lbd; with --host also whether this machine has what it needs
    #[command(before_help = "Examples:\n  lbctl check\n  lbctl check ./new.toml\n  lbctl check ./new.toml --host\n")]
    Check {
        /// The file
        #[arg(env = "LB_CONFIG", default_value = "/etc/lb/lb.toml", value_name = "FILE")]
        file: PathBuf,
        /// Also look at this machine: interfaces, capabilities, ports, users, certificates; exits with 1 on a problem
        #[arg(long)]
        host: bool,
    },
    /// Translate another balancer's configuration, without lbd; what has no counterpart is listed by line
    #[command(before_help = "Examples:
  lbctl import haproxy /etc/haproxy/haproxy.cfg > lb.toml
  lbctl import keepalived /etc/keepalived/keepalived.conf > lb.toml
  lbctl import nginx /etc/nginx/nginx.conf > lb.toml
  ipvsadm -S -n > rules && lbctl import ipvs rules > lb.toml
")]
    Import {
        /// Whose
        format: Foreign,
        /// The file
        file: PathBuf,
    },
    /// Print a completion script for a shell
    #[command(before_help = "Examples:\n  lbctl completions bash > /etc/bash_completion.d/lbctl\n")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages of lbctl into a directory
    #[command(before_help = "Examples:\n  lbctl man /usr/local/share/man/man1\n")]
    Man {
        /// The directory; must exist
        directory: PathBuf,
    },
}

/// Verbs of things that are only looked at.
#[derive(Debug, Subcommand)]
pub enum Named {
    /// List them
    Ls,
    /// One of them, with its nodes
    Show {
        /// Its name
        name: String,
    },
}

/// Verbs of pools.
#[derive(Debug, Subcommand)]
pub enum Pool {
    /// List them
    Ls,
    /// One of them, with its nodes
    Show {
        /// Its name
        name: String,
    },
    /// Change it: forwarding at run time, so that new connections follow and tracked ones finish as they began; everything
    /// with --persist
    #[command(before_help = "Examples:
  lbctl pool set web forwarding=nat
  lbctl pool set web forwarding=nat --for 10m
  lbctl pool set web scheduler=least_connections timeouts.connect=2s --persist -m slow
")]
    Set {
        /// Its name
        name: String,
        /// What, as in the configuration; forwarding=nat_source is nat with source_nat
        #[arg(value_name = "KEY=VALUE", required = true, value_parser = config::setting)]
        settings: Vec<Setting>,
        /// How long.
        #[command(flatten)]
        persist: Lasting,
    },
    /// Take it out of the configuration
    Rm {
        /// Its name
        name: String,
        /// How.
        #[command(flatten)]
        change: Change,
    },
}

/// Verbs of nodes.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// List them
    Ls,
    /// One of them
    Show(NodeName),
    /// No new connections; its own go on
    Drain {
        /// The node.
        #[command(flatten)]
        node: NodeName,
        /// How long.
        #[command(flatten)]
        persist: Lasting,
    },
    /// Take new connections again
    Undrain {
        /// The node.
        #[command(flatten)]
        node: NodeName,
        /// How long.
        #[command(flatten)]
        persist: Lasting,
    },
    /// No packets at all; its connections are treated like those of a failed node
    Disable {
        /// The node.
        #[command(flatten)]
        node: NodeName,
        /// How long.
        #[command(flatten)]
        persist: Lasting,
    },
    /// Take connections again
    Enable {
        /// The node.
        #[command(flatten)]
        node: NodeName,
        /// How long.
        #[command(flatten)]
        persist: Lasting,
    },
    /// Take in a node that a monitor with recovery = "manual" took out, when it answers again
    Up(NodeName),
    /// Change it: its weight at run time, everything with --persist
    #[command(before_help = "Examples:
  lbctl node set web/n1 weight=3
  lbctl node set web/n1 weight=1 --for 10m
  lbctl node set web/n1 weight=3 max_connections=200 --persist
")]
    Set {
        /// The node.
        #[command(flatten)]
        node: NodeName,
        /// What, as in the configuration: weight=N is the share of new connections, 1 to 65535
        #[arg(value_name = "KEY=VALUE", required = true, value_parser = config::setting)]
        settings: Vec<Setting>,
        /// How long.
        #[command(flatten)]
        persist: Lasting,
    },
    /// Add one to a pool, and to the configuration
    #[command(before_help = "Examples:\n  lbctl node add web/n4 address=10.0.0.14:80 weight=2 -m growth\n")]
    Add {
        /// Its pool and its name
        #[arg(value_name = "POOL/NODE")]
        node: String,
        /// What, as in the configuration; the address is needed
        #[arg(value_name = "KEY=VALUE", required = true, value_parser = config::setting)]
        settings: Vec<Setting>,
        /// How.
        #[command(flatten)]
        change: Change,
    },
    /// Take it out of its pool, and of the configuration
    #[command(before_help = "Examples:\n  lbctl node drain web/n4 && lbctl node rm web/n4\n")]
    Rm {
        /// The node.
        #[command(flatten)]
        node: NodeName,
        /// How.
        #[command(flatten)]
        change: Change,
    },
}

/// A node.
#[derive(Debug, Args)]
pub struct NodeName {
    /// Its name, with its pool when several pools have a node of that name
    #[arg(value_name = "[POOL/]NODE")]
    pub node: String,
}

/// Verbs of connections.
#[derive(Debug, Subcommand)]
pub enum Conn {
    /// List them; without filters all, half-open ones last
    #[command(
        before_help = "Examples:\n  lbctl conn ls --node web/n1\n  lbctl conn ls --protocol udp --limit 20\n  lbctl conn ls --forwarding dsr\n  lbctl conn ls --l7 --vs web --status 5xx -o wide\n"
    )]
    Ls(ConnectionArguments),
}

/// Parses a command line, program name included.
///
/// # Errors
/// Clap's message: help, version, or what is wrong.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Arguments, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    Arguments::from_arg_matches(&matches)
}

/// The whole command, for parsing, completions and manual pages.
#[must_use]
pub fn command() -> clap::Command {
    with_template(Arguments::command())
}

fn with_template(command: clap::Command) -> clap::Command {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    names.iter().fold(command.help_template(TEMPLATE), |command, name| command.mut_subcommand(name, with_template))
}

fn forwarding(word: &str) -> Result<Forwarding, String> {
    match word {
        "dsr" => Ok(Forwarding::Dsr),
        "nat" => Ok(Forwarding::Nat),
        "nat_source" => Ok(Forwarding::NatSource),
        _ => Err("it is dsr, nat or nat_source".to_owned()),
    }
}

fn protocol(word: &str) -> Result<Protocol, String> {
    match word {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err("it is tcp or udp".to_owned()),
    }
}

#[cfg(test)]
mod tests;
