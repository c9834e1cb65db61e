//! A real nginx on a node: own prefix directory, one worker. Its pages say who served them and what it saw.

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::{
    host::Host,
    http::{self, HEADER_LOCAL, HEADER_NODE, HEADER_REMOTE},
    namespace,
    wait::until,
};

/// Bytes of the page `/`.
pub const PAGE_BYTES: usize = 16 * 1024;
/// Bytes of `/large`.
pub const LARGE_BYTES: usize = 4 * 1024 * 1024;

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
    dir: TempDir,
}

impl Nginx {
    /// Starts it on all addresses of a node and waits until it answers.
    ///
    /// # Errors
    /// Without nginx, or when a port is taken.
    pub fn start(node: &Host, ports: &[u16]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix(&namespace::prefix(&node.name)).tempdir()?;
        let root = dir.path().display();
        // The worker drops root: it must be able to read the pages.
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        fs::write(dir.path().join("index.html"), page(&node.name, PAGE_BYTES))?;
        fs::write(dir.path().join("large"), page(&node.name, LARGE_BYTES))?;
        let listens: String =
            ports.iter().map(|port| format!("listen {port} backlog=4096; listen [::]:{port} backlog=4096; ")).collect();
        let name = &node.name;
        let config = format!(
            "daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid {root}/pid; error_log {root}/error.log warn;\n\
             events {{ worker_connections 8192; }}\n\
             http {{\n  access_log off; server_tokens off;\n  client_body_temp_path {root}/body; \
             proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi; \
             scgi_temp_path {root}/scgi;\n  server {{\n    {listens}\n    root {root};\n    \
             add_header {HEADER_NODE} {name}; add_header {HEADER_REMOTE} $remote_addr; \
             add_header {HEADER_LOCAL} '$server_addr $server_port';\n  }}\n}}\n"
        );
        let file = dir.path().join("nginx.conf");
        fs::write(&file, config)?;
        let log = fs::File::create(dir.path().join("output.log"))?;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(dir.path()).arg("-c").arg(&file).arg("-e").arg(dir.path().join("error.log"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = node.start(&mut command).context("package nginx")?;
        let nginx = Self { child, dir };
        nginx.wait_until_ready(node, ports)?;
        Ok(nginx)
    }

    fn wait_until_ready(&self, node: &Host, ports: &[u16]) -> Result<()> {
        for port in ports {
            let target = SocketAddr::new(node.v4.into(), *port);
            until(&format!("nginx on {} answers", node.name), Duration::from_secs(10), || {
                node.run(|| http::get(target, None, "/", Duration::from_secs(1))).map(Some)
            })
            .with_context(|| fs::read_to_string(self.dir.path().join("error.log")).unwrap_or_default())?;
        }
        Ok(())
    }

    /// Kills it (SIGKILL) with its worker: connections are refused from now on.
    ///
    /// # Errors
    /// When it has ended before.
    pub fn kill(&mut self) -> Result<()> {
        for pid in self.processes() {
            // A worker may have noticed its master's death already.
            let _ = kill(pid, Signal::SIGKILL);
        }
        self.child.wait()?;
        Ok(())
    }

    /// The master, then its workers.
    fn processes(&self) -> Vec<Pid> {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let workers = children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw);
        std::iter::once(Pid::from_raw(id.cast_signed())).chain(workers).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // It ends with us in any case; an error means it ended by itself.
            let _ = self.kill();
        }
    }
}

fn page(name: &str, bytes: usize) -> String {
    let line = format!("<p>served by {name}</p>\n");
    line.repeat(bytes / line.len() + 1)[..bytes].to_owned()
}
