//! Nodes that are killed, frozen or cut off, and certificates that change, while requests run: no idempotent request fails,
//! and no other is sent twice.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_tests::harness::{Host, Lb, Net, Nginx, Topology, eventually, wait::let_pass};

use super::{SOON, config, kept::Kept, serves, web, worker};

const GET: &str = "GET /get/% HTTP/1.1\r\nHost: lb.test\r\n\r\n";
const POST: &str = "POST /post/% HTTP/1.1\r\nHost: lb.test\r\nContent-Length: 4\r\n\r\nbody";

/// A node that remembers what it was asked, and can be told to misbehave.
#[derive(Debug)]
struct Recorder {
    state: Arc<State>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// How often each target was asked for.
    asked: Mutex<BTreeMap<String, usize>>,
    connections: Mutex<Vec<TcpStream>>,
    frozen: AtomicBool,
    stopped: AtomicBool,
}

impl Recorder {
    fn start(node: &Host) -> Result<Self> {
        let state = Arc::new(State::default());
        let mut recorder = Self { state, listener: None };
        recorder.listen(node)?;
        Ok(recorder)
    }

    fn listen(&mut self, node: &Host) -> Result<()> {
        self.state.stopped.store(false, Ordering::SeqCst);
        let (state, name) = (Arc::clone(&self.state), node.name.clone());
        let listener = node.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)))?;
        listener.set_nonblocking(true)?;
        self.listener = Some(node.spawn(move || {
            while !state.stopped.load(Ordering::SeqCst) {
                let Ok((stream, _)) = listener.accept() else {
                    let_pass(Duration::from_millis(1));
                    continue;
                };
                let (state, name) = (Arc::clone(&state), name.clone());
                if let Ok(copy) = stream.try_clone() {
                    state.connections.lock().unwrap_or_else(PoisonError::into_inner).push(copy);
                }
                // A connection that breaks is the test's doing.
                thread::spawn(move || state.serve(stream, &name));
            }
        })?);
        Ok(())
    }

    /// As a process that is killed: its connections break, new ones are refused.
    fn kill(&mut self) -> Result<()> {
        self.state.stopped.store(true, Ordering::SeqCst);
        if let Some(listener) = self.listener.take() {
            listener.join().map_err(|_| anyhow::anyhow!("the node panicked"))?;
        }
        for stream in self.state.connections.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // It may have ended before.
            let _ = stream.shutdown(Shutdown::Both);
        }
        Ok(())
    }

    fn freeze(&self, frozen: bool) {
        self.state.frozen.store(frozen, Ordering::SeqCst);
    }

    fn asked(&self) -> BTreeMap<String, usize> {
        self.state.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
    }
}

impl State {
    fn serve(&self, mut stream: TcpStream, name: &str) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        stream.set_nonblocking(false)?;
        loop {
            while self.frozen.load(Ordering::SeqCst) {
                let_pass(Duration::from_millis(5));
            }
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
                let read = stream.read(&mut buffer)?;
                if read == 0 {
                    return Ok(());
                }
                bytes.extend_from_slice(&buffer[..read]);
                continue;
            };
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = if head.starts_with("POST") { 4 } else { 0 };
            while bytes.len() < end + 4 + length {
                let read = stream.read(&mut buffer)?;
                if read == 0 {
                    return Ok(());
                }
                bytes.extend_from_slice(&buffer[..read]);
            }
            bytes.drain(..end + 4 + length);
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            *self.asked.lock().unwrap_or_else(PoisonError::into_inner).entry(target).or_default() += 1;
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Node: {name}\r\n\r\nok")?;
        }
    }
}

/// Requests of both kinds go on while `trouble` is made for the first node and ended again.
fn under_load(
    name: &str,
    trouble: impl FnOnce(&Net, &mut Recorder, &dyn Fn() -> Result<()>) -> Result<()>,
) -> Result<()> {
    let net = Topology::new(name).nodes(3).build()?;
    let mut nodes = net.nodes.iter().map(Recorder::start).collect::<Result<Vec<_>>>()?;
    let quick =
        "[pool.web.timeouts]\nconnect = \"300ms\"\nreply = \"500ms\"\n[pool.web.passive]\nnode_fail_time = \"1s\"\n";
    let lb = net.start_lb(&[&config(&net, ""), quick].concat())?;
    serves(&net)?;
    let gets = Kept::start(net.client(), web(), 4, GET, Duration::ZERO)?;
    let posts = Kept::start(net.client(), web(), 4, POST, Duration::ZERO)?;
    let go_on = || -> Result<()> {
        gets.wait_for_more(300, SOON)?;
        posts.wait_for_more(100, SOON)
    };
    go_on()?;
    let (others, first) = nodes.split_first_mut().map(|(first, others)| (others, first)).context("no node")?;
    trouble(&net, first, &go_on)?;
    go_on()?;
    let back = first.asked().len();
    eventually("the node serves again", SOON, || first.asked().len() > back)?;
    let (gets, posts) = (gets.stop()?, posts.stop()?);
    ensure!(gets.failures.is_empty() && gets.answered > 600, "{gets:?}");
    let mut asked = BTreeMap::new();
    for node in others.iter().chain([&*first]) {
        for (target, count) in node.asked() {
            *asked.entry(target).or_insert(0) += count;
        }
    }
    let doubled: Vec<_> = asked.iter().filter(|(target, count)| target.starts_with("/post/") && **count > 1).collect();
    ensure!(doubled.is_empty(), "sent more than once: {doubled:?}");
    let sent = asked.keys().filter(|target| target.starts_with("/post/")).count() as u64;
    ensure!(posts.answered <= sent && posts.answered > 200, "{posts:?}, {sent} came");
    drop(lb);
    Ok(())
}

#[test]
fn a_killed_node_fails_no_get_and_doubles_no_post() -> Result<()> {
    under_load("l7nkill", |net, node, go_on| {
        for _ in 0..3 {
            node.kill()?;
            go_on()?;
            node.listen(&net.nodes[0])?;
            go_on()?;
        }
        Ok(())
    })
}

#[test]
fn a_frozen_node_fails_no_get_and_doubles_no_post() -> Result<()> {
    under_load("l7nfroz", |_, node, go_on| {
        for _ in 0..2 {
            node.freeze(true);
            go_on()?;
            node.freeze(false);
            go_on()?;
        }
        Ok(())
    })
}

#[test]
fn a_node_that_is_cut_off_fails_no_get_and_doubles_no_post() -> Result<()> {
    under_load("l7nhole", |net, _, go_on| {
        net.nodes[0].sh("ip link set eth0 down")?;
        go_on()?;
        net.nodes[0].sh("ip link set eth0 up")?;
        go_on()
    })
}

/// Runs a line of the shell; its output.
fn shell(line: &str) -> Result<String> {
    let output = Command::new("sh").arg("-c").arg(line).output()?;
    ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn fifty_certificates_under_load_fail_no_handshake() -> Result<()> {
    let net = Topology::new("l7cert").nodes(1).build()?;
    let _nginx = Nginx::start(&net.nodes[0], &[80])?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().display().to_string();
    let renew = |lb: Option<&Lb<'_>>, round: u32| -> Result<()> {
        // Both files are replaced whole, the key first: lbd refuses a pair that does not fit, and keeps the one before.
        shell(&format!(
            "cd {path} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout new.key -out \
             new.pem -days 90 -set_serial {round} -subj /CN=lb.test -addext subjectAltName=DNS:lb.test && chmod 600 new.key && \
             mv new.key site.key && mv new.pem site.pem"
        ))?;
        lb.map_or(Ok(()), |lb| lb.ctl(&["reload"]).map(drop))
    };
    renew(None, 1)?;
    let secure = format!(
        "[certificate.site]\nchain = \"{path}/site.pem\"\nkey = \"{path}/site.key\"\n[virtual_server.secure]\nvips = [\"one\"]\n\
         protocol = \"https\"\nports = 443\npool = \"web\"\ntls = {{ certificates = [\"site\"] }}\n"
    );
    let lb = net.start_lb(&[&config(&net, ""), secure.as_str()].concat())?;
    serves(&net)?;
    let before = worker(&lb)?;
    let stop = Arc::new(AtomicBool::new(false));
    let clients = (0..3).map(|_| {
        let stop = Arc::clone(&stop);
        net.client().spawn(move || -> Result<(usize, Vec<String>)> {
            let (mut done, mut failures) = (0, Vec::new());
            let curl = "curl -sS -k --max-time 5 -o /dev/null -w '%{http_code}' --resolve lb.test:443:10.1.1.1 https://lb.test/";
            while !stop.load(Ordering::SeqCst) {
                match shell(curl) {
                    Ok(status) if status.trim() == "200" => done += 1,
                    Ok(status) => failures.push(status),
                    Err(error) => failures.push(error.to_string()),
                }
            }
            Ok((done, failures))
        })
    });
    let clients = clients.collect::<Result<Vec<_>>>()?;
    let shown = || {
        let show = "openssl s_client -connect 10.1.1.1:443 -servername lb.test </dev/null 2>/dev/null | openssl x509 -noout -serial";
        net.client().run(|| shell(show))
    };
    for round in 2..=51 {
        renew(Some(&lb), round)?;
        if round % 10 == 0 {
            let serial = format!("serial={round:02X}");
            ensure!(shown()?.trim() == serial, "{serial} was to be shown: {}", shown()?);
        }
    }
    stop.store(true, Ordering::SeqCst);
    let mut done = 0;
    for client in clients {
        let (answered, failures) = client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        ensure!(failures.is_empty(), "{failures:?}");
        done += answered;
    }
    ensure!(done >= 50, "{done} handshakes only");
    ensure!(worker(&lb)? == before, "the worker was replaced");
    let vs = lb.virtual_server("secure")?.proxy.context("no L7 part")?;
    ensure!(vs.tls_full + vs.tls_resumed >= done as u64 && vs.tls_failed == 0, "{vs:?}");
    Ok(())
}
