//! A TLS server over `proxy::tls` that answers every read alike: for testssl.sh, and for measurements of TLS alone.
//!
//! `cargo run --release -p lb-userspace --example tls_server -- 127.0.0.1:4433 CHAIN KEY [CHAIN KEY …]`: one virtual server
//! with these certificates, the first one for clients without a name, on one thread.

use std::{collections::BTreeMap, env, fs, net::TcpListener, rc::Rc};

use anyhow::{Context, Result, bail};
use lb::{
    control::proxy::tls::{Certificate, ClientAuth, ServerTls, Version},
    proxy::{
        reactor::{self, Deadline, Listener},
        tls::{Gate, ServerSetup, TicketKeys, accept},
    },
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What every read is answered by.
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nStrict-Transport-Security: max-age=31536000\r\n\r\nhello\n";

/// Handshakes at a time, and their time in milliseconds.
const MOST: usize = 4096;
const DEADLINE_MS: u64 = 10_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, files @ ..] = &arguments[..] else { bail!("say ADDRESS CHAIN KEY [CHAIN KEY …]") };
    let mut certificates = BTreeMap::new();
    for (index, pair) in files.chunks(2).enumerate() {
        let [chain, key] = pair else { bail!("a key is missing behind {pair:?}") };
        let chain_pem = fs::read_to_string(chain).with_context(|| chain.clone())?;
        let key_pem = fs::read_to_string(key).with_context(|| key.clone())?;
        certificates.insert(format!("c{index}"), Certificate { chain_pem, key_pem, ocsp: None });
    }
    let tls = ServerTls {
        certificates: certificates.keys().cloned().collect(),
        default_certificate: certificates.keys().next().cloned(),
        min_version: Version::Tls12,
        cipher_suites: Vec::new(),
        curves: Vec::new(),
        client_auth: ClientAuth::None,
        tickets: true,
        ticket_secret: None,
    };
    let setup = ServerSetup::build("example", &tls, &certificates, &[b"http/1.1"], &TicketKeys::default())?;
    let listener = TcpListener::bind(address)?;
    reactor::run(async move {
        let listener = Listener::new(listener)?;
        let gate = Rc::new(Gate::new(MOST));
        loop {
            let (socket, _) = listener.accept().await?;
            let (setup, gate) = (setup.clone(), gate.clone());
            reactor::spawn(async move {
                let at_ms = reactor::now_ms() + DEADLINE_MS;
                let handshake =
                    Box::pin(async move { accept(socket, &setup, &gate, &[], &Deadline::new(), at_ms).await });
                // Who fails has been told; nobody else is to be.
                let Ok((mut stream, _)) = handshake.await else { return };
                loop {
                    if std::future::poll_fn(|context| stream.poll_readable(context)).await.is_err() {
                        return;
                    }
                    if !answer(&mut stream).await {
                        return;
                    }
                }
            });
        }
    })?
}

async fn answer(stream: &mut lb::proxy::tls::TlsStream) -> bool {
    let mut request = Box::new([0; 4096]);
    match stream.read(&mut request[..]).await {
        Ok(count) if count > 0 => stream.write_all(ANSWER).await.is_ok(),
        Ok(_) | Err(_) => {
            let _ = stream.shutdown().await;
            false
        }
    }
}
