//! An own TCP and UDP echo server on a node, so that a test sees who has a connection and whether it lives.
//!
//! TCP: the node's name and a newline at the start, then every byte back. UDP: the node's name, a blank, the datagram.

use std::{
    io::{self, Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};

use super::host::Host;

const TICK: Duration = Duration::from_millis(50);
const BACKLOG: i32 = 4096;

/// A running echo server.
#[derive(Debug)]
pub struct EchoServer {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl EchoServer {
    /// Starts it on every address of the node. UDP answers come from the address that was asked.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(node: &Host, port: u16) -> Result<Self> {
        let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut server = Self { stop, accepted, threads: Vec::new() };
        let listener = node.run(|| listen(port))?;
        let (stop, accepted, name) = (Arc::clone(&server.stop), Arc::clone(&server.accepted), node.name.clone());
        server
            .threads
            .push(node.spawn(move || TcpEcho { name, listener, connections: Vec::new() }.run(&stop, &accepted))?);
        for address in node.addresses() {
            let socket = node.run(|| UdpSocket::bind((address, port)))?;
            socket.set_read_timeout(Some(TICK))?;
            let (stop, name) = (Arc::clone(&server.stop), node.name.clone());
            server.threads.push(node.spawn(move || echo_datagrams(&socket, &name, &stop))?);
        }
        Ok(server)
    }

    /// TCP connections taken so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic was reported by the thread itself and shows as missing answers.
            let _ = thread.join();
        }
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

struct TcpEcho {
    name: String,
    listener: TcpListener,
    connections: Vec<Connection>,
}

struct Connection {
    stream: TcpStream,
    unsent: Vec<u8>,
    ended: bool,
}

impl TcpEcho {
    fn run(&mut self, stop: &AtomicBool, accepted: &AtomicUsize) {
        let tick = PollTimeout::try_from(TICK).expect("50 ms are a poll timeout");
        while !stop.load(Ordering::Relaxed) {
            let mut waits = vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
            waits.extend(self.connections.iter().map(|connection| {
                let writes = if connection.unsent.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
                PollFd::new(connection.stream.as_fd(), PollFlags::POLLIN | writes)
            }));
            // A signal interrupts it: the loop asks again.
            let _ = poll(&mut waits, tick);
            let ready: Vec<bool> = waits.iter().map(|wait| wait.any().unwrap_or(true)).collect();
            for (connection, _) in self.connections.iter_mut().zip(&ready[1..]).filter(|(_, ready)| **ready) {
                connection.ended = connection.serve().is_err();
            }
            self.connections.retain(|connection| !connection.ended);
            while let Ok((stream, _)) = self.listener.accept() {
                accepted.fetch_add(1, Ordering::Relaxed);
                let unsent = format!("{}\n", self.name).into_bytes();
                if stream.set_nonblocking(true).is_ok() && stream.set_nodelay(true).is_ok() {
                    self.connections.push(Connection { stream, unsent, ended: false });
                }
            }
        }
    }
}

impl Connection {
    /// Reads what is there and writes what can be written; an error ends the connection.
    fn serve(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => self.unsent.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        match self.stream.write(&self.unsent) {
            Ok(length) => drop(self.unsent.drain(..length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn echo_datagrams(socket: &UdpSocket, name: &str, stop: &AtomicBool) {
    let mut buffer = [0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        // An error is the timeout, or an ICMP error about an earlier answer.
        if let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let answer = [name.as_bytes(), b" ", &buffer[..length]].concat();
            // The client may be gone.
            let _ = socket.send_to(&answer, client);
        }
    }
}
