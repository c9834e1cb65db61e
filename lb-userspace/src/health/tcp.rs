//! TCP: connecting, with TLS where it is asked for, and a dialogue whose length is bounded.
//!
//! A connection is closed in the ordinary way when it is dropped. Dropping a future gives the attempt up.

use std::{net::SocketAddr, time::Duration};

use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time,
};

use super::{
    machine::Outcome,
    probe::{self, MOST_BYTES, Verdict, failed},
    tls::Client,
};

/// A node that sends in tiny pieces is looked at so often in a row, and then in these intervals: looking costs time.
const EAGER_LOOKS: usize = 16;
/// See [`EAGER_LOOKS`].
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A connection, with or without TLS.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// The port answers.
pub(super) async fn check(address: SocketAddr) -> Verdict {
    plain(address).await.map(drop)
}

async fn plain(address: SocketAddr) -> Result<TcpStream, Outcome> {
    if address.port() == 0 {
        return Err(Outcome::Untested("neither the node nor the monitor has a port: give the monitor one".into()));
    }
    Ok(TcpStream::connect(address).await?)
}

/// Connects. `name` is what the certificate must be for, unless the configuration says another.
pub(super) async fn open(address: SocketAddr, tls: Option<&Client>, name: &str) -> Result<Box<dyn Io>, Outcome> {
    let stream = plain(address).await?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let name = tls.server_name.as_deref().unwrap_or(name);
    let Ok(name) = ServerName::try_from(name.to_owned()) else {
        return Err(Outcome::Untested(format!(
            "{name:?} is no name to verify a certificate by: add server_name to tls"
        )));
    };
    match tls.connector.connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => match probe::outcome(&error) {
            Outcome::Failed(why) if error.raw_os_error().is_none() => failed(format!("TLS: {why}")),
            outcome @ (Outcome::Failed(_) | Outcome::Untested(_) | Outcome::Answered) => Err(outcome),
        },
    }
}

/// Holds back from looking again and again at what comes in tiny pieces.
#[derive(Debug, Default)]
pub(super) struct Pace(usize);

impl Pace {
    /// After a look in vain.
    pub(super) async fn wait(&mut self) {
        self.0 += 1;
        if self.0 > EAGER_LOOKS {
            time::sleep(LOOK_INTERVAL).await;
        }
    }
}

/// A connection and what was read of it.
pub(super) struct Dialogue {
    io: Box<dyn Io>,
    received: Vec<u8>,
    /// So much of it was understood.
    used: usize,
}

impl Dialogue {
    pub(super) fn new(io: Box<dyn Io>) -> Self {
        Self { io, received: Vec::new(), used: 0 }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Verdict {
        self.io.write_all(bytes).await?;
        Ok(self.io.flush().await?)
    }

    /// Reads until `look` finds what it looks for in what was not used yet: what, and where that ends. `None`: the node
    /// closed before. `what` is for words.
    pub(super) async fn until<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&[u8]) -> Option<(usize, T)>,
    ) -> Result<Option<T>, Outcome> {
        let mut pace = Pace::default();
        loop {
            if let Some((end, found)) = look(self.unused()) {
                self.used += end;
                return Ok(Some(found));
            }
            if self.received.len() >= MOST_BYTES {
                return failed(format!("sent {MOST_BYTES} bytes without {what}"));
            }
            pace.wait().await;
            let most = MOST_BYTES - self.received.len();
            if (&mut self.io).take(most as u64).read_buf(&mut self.received).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// What was received and not used.
    pub(super) fn unused(&self) -> &[u8] {
        &self.received[self.used..]
    }

    /// The node closed the connection without what was to come.
    pub(super) fn closed<T>(&self, what: &str) -> Result<T, Outcome> {
        let said = match self.unused() {
            [] => String::new(),
            said => format!(", said {}", probe::repeat(said)),
        };
        failed(format!("closed the connection without {what}{said}"))
    }
}
