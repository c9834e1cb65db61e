//! `lbctl capture`.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use crate::control::capture::{CaptureRequest, Direction};

/// Which packets, and how many of them.
#[derive(Debug, Args)]
pub struct Capture {
    /// Packets that come in by this interface; may be repeated; without it all that have lbd's program
    #[arg(short, long, value_name = "NAME")]
    pub interface: Vec<String>,
    /// Packets to or from this address
    #[arg(long, value_name = "ADDRESS")]
    pub vip: Option<String>,
    /// Packets from this address or network
    #[arg(long, value_name = "ADDRESS[/BITS]")]
    pub src: Option<String>,
    /// Packets to this address or network
    #[arg(long, value_name = "ADDRESS[/BITS]")]
    pub dst: Option<String>,
    /// Packets to or from this port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// tcp, udp, icmp, or a number
    #[arg(long, value_name = "PROTOCOL")]
    pub proto: Option<String>,
    /// Packets whose path ends for this reason; may be repeated; "all": also those that are not for a VIP
    #[arg(long, value_name = "NAME")]
    pub reason: Vec<String>,
    /// Packets that are dropped
    #[arg(long)]
    pub dropped: bool,
    /// Packets only as they come
    #[arg(long = "in", conflicts_with = "only_out")]
    pub only_in: bool,
    /// Packets only as they leave
    #[arg(long = "out")]
    pub only_out: bool,
    /// End after so many packets; one that is sent counts twice, as it comes and as it leaves [default: 1000]
    #[arg(short, long, value_name = "N")]
    pub count: Option<u64>,
    /// End after this time, as 10s or 5m [default: 1m]
    #[arg(long = "for", value_name = "TIME", value_parser = super::config::period)]
    pub time: Option<Duration>,
    /// Bytes of each packet; more than headers is what clients send [default: 128]
    #[arg(short, long, value_name = "BYTES")]
    pub snaplen: Option<u32>,
    /// Write a capture file (pcapng); - for standard output
    #[arg(short, long, value_name = "FILE")]
    pub write: Option<PathBuf>,
}

impl Capture {
    /// As the API has it.
    #[must_use]
    pub fn request(&self) -> CaptureRequest {
        let list = |names: &[String]| (!names.is_empty()).then(|| names.join(","));
        let direction = match (self.only_in, self.only_out) {
            (true, _) => Some(Direction::In),
            (_, true) => Some(Direction::Out),
            (false, false) => None,
        };
        CaptureRequest {
            interfaces: list(&self.interface),
            vip: self.vip.clone(),
            source: self.src.clone(),
            destination: self.dst.clone(),
            port: self.port,
            protocol: self.proto.clone(),
            reasons: list(&self.reason),
            dropped: self.dropped,
            direction,
            count: self.count,
            seconds: self.time.map(|time| time.as_secs()),
            snaplen: self.snaplen,
        }
    }
}
