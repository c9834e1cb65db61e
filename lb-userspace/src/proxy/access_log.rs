//! Access logs: one line for each request (connection of generic TCP), formatted on the thread that served it, written by
//! one thread of the worker to files that lbd opened.
//!
//! Never blocks a proxy thread: lines go into a batch of the thread, batches into a bounded queue; what does not fit is
//! dropped and counted (X28). Formatting allocates nothing once buffers have grown.

mod escape;
mod format;
mod time;
mod writer;

use std::{cell::Cell, fmt, time::Duration};

pub use format::Format;
pub use writer::{LogWriter, SinkId, ThreadLog};

use super::facts::{Facts, RequestId, ResponseFacts};
use crate::control::proxy::{log as plan, template::TemplateError};

/// A finished request, for its log line and for `recent`.
pub struct Entry<'a> {
    /// The request; of one that could not be parsed, what is known.
    pub facts: &'a dyn Facts,
    /// The response's head, if there was one.
    pub response: Option<&'a dyn ResponseFacts>,
    /// The virtual server.
    pub virtual_server: &'a str,
    /// The pool that served; empty: none.
    pub pool: &'a str,
    /// The node that served; empty: none.
    pub node: &'a str,
    /// The last rule that matched; empty: none.
    pub rule: &'a str,
    /// Why we refused or failed, `stats::Refused::name`; empty: we did not.
    pub reason: &'a str,
    /// Tells this request apart.
    pub request_id: RequestId,
    /// When its first byte came, since 1970.
    pub at: Duration,
    /// Status that the client got; 0: none.
    pub status: u16,
    /// Bytes of the request's body.
    pub bytes_received: u64,
    /// Bytes to the client, head and body.
    pub bytes_sent: u64,
    /// Bytes of the response's body.
    pub body_bytes_sent: u64,
    /// How long it took.
    pub timings: Timings,
    /// Attempts beyond the first.
    pub retries: u8,
    /// How it ended.
    pub ended: Ended,
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("id", &self.request_id).field("status", &self.status).finish_non_exhaustive()
    }
}

/// How long the parts of a request took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Waiting for a free node.
    pub queue: Duration,
    /// Connecting to the node, TLS included; zero on a kept connection.
    pub connect: Duration,
    /// From the request to the head of the response.
    pub head: Duration,
    /// From the first byte of the request to the end of the response.
    pub total: Duration,
}

/// How a request ended: who ended it, and when. Shown as two letters, those of HAProxy's logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Who.
    pub by: By,
    /// When.
    pub during: During,
}

/// Who ended a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// Nobody: all went well.
    #[default]
    Done,
    /// The client closed.
    Client,
    /// The client was too slow.
    ClientTimeout,
    /// The node closed or refused.
    Node,
    /// The node was too slow.
    NodeTimeout,
    /// We refused it.
    Refused,
    /// A rule answered it.
    Answered,
    /// A limit is reached.
    Limit,
    /// No node is live.
    NoNode,
    /// An operator's order, or the end of a drain.
    Killed,
    /// A fault of ours.
    Internal,
}

/// When a request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum During {
    /// Not before its time.
    #[default]
    Done,
    /// While the request came.
    Request,
    /// While it waited for a node.
    Queue,
    /// While a node was connected to.
    Connect,
    /// While the head of the response was awaited.
    Head,
    /// While the body was sent.
    Data,
}

impl Ended {
    /// The two letters.
    #[must_use]
    pub fn letters(self) -> [u8; 2] {
        let by = match self.by {
            By::Done => b'-',
            By::Client => b'C',
            By::ClientTimeout => b'c',
            By::Node => b'S',
            By::NodeTimeout => b's',
            By::Refused => b'P',
            By::Answered => b'L',
            By::Limit => b'R',
            By::NoNode => b'D',
            By::Killed => b'K',
            By::Internal => b'I',
        };
        let during = match self.during {
            During::Done => b'-',
            During::Request => b'R',
            During::Queue => b'Q',
            During::Connect => b'C',
            During::Head => b'H',
            During::Data => b'D',
        };
        [by, during]
    }
}

/// The access log of a virtual server, for one thread.
#[derive(Debug)]
pub struct AccessLog {
    sink: SinkId,
    format: Format,
    sample: u32,
    skipped: Cell<u32>,
}

impl AccessLog {
    /// Compiles the log of a virtual server.
    ///
    /// # Errors
    /// The format has an unknown macro: a plan that the configuration made has none.
    pub fn compile(log: &plan::AccessLog, writer: &LogWriter) -> Result<Self, TemplateError> {
        Ok(Self {
            sink: writer.sink(&log.path),
            format: Format::compile(&log.format)?,
            sample: log.sample.max(1),
            skipped: Cell::new(0),
        })
    }

    /// Logs a request, if it is one of the sample or an error: a status of 400 or more, or an end before its time.
    pub fn log(&self, entry: &Entry<'_>, thread: &ThreadLog) {
        if !self.is_sampled(entry) {
            return;
        }
        thread.line(self.sink, entry.at, |time, line| self.format.write(entry, time, line));
    }

    fn is_sampled(&self, entry: &Entry<'_>) -> bool {
        let is_error = entry.status >= 400 || !matches!(entry.ended.by, By::Done | By::Answered);
        if self.sample == 1 || is_error {
            return true;
        }
        let skipped = self.skipped.get() + 1;
        self.skipped.set(if skipped == self.sample { 0 } else { skipped });
        skipped == self.sample
    }
}

#[cfg(test)]
mod tests;
