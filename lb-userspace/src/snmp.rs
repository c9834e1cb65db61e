//! SNMP: a sub-agent (AgentX, RFC 2741) of the machine's own SNMP agent, which answers for `LB-MIB`. On a thread of its own;
//! an agent that is gone is looked for again.
//!
//! It only reads: nothing can be set by SNMP. What the agent sends is bounded before it is read. Called by `daemon`.

mod answer;
mod pdu;
mod tree;

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use self::{
    answer::{Tree, answer},
    pdu::{Header, Kind, Malformed, Pdu},
};
use crate::control::query::{Control, Nodes};

/// How long views are used for further questions: a walk of a table asks many.
const FRESH: Duration = Duration::from_secs(2);

/// Before an agent that is gone is looked for again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// See [`FIRST_PAUSE`].
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Without a question for so long, the agent is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(30);

/// What the agent waits for an answer, in seconds.
const AGENTS_PATIENCE: u8 = 5;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is no AgentX master: {0}")]
    Malformed(#[from] Malformed),
    #[error("the agent refuses ({doing}: error {code})")]
    Refused { doing: &'static str, code: u16 },
    #[error("the agent closed the session")]
    Closed,
}

/// Answers for the MIB by the agent at this socket, as long as lbd lives.
///
/// # Errors
/// When the kernel refuses the thread.
pub fn start(socket: PathBuf, control: Arc<dyn Control>) -> io::Result<()> {
    let serve = move || {
        let mut source = Source { control, started: Instant::now(), kept: None, served: false };
        let mut pause = FIRST_PAUSE;
        let mut told = false;
        loop {
            let Err(error) = session(&socket, &mut source);
            if std::mem::take(&mut source.served) {
                (pause, told) = (FIRST_PAUSE, false);
            }
            if !told {
                tracing::warn!(socket = %socket.display(), %error, "no SNMP agent; it is looked for again");
                told = true;
            }
            thread::sleep(pause);
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    };
    thread::Builder::new().name("agentx".to_owned()).spawn(serve).map(drop)
}

/// One session: until the agent is gone.
fn session(socket: &Path, source: &mut Source) -> Result<std::convert::Infallible, SessionError> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let mut ask = |kind, session, body: Vec<u8>, doing| -> Result<Header, SessionError> {
        stream.write_all(&pdu::frame(kind, Header::of_session(session), &body))?;
        let (header, payload) = receive(&mut stream)?.ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut))?;
        match pdu::response_error(&header, &payload)? {
            0 => Ok(header),
            code => Err(SessionError::Refused { doing, code }),
        }
    };
    let opened = ask(Kind::Open, 0, pdu::open(AGENTS_PATIENCE, "lb"), "open")?;
    ask(Kind::Register, opened.session, pdu::register(&tree::root()), "register")?;
    source.served = true;
    tracing::info!(socket = %socket.display(), "the SNMP agent asks lbd for LB-MIB");
    loop {
        let Some((header, payload)) = receive(&mut stream)? else {
            stream.write_all(&pdu::frame(Kind::Ping, Header::of_session(opened.session), &[]))?;
            continue;
        };
        match pdu::read(&header, &payload)? {
            Pdu::Question(question) => {
                let answered = answer(&question, source.tree());
                stream.write_all(&pdu::frame(Kind::Response, header, &pdu::response(&answered)))?;
            }
            Pdu::Set => stream.write_all(&pdu::frame(Kind::Response, header, &pdu::refusal()))?,
            Pdu::Close => return Err(SessionError::Closed),
            // The end of a set, which was refused, and answers to pings.
            Pdu::Nothing => {}
        }
    }
}

/// The next PDU; `None` when there was none for a while.
fn receive(stream: &mut UnixStream) -> Result<Option<(Header, Vec<u8>)>, SessionError> {
    let mut head = [0; pdu::HEADER];
    let first = match stream.read(&mut head) {
        Ok(0) => return Err(SessionError::Closed),
        Ok(read) => read,
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    stream.read_exact(&mut head[first..])?;
    let header = pdu::header(&head)?;
    let mut payload = vec![0; header.length];
    stream.read_exact(&mut payload)?;
    Ok(Some((header, payload)))
}

/// Where the answers come from.
struct Source {
    control: Arc<dyn Control>,
    started: Instant,
    kept: Option<(Instant, Tree)>,
    /// Whether an agent asked since it was looked at last.
    served: bool,
}

impl Source {
    /// The MIB's objects now, or a moment ago. What lbd does not answer is left out.
    fn tree(&mut self) -> &Tree {
        let is_fresh = self.kept.as_ref().is_some_and(|(at, _)| at.elapsed() < FRESH);
        if !is_fresh {
            self.kept = None;
        }
        let (control, started) = (&self.control, self.started);
        let (_, tree) = self.kept.get_or_insert_with(|| {
            let mut tree = Tree::new();
            if let Ok(status) = control.status() {
                tree::system(&mut tree, &status, started.elapsed());
            }
            tree::virtual_servers(&mut tree, &control.virtual_servers(Nodes::Counted).unwrap_or_default());
            tree::pools(&mut tree, &control.pools(Nodes::Shown).unwrap_or_default());
            tree::vips(&mut tree, &control.vips().unwrap_or_default());
            (Instant::now(), tree)
        });
        tree
    }
}
