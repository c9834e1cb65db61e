//! The proxies that are compared, and the nodes behind them: configurations, processes, ports.
//!
//! Each is set up as its own manual recommends for this load: one worker on one core, connections to nodes kept, no access
//! log, `X-Forwarded-For` set, sessions and tickets as by default.

use std::{
    fs,
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use lb_tests::harness::wait::eventually;

/// Where the nodes listen.
pub(crate) const NODES: [u16; 2] = [19001, 19002];

/// A proxy that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    Lb,
    Haproxy,
    Nginx,
}

/// A listener of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Http,
    Https,
    Tcp,
}

impl Proxy {
    pub(crate) const ALL: [Self; 3] = [Self::Lb, Self::Haproxy, Self::Nginx];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lb => "lb",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    pub(crate) fn port(self, port: Port) -> u16 {
        19_100 + 100 * self as u16 + port as u16
    }
}

/// A proxy that runs; ended when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) proxy: Proxy,
    child: Child,
}

impl Running {
    pub(crate) fn port(&self, port: Port) -> u16 {
        self.proxy.port(port)
    }

    pub(crate) fn scheme(&self, port: Port) -> &'static str {
        if port == Port::Https { "https" } else { "http" }
    }

    /// The proxy's processes: the one that was started, and its children.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let own = self.child.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        std::iter::once(own).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// Nodes that run; ended when dropped.
#[derive(Debug)]
pub(crate) struct Nodes(Child);

impl Drop for Nodes {
    fn drop(&mut self) {
        stop(&mut self.0);
    }
}

fn stop(child: &mut Child) {
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    // It may have ended by itself.
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    let _ = child.wait();
}

/// Starts the nodes: nginx with files of 1 KiB and 100 KiB, and a place that takes bodies.
pub(crate) fn start_nodes(folder: &Path) -> Result<Nodes> {
    let root = folder.join("www");
    fs::create_dir_all(&root)?;
    for (name, size) in [("1k", 1024), ("100k", 100 * 1024)] {
        fs::write(root.join(name), vec![b'x'; size])?;
    }
    certificate(folder)?;
    // Its workers give up root, and read what is here.
    Command::new("chmod").args(["-R", "a+rX"]).arg(folder).status()?;
    let listen: String = NODES.iter().map(|port| format!("listen 127.0.0.1:{port} reuseport;")).collect();
    let text = format!(
        "{}\nserver {{ {listen} root {}; open_file_cache max=10; tcp_nopush on; location /up/ {{ dav_methods PUT; }} }} }}",
        nginx_head(folder, "nodes"),
        root.display()
    );
    let child = start_nginx(folder, "nodes", &text, "1")?;
    wait_for(NODES[0])?;
    Ok(Nodes(child))
}

/// Starts a proxy on core 0.
pub(crate) fn start(proxy: Proxy, folder: &Path) -> Result<Running> {
    let child = match proxy {
        Proxy::Lb => {
            let own = std::env::current_exe()?;
            spawn(Command::new("taskset").args(["-c", "0"]).arg(own).arg("--serve").arg(folder))?
        }
        Proxy::Haproxy => {
            let file = folder.join("haproxy.cfg");
            fs::write(&file, haproxy(folder))?;
            spawn(Command::new("taskset").args(["-c", "0", "/usr/sbin/haproxy", "-db", "-f"]).arg(file))?
        }
        Proxy::Nginx => start_nginx(folder, "proxy", &nginx(folder), "0")?,
    };
    let running = Running { proxy, child };
    for port in [Port::Http, Port::Https, Port::Tcp] {
        wait_for(proxy.port(port))?;
    }
    Ok(running)
}

fn certificate(folder: &Path) -> Result<()> {
    let (key, chain) = (folder.join("key.pem"), folder.join("chain.pem"));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    command.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "365"]);
    command.arg("-keyout").arg(&key).arg("-out").arg(&chain).stderr(Stdio::null());
    if !command.status().context("cannot run openssl")?.success() {
        bail!("openssl made no certificate");
    }
    let both = fs::read_to_string(&chain)? + &fs::read_to_string(&key)?;
    fs::write(folder.join("both.pem"), both)?;
    Ok(())
}

fn nginx_head(folder: &Path, name: &str) -> String {
    format!(
        "daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log /dev/null;\n\
         worker_rlimit_nofile 65536; include /etc/nginx/modules-enabled/*.conf;\n\
         events {{ worker_connections 20000; }}\n\
         http {{ access_log off; sendfile on; keepalive_requests 1000000000; keepalive_timeout 300s;\n\
         client_body_temp_path {folder}/{name}-body; proxy_temp_path {folder}/{name}-proxy;\n\
         fastcgi_temp_path {folder}/{name}-f; uwsgi_temp_path {folder}/{name}-u; scgi_temp_path {folder}/{name}-s;",
        folder = folder.display()
    )
}

fn nginx(folder: &Path) -> String {
    let [first, second] = NODES;
    let folder_text = folder.display();
    let proxy = Proxy::Nginx;
    let (http, https, tcp) = (proxy.port(Port::Http), proxy.port(Port::Https), proxy.port(Port::Tcp));
    let upstream = format!("server 127.0.0.1:{first}; server 127.0.0.1:{second};");
    format!(
        "{head}\nupstream nodes {{ {upstream} keepalive 128; keepalive_requests 1000000000; }}\n\
         server {{ listen 127.0.0.1:{http} reuseport deferred; listen 127.0.0.1:{https} ssl http2 reuseport;\n\
         ssl_certificate {folder_text}/chain.pem; ssl_certificate_key {folder_text}/key.pem;\n\
         ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:s:4m;\n\
         location / {{ proxy_pass http://nodes; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;\n\
         proxy_set_header X-Forwarded-Host $host; proxy_set_header Host $host; }} }} }}\n\
         stream {{ upstream nodes {{ {upstream} }} server {{ listen 127.0.0.1:{tcp} reuseport; proxy_pass nodes; }} }}",
        head = nginx_head(folder, "proxy"),
    )
}

fn haproxy(folder: &Path) -> String {
    let [first, second] = NODES;
    let proxy = Proxy::Haproxy;
    let (http, https, tcp) = (proxy.port(Port::Http), proxy.port(Port::Https), proxy.port(Port::Tcp));
    format!(
        "global\n nbthread 1\n maxconn 4000\n\
         defaults\n timeout client 300s\n timeout server 300s\n timeout connect 1s\n timeout http-keep-alive 300s\n\
         \x20option splice-auto\n\
         frontend http\n mode http\n option forwardfor\n bind 127.0.0.1:{http} defer-accept\n default_backend nodes\n\
         frontend https\n mode http\n option forwardfor\n\
         \x20bind 127.0.0.1:{https} ssl crt {folder}/both.pem alpn h2,http/1.1\n default_backend nodes\n\
         backend nodes\n mode http\n balance roundrobin\n http-reuse always\n\
         \x20server a 127.0.0.1:{first}\n server b 127.0.0.1:{second}\n\
         listen tcp\n mode tcp\n bind 127.0.0.1:{tcp}\n balance roundrobin\n\
         \x20server a 127.0.0.1:{first}\n server b 127.0.0.1:{second}\n",
        folder = folder.display()
    )
}

fn start_nginx(folder: &Path, name: &str, text: &str, core: &str) -> Result<Child> {
    let file = folder.join(format!("{name}.conf"));
    fs::write(&file, text)?;
    spawn(Command::new("taskset").args(["-c", core, "/usr/sbin/nginx", "-e", "/dev/null", "-c"]).arg(file))
}

fn spawn(command: &mut Command) -> Result<Child> {
    command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot run {command:?}"))
}

fn wait_for(port: u16) -> Result<()> {
    let what = format!("a listener on port {port}");
    eventually(&what, Duration::from_secs(5), || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
    Ok(())
}
