//! Programs as checks. lbd runs none itself: it asks the runner, a process of its own that has given up every right
//! (THREATS A11). Here is lbd's side, and the messages.
//!
//! What a program is given, and what its exit code means, is in docs/operations.md.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

use super::{
    machine::Outcome,
    probe::{self, Verdict, failed},
};
use crate::control::probe::Program;

/// The longest message, in bytes; the kernel takes packets of up to about 200 KiB.
const MOST_MESSAGE: usize = 64 << 10;

/// Orders that wait for the runner; as many programs as may run, and the end of each.
const ORDERS: usize = 256;

/// Where the ids of programs begin that are no checks.
const FIRST_OTHER: u64 = 1 << 63;

/// The exit code of a program that could not find out: it says nothing of the node. Nagios calls it UNKNOWN.
const CANNOT_TELL: i32 = 3;

/// What lbd asks of the runner.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToRunner {
    /// Run a program.
    Run(Run),
    /// Nobody waits for it any longer.
    Stop(u64),
}

/// A program to run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Run {
    /// Names it; never used again.
    pub(super) id: u64,
    /// Its file.
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    /// It is killed after this.
    pub(super) timeout: Duration,
}

/// What the runner tells.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FromRunner {
    pub(super) id: u64,
    pub(super) end: End,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum End {
    /// By itself: its exit code, and the beginning of what it wrote.
    Exited { code: i32, output: Vec<u8> },
    /// By a signal.
    Signalled { signal: i32 },
    /// It wrote too much.
    TooMuchOutput,
    /// It took too long.
    TimedOut,
    /// It was not run, and why.
    NotRun(String),
}

/// The runner, as checks ask it.
#[derive(Clone, Debug)]
pub struct Programs {
    orders: mpsc::Sender<Order>,
    /// How many were run that are no checks.
    others: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Order {
    Run(Box<Run>, oneshot::Sender<End>),
    Stop(u64),
}

/// Speaks to the runner; it ends when this is dropped.
#[derive(Debug)]
pub struct Runner {
    programs: Programs,
    task: AbortHandle,
}

impl Runner {
    /// Over the socket that `runner::start` gave.
    ///
    /// # Errors
    /// When the runtime refuses the socket.
    pub fn attach(socket: OwnedFd) -> io::Result<Self> {
        let (reader, writer) = halves(socket)?;
        let (orders, received) = mpsc::channel(ORDERS);
        let task = tokio::spawn(speak(reader, writer, received)).abort_handle();
        Ok(Self { programs: Programs { orders, others: Arc::default() }, task })
    }

    /// A handle for checks.
    #[must_use]
    pub fn programs(&self) -> Programs {
        self.programs.clone()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The two directions of a socket of packets (`SOCK_SEQPACKET`): what tokio knows of streams is true of it, but that a read
/// or a write is a packet. So no end ever stands within a message, also when lbd is replaced by another program.
pub(super) fn halves(socket: OwnedFd) -> io::Result<(OwnedReadHalf, OwnedWriteHalf)> {
    let socket = StdUnixStream::from(socket);
    socket.set_nonblocking(true)?;
    Ok(UnixStream::from_std(socket)?.into_split())
}

async fn speak(mut reader: OwnedReadHalf, mut writer: OwnedWriteHalf, mut orders: mpsc::Receiver<Order>) {
    let mut waiting: HashMap<u64, oneshot::Sender<End>> = HashMap::new();
    let mut buffer = buffer();
    loop {
        let ended = tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Run(run, answer)) => {
                    let id = run.id;
                    waiting.insert(id, answer);
                    match send(&mut writer, &ToRunner::Run(*run)).await {
                        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                            let answer = waiting.remove(&id);
                            drop(answer.map(|answer| answer.send(End::NotRun(error.to_string()))));
                            Ok(())
                        }
                        sent => sent,
                    }
                }
                Some(Order::Stop(id)) if waiting.remove(&id).is_some() => send(&mut writer, &ToRunner::Stop(id)).await,
                Some(Order::Stop(_)) => Ok(()),
                None => return,
            },
            received = receive::<FromRunner>(&mut reader, &mut buffer) => received.map(|message| {
                // Who no longer waits wants no answer.
                drop(waiting.remove(&message.id).map(|answer| answer.send(message.end)));
            }),
        };
        if let Err(error) = ended {
            // Answers that are dropped tell the checks.
            tracing::error!(%error, "the runner of monitors' programs is gone: no program is run until lbd is started again");
            return;
        }
    }
}

/// Sends a message: a packet of JSON.
pub(super) async fn send<T: Serialize>(writer: &mut OwnedWriteHalf, message: &T) -> io::Result<()> {
    let packet = serde_json::to_vec(message)?;
    if packet.len() > MOST_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "its arguments and variables are too long"));
    }
    writer.write(&packet).await.map(drop)
}

/// The next message. Cancel-safe.
pub(super) async fn receive<T: for<'de> Deserialize<'de>>(
    reader: &mut OwnedReadHalf,
    buffer: &mut [u8],
) -> io::Result<T> {
    match reader.read(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => Ok(serde_json::from_slice(&buffer[..length])?),
    }
}

/// Room for a message.
pub(super) fn buffer() -> Vec<u8> {
    vec![0; MOST_MESSAGE]
}

/// Takes back the order when the check is given up.
struct Running<'p> {
    programs: &'p Programs,
    id: u64,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // When so many orders wait, the program ends by its own deadline.
        let _ = self.programs.orders.try_send(Order::Stop(self.id));
    }
}

impl Programs {
    /// Runs a program that is no check: `Ok` when it exits with 0.
    ///
    /// # Errors
    /// In words, how it ended otherwise.
    pub async fn run(
        &self,
        name: &str,
        arguments: Vec<String>,
        environment: BTreeMap<String, String>,
        timeout: Duration,
    ) -> Result<(), String> {
        let id = FIRST_OTHER | self.others.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let run = Run { id, name: name.to_owned(), arguments, environment, timeout };
        let gone = || "the runner of programs is gone: start lbd again".to_owned();
        self.orders.send(Order::Run(Box::new(run), answer)).await.map_err(|_| gone())?;
        let _running = Running { programs: self, id };
        match judge(name, answered.await.map_err(|_| gone())?) {
            Ok(()) => Ok(()),
            Err(Outcome::Failed(why) | Outcome::Untested(why)) => Err(why),
            Err(Outcome::Answered) => Err("it answered".to_owned()),
        }
    }
}

/// Runs a program. `id` names this run and no other one.
pub(super) async fn check(
    id: u64,
    address: SocketAddr,
    program: &Program,
    timeout: Duration,
    programs: Option<&Programs>,
) -> Verdict {
    let Some(programs) = programs else {
        return Err(Outcome::Untested("daemon.monitor_dir was not there when lbd was started".into()));
    };
    let (answer, answered) = oneshot::channel();
    let order = Order::Run(Box::new(run(id, address, program, timeout)), answer);
    let gone = || Outcome::Untested("the runner of programs is gone: start lbd again".into());
    programs.orders.send(order).await.map_err(|_| gone())?;
    let _running = Running { programs, id };
    judge(&program.name, answered.await.map_err(|_| gone())?)
}

fn run(id: u64, address: SocketAddr, program: &Program, timeout: Duration) -> Run {
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let fill = |text: &String| text.replace("{address}", &ip).replace("{port}", &port);
    let mut environment = program.environment.clone();
    environment.extend([
        ("LB_ADDRESS".to_owned(), ip.clone()),
        ("LB_PORT".to_owned(), port.clone()),
        ("LB_TIMEOUT_MS".to_owned(), timeout.as_millis().to_string()),
    ]);
    let arguments = program.arguments.iter().map(fill).collect();
    Run { id, name: program.name.clone(), arguments, environment, timeout }
}

fn judge(name: &str, end: End) -> Verdict {
    match end {
        End::Exited { code: 0, .. } => Ok(()),
        End::Exited { code, output } => {
            let mut lines = output.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
            let said = lines.next().map(|line| format!(": {}", probe::repeat(line))).unwrap_or_default();
            if code == CANNOT_TELL {
                return Err(Outcome::Untested(format!("program {name} cannot tell{said}")));
            }
            failed(format!("program {name} says no (exit code {code}){said}"))
        }
        End::Signalled { signal } => failed(format!("program {name} was ended by signal {signal}")),
        End::TooMuchOutput => failed(format!("program {name} writes too much")),
        End::TimedOut => failed(format!("program {name} takes too long")),
        End::NotRun(why) => Err(Outcome::Untested(format!("program {name} cannot be run: {why}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_a_contract() {
        let exited = |code, output: &str| End::Exited { code, output: output.into() };
        let no = |why: &str| Err(Outcome::Failed(why.into()));
        for (end, verdict) in [
            (exited(0, "anything"), Ok(())),
            (exited(1, ""), no("program x says no (exit code 1)")),
            (exited(2, "\n\x1b[31mCRITICAL\nmore"), no("program x says no (exit code 2): \".[31mCRITICAL\"")),
            (exited(3, "no such host"), Err(Outcome::Untested("program x cannot tell: \"no such host\"".into()))),
            (End::Signalled { signal: 11 }, no("program x was ended by signal 11")),
            (End::TooMuchOutput, no("program x writes too much")),
            (
                End::NotRun("it is not there".into()),
                Err(Outcome::Untested("program x cannot be run: it is not there".into())),
            ),
        ] {
            assert_eq!(judge("x", end), verdict);
        }
    }

    #[test]
    fn a_program_is_told_whom_to_check() {
        let program = Program {
            name: "x".into(),
            arguments: vec!["-H".into(), "{address}".into(), "[{address}]:{port};$(id)".into()],
            environment: [("LANG".to_owned(), "C".to_owned())].into(),
        };
        let run = run(7, "[2001:db8::1]:80".parse().unwrap(), &program, Duration::from_secs(3));
        assert_eq!(run.arguments, ["-H", "2001:db8::1", "[2001:db8::1]:80;$(id)"]);
        let environment: Vec<String> = run.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(environment, ["LANG=C", "LB_ADDRESS=2001:db8::1", "LB_PORT=80", "LB_TIMEOUT_MS=3000"]);
    }
}
