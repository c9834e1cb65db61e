//! Packets as the data path decided about them: which are wanted, how many and for how long.

use tokio::sync::mpsc;

/// A capture file in the making (pcapng), piece by piece; each piece ends with a whole block.
pub type Packets = mpsc::Receiver<Vec<u8>>;

/// Packets captured where nobody says how many, and at most.
pub const DEFAULT_COUNT: u64 = 1000;
/// See [`DEFAULT_COUNT`].
pub const MAX_COUNT: u64 = 1_000_000;
/// Seconds captured for where nobody says how long, and at most.
pub const DEFAULT_SECONDS: u64 = 60;
/// See [`DEFAULT_SECONDS`].
pub const MAX_SECONDS: u64 = 3600;
/// Bytes of each packet where nobody says how many: headers, and little of what clients send.
pub const DEFAULT_SNAPLEN: u32 = 128;
/// Media type of what is answered.
pub const MEDIA_TYPE: &str = "application/x-pcapng";

/// Which of the two frames of a packet that is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// As it came.
    In,
    /// As it leaves.
    Out,
    /// Both, one after the other.
    #[default]
    Both,
}

/// Query of `GET /api/v1/capture`. Empty fields match everything; a packet is captured when it matches as it comes or as it
/// leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CaptureRequest {
    /// Interfaces that packets come in by, separated by commas; without it all that have lbd's program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<String>,
    /// Source or destination address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip: Option<String>,
    /// Source address, or network like `192.0.2.0/24`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Destination address, or network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Source or destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `tcp`, `udp`, `icmp` (both versions), or a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Reasons separated by commas, as `lbctl stats --reasons` names them; `all`: also packets that lb leaves to the host
    /// because they are not for a VIP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasons: Option<String>,
    /// Only packets that are dropped.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dropped: bool,
    /// Which frames of a packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Frames until it ends (default 1000, at most 1000000).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Seconds until it ends (default 60, at most 3600).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// Bytes of each frame (default 128: the headers; at most 16384).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snaplen: Option<u32>,
}
