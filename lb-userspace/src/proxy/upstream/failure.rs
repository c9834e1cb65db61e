//! What can go wrong between us and a node, and what each means: status, whose fault, what `Proxy-Status` says.

use std::io;

use super::ConnectError;
use crate::proxy::{
    access_log::{By, During, Ended},
    h1::{body::BadBody, response::BadResponse},
    pool::{NoNode, retry},
    stats::Refused,
    tls,
    transfer::BodyError,
    transparent::NoSource,
};

/// Why a request got no response from a node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No node is there, or none was tried that could be reached.
    #[error("no node is available")]
    NoNode(NoNode),
    /// The virtual server has no pool, and no rule answered.
    #[error("no pool serves this request")]
    NoPool,
    /// There is hardly any memory left.
    #[error("the proxy is short of memory")]
    NoMemory,
    /// Connecting failed.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The node is to see the client's address, and cannot.
    #[error(transparent)]
    NoSource(NoSource),
    /// TLS with the node did not come to stand.
    #[error("TLS with the node: {0}")]
    Tls(&'static str),
    /// Connecting took too long.
    #[error("connecting took too long")]
    ConnectTimeout,
    /// The node closed, or reset, its connection before the response's head was complete.
    #[error("the node closed its connection")]
    Closed,
    /// What the node sent is no response.
    #[error("no response: {0}")]
    BadResponse(#[from] BadResponse),
    /// What the node sent breaks HTTP/2.
    #[error("no HTTP/2")]
    Protocol,
    /// The node said that it did nothing with the request (RFC 9113 §8.7).
    #[error("the node refused the request")]
    Refused,
    /// The request's target or host cannot be told over HTTP/2.
    #[error("a target that HTTP/2 cannot tell")]
    Unsayable,
    /// The node sent too many interim responses.
    #[error("too many interim responses")]
    Interim,
    /// The node answered with this status, which is tried elsewhere, and no other node is left.
    #[error("the node answered {0}")]
    Status(u16),
    /// The node did not answer in time.
    #[error("no answer in time")]
    ReplyTimeout,
    /// The node took no bytes for too long.
    #[error("the node takes no bytes")]
    NodeStalled,
    /// The whole request took longer than allowed.
    #[error("the request took too long")]
    Transaction,
    /// The client's body is broken, or did not come in time.
    #[error("the client's body: {0}")]
    Body(BodyError),
    /// The client's body came too slowly.
    #[error("the client's body came too slowly")]
    BodyTimeout,
    /// The client left before it was answered.
    #[error("the client left")]
    ClientGone,
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Failed(error) => Self::Connect(error),
            ConnectError::TimedOut => Self::ConnectTimeout,
            ConnectError::Tls(error) => Self::Tls(error.reason()),
            ConnectError::NoSource(why) => Self::NoSource(why),
            ConnectError::NoTls => Self::Tls("not set up"),
        }
    }
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The client's.
    Client,
    /// The node's, or the way to it.
    Node,
    /// Ours, or the configuration's.
    Proxy,
}

/// What a failure means for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Status of the answer; 0: none, the client is not there any more.
    pub(crate) status: u16,
    /// `error` of `Proxy-Status`, RFC 9209 §2.3.
    pub(crate) error: &'static str,
    /// Whose fault it is.
    pub(crate) fault: Fault,
}

impl Failure {
    /// What it means for the client: the one place that decides it.
    pub(crate) fn verdict(&self) -> Verdict {
        let (status, error, fault) = match self {
            Self::NoNode(NoNode::Busy(_)) => (503, "connection_limit_reached", Fault::Node),
            Self::NoNode(_) => (503, "destination_unavailable", Fault::Node),
            Self::NoPool => (503, "proxy_configuration_error", Fault::Proxy),
            Self::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                (502, "connection_refused", Fault::Node)
            }
            Self::Connect(error) if is_ours(error) => (503, "proxy_internal_error", Fault::Proxy),
            Self::NoMemory => (503, "proxy_internal_error", Fault::Proxy),
            Self::Connect(_) | Self::NoSource(NoSource::Family) => (502, "destination_ip_unroutable", Fault::Node),
            Self::NoSource(NoSource::NoSocket) => (503, "proxy_internal_error", Fault::Proxy),
            Self::Tls(tls::CERTIFICATE) => (502, "tls_certificate_error", Fault::Node),
            Self::Tls(tls::ALERT) => (502, "tls_alert_received", Fault::Node),
            Self::Tls(_) => (502, "tls_protocol_error", Fault::Node),
            Self::ConnectTimeout => (504, "connection_timeout", Fault::Node),
            Self::Closed => (502, "connection_terminated", Fault::Node),
            Self::BadResponse(BadResponse::HeadTooLarge | BadResponse::TooManyFields) => {
                (502, "http_response_header_section_size", Fault::Node)
            }
            Self::BadResponse(_) | Self::Protocol | Self::Interim => (502, "http_protocol_error", Fault::Node),
            Self::Refused => (503, "destination_unavailable", Fault::Node),
            Self::Unsayable => (400, "http_request_error", Fault::Client),
            Self::Status(status) => (*status, "destination_unavailable", Fault::Node),
            Self::ReplyTimeout => (504, "http_response_timeout", Fault::Node),
            Self::NodeStalled => (504, "connection_write_timeout", Fault::Node),
            Self::Transaction => (504, "http_response_timeout", Fault::Node),
            Self::Body(BodyError::Bad(bad)) => (bad_body_status(bad), "http_request_error", Fault::Client),
            Self::Body(BodyError::CutOff | BodyError::Broken(_)) | Self::ClientGone => {
                (0, "connection_terminated", Fault::Client)
            }
            Self::BodyTimeout => (408, "http_request_error", Fault::Client),
        };
        Verdict { status, error, fault }
    }

    /// What it is counted as.
    pub(crate) fn refused(&self) -> Refused {
        match self {
            Self::NoNode(NoNode::Busy(_)) => Refused::QueueTimeout,
            Self::NoNode(_) | Self::Status(_) => Refused::NoNode,
            Self::NoPool | Self::NoSource(_) => Refused::Internal,
            Self::NoMemory => Refused::Memory,
            Self::Connect(_) | Self::Tls(_) | Self::ConnectTimeout => Refused::Connect,
            Self::Closed | Self::NodeStalled => Refused::EarlyClose,
            Self::BadResponse(_) | Self::Protocol | Self::Interim => Refused::BadResponse,
            Self::Refused => Refused::EarlyClose,
            Self::Unsayable => Refused::Malformed,
            Self::ReplyTimeout => Refused::ReplyTimeout,
            Self::Transaction => Refused::Transaction,
            Self::Body(BodyError::Bad(BadBody::TooLarge)) => Refused::BodyTooLarge,
            Self::Body(BodyError::Bad(_)) => Refused::Malformed,
            Self::Body(BodyError::CutOff | BodyError::Broken(_)) | Self::ClientGone => Refused::ClientGone,
            Self::BodyTimeout => Refused::BodyTimeout,
        }
    }

    /// How it ends the request in logs: the one place that decides it.
    pub(crate) fn ended(&self) -> Ended {
        let (by, during) = match self {
            Self::NoNode(NoNode::Busy(_)) => (By::Limit, During::Queue),
            Self::NoNode(_) => (By::NoNode, During::Queue),
            Self::NoPool => (By::Internal, During::Queue),
            Self::NoMemory => (By::Limit, During::Request),
            Self::Connect(error) if is_ours(error) => (By::Internal, During::Connect),
            Self::NoSource(_) => (By::Internal, During::Connect),
            Self::Connect(_) | Self::Tls(_) => (By::Node, During::Connect),
            Self::ConnectTimeout => (By::NodeTimeout, During::Connect),
            Self::Closed | Self::Refused | Self::Status(_) => (By::Node, During::Head),
            Self::BadResponse(_) | Self::Protocol | Self::Interim => (By::Refused, During::Head),
            Self::ReplyTimeout | Self::Transaction => (By::NodeTimeout, During::Head),
            Self::NodeStalled => (By::NodeTimeout, During::Request),
            Self::Unsayable | Self::Body(BodyError::Bad(_)) => (By::Refused, During::Request),
            Self::Body(BodyError::CutOff | BodyError::Broken(_)) => (By::Client, During::Request),
            Self::BodyTimeout => (By::ClientTimeout, During::Request),
            Self::ClientGone => (By::Client, During::Head),
        };
        Ended { by, during }
    }

    /// A word or two on it for `Proxy-Status`: nothing that a node or a client wrote.
    #[expect(clippy::wildcard_enum_match_arm, reason = "most say it in their own words")]
    pub(crate) fn details(&self) -> String {
        match self {
            Self::Connect(error) => error.kind().to_string(),
            Self::Body(BodyError::Broken(_)) => "the client's connection failed".to_owned(),
            Self::NoNode(none) => match none {
                NoNode::Down => "every node is down",
                NoNode::AllTried => "every node was tried",
                NoNode::Busy(_) => "every node is busy",
                NoNode::Gone(_) => "the client's node is gone",
            }
            .to_owned(),
            other => other.to_string(),
        }
    }

    /// What it is to the decision whether to try again; `None`: nothing that another attempt could mend.
    pub(super) fn retried(&self, reused: bool) -> Option<retry::Failure> {
        match self {
            Self::Connect(_) | Self::Tls(_) | Self::ConnectTimeout | Self::NoSource(_) => Some(retry::Failure::Connect),
            Self::Closed | Self::NodeStalled if reused => Some(retry::Failure::KeptClosed),
            Self::Closed | Self::NodeStalled => Some(retry::Failure::EarlyClose),
            Self::BadResponse(_) | Self::Protocol | Self::Interim => Some(retry::Failure::BadResponse),
            Self::Refused => Some(retry::Failure::Refused),
            Self::ReplyTimeout => Some(retry::Failure::ReplyTimeout),
            Self::NoNode(_)
            | Self::NoPool
            | Self::NoMemory
            | Self::Unsayable
            | Self::Status(_)
            | Self::Transaction
            | Self::Body(_)
            | Self::BodyTimeout
            | Self::ClientGone => None,
        }
    }
}

/// Whether a failed connect says nothing about the node: no descriptor, port or memory to be had here.
pub(super) fn is_ours(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn bad_body_status(bad: &BadBody) -> u16 {
    if *bad == BadBody::TooLarge { 413 } else { 400 }
}
