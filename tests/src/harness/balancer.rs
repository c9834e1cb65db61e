//! The real `lbd`, run on a network's balancer with directories, socket and pins of its own, and `lbctl` to ask it.
//!
//! The binaries are those beside the running test in `target/<profile>`; `cargo xtask test` and `demo` build them first.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixDatagram, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use toml::{Table, Value};

mod ask;

use super::{command::sh, host::Host, namespace, topology::Net, wait::until};

/// Within this lbd must be ready, take a reload, or end.
/// On a machine where much else runs, lbd has taken more than 20 s to start.
const DEADLINE: Duration = Duration::from_secs(60);
/// Room for connections in tests that do not say: small tables are made faster.
const MAX_FLOWS: i64 = 65_536;

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// How a process was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM: it may do what its configuration says.
    Graceful,
    /// SIGKILL.
    Kill,
}

/// An lbd on the balancer of a network; with it its pins are removed.
#[derive(Debug)]
pub struct Lb<'n> {
    host: &'n Host,
    dir: TempDir,
    pins: PathBuf,
    child: Option<Child>,
    notify: Option<UnixDatagram>,
    /// What it told the service manager until it was ready.
    said: Vec<String>,
    quiet: bool,
    /// What it logs, in the words of `LB_LOG`.
    log_filter: String,
    /// A program of its own, in its directory.
    own_program: Option<PathBuf>,
    /// Where its log goes instead of a file.
    log_into: Option<File>,
}

impl<'n> Lb<'n> {
    /// Starts it with a configuration and waits until it is ready. `[daemon]` `socket` and `state_dir` and `[dataplane]`
    /// `pin_dir` are the harness's.
    ///
    /// # Errors
    /// When it ends or is not ready in time: with its log.
    pub fn start(net: &'n Net, config: &str) -> Result<Self> {
        let mut lb = Self::prepare(net, config)?;
        lb.launch()?;
        Ok(lb)
    }

    /// Everything but the process: for tests of a start that must fail.
    ///
    /// # Errors
    /// When the configuration is not TOML, or without a BPF file system.
    pub fn prepare(net: &'n Net, config: &str) -> Result<Self> {
        Self::prepare_on(net, &net.balancer, config)
    }

    /// As [`Self::start`], on another machine of the network.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_on(net: &'n Net, host: &'n Host, config: &str) -> Result<Self> {
        let mut lb = Self::prepare_on(net, host, config)?;
        lb.launch()?;
        Ok(lb)
    }

    fn prepare_on(net: &'n Net, host: &'n Host, config: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix(&namespace::prefix(&net.name)).tempdir()?;
        if !Path::new("/sys/fs/bpf").join(".").exists() || sh("stat -f -c %T /sys/fs/bpf")?.trim() != "bpf_fs" {
            sh("mount -t bpf bpf /sys/fs/bpf").context("lbd's pins need a BPF file system")?;
        }
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let pins = PathBuf::from(format!("/sys/fs/bpf/{}{number}", namespace::prefix(&net.name)));
        let lb = Self {
            host,
            dir,
            pins,
            child: None,
            notify: None,
            said: Vec::new(),
            quiet: false,
            log_filter: std::env::var("LB_LOG").unwrap_or_else(|_| "info".into()),
            own_program: None,
            log_into: None,
        };
        lb.configure(config)?;
        Ok(lb)
    }

    /// Runs a copy of lbd that belongs to it, and can be replaced by [`Self::install`].
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn with_own_program(mut self) -> Result<Self> {
        self.own_program = Some(self.dir.path().join("lbd"));
        self.install()?;
        Ok(self)
    }

    /// Has it log to somewhere else than a file of the harness, which then cannot show it.
    #[must_use]
    pub fn with_log(mut self, log: File) -> Self {
        self.log_into = Some(log);
        self
    }

    /// Puts lbd in the place of its own program, as a package manager does: the one that runs stays as it is.
    ///
    /// # Errors
    /// Without a program of its own, or room.
    pub fn install(&self) -> Result<()> {
        self.install_by(|new| fs::copy(binary("lbd")?, new).map(drop).map_err(Into::into))
    }

    /// The same with a script, for tests of programs that cannot take over.
    ///
    /// # Errors
    /// As [`Self::install`].
    pub fn install_script(&self, text: &str) -> Result<()> {
        self.install_bytes(format!("#!/bin/sh\n{text}\n").as_bytes())
    }

    /// The same with a program of these bytes.
    ///
    /// # Errors
    /// As [`Self::install`].
    pub fn install_bytes(&self, program: &[u8]) -> Result<()> {
        self.install_by(|new| {
            fs::write(new, program)?;
            Ok(fs::set_permissions(new, fs::Permissions::from_mode(0o755))?)
        })
    }

    fn install_by(&self, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let program = self.own_program.as_ref().context("it runs the program of the build")?;
        let new = program.with_extension("new");
        make(&new)?;
        Ok(fs::rename(new, program)?)
    }

    /// The program of the build.
    ///
    /// # Errors
    /// When it was not built.
    pub fn built_program() -> Result<PathBuf> {
        binary("lbd")
    }

    /// Where the test may put files that the configuration names.
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// Uses the pins of another: for tests of what happens then.
    ///
    /// # Errors
    /// When the configuration cannot be rewritten.
    pub fn with_pins(mut self, pins: &Path) -> Result<Self> {
        let config = fs::read_to_string(self.config_file())?;
        self.pins = pins.to_owned();
        self.configure(&config)?;
        Ok(self)
    }

    /// Does not print lbd's log at the end (a test prints it, which the test runner shows when it failed).
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Logs this, in the words of `LB_LOG`.
    #[must_use]
    pub fn logging(mut self, filter: &str) -> Self {
        filter.clone_into(&mut self.log_filter);
        self
    }

    /// Where it pins maps and links.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Its configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("lb.toml")
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("lbd.log")).unwrap_or_default()
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("lbd does not run")?.id())
    }

    /// Writes the configuration that the next start reads.
    ///
    /// # Errors
    /// When it is not TOML, or cannot be written.
    pub fn configure(&self, config: &str) -> Result<()> {
        let mut table: Table = config.parse().context("the test's configuration is not TOML")?;
        table.entry("version").or_insert(Value::Integer(1));
        let path = |name: &str| Value::String(self.dir.path().join(name).display().to_string());
        let daemon = section(&mut table, "daemon")?;
        daemon.insert("socket".into(), path("admin.sock"));
        daemon.insert("state_dir".into(), path("state"));
        let dataplane = section(&mut table, "dataplane")?;
        dataplane.insert("pin_dir".into(), Value::String(self.pins.display().to_string()));
        dataplane.entry("max_flows").or_insert(Value::Integer(MAX_FLOWS));
        fs::write(self.config_file(), table.to_string())?;
        Ok(())
    }

    /// Starts the process and waits until it says it is ready; how long that took.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn launch(&mut self) -> Result<Duration> {
        ensure!(self.child.is_none(), "lbd runs already");
        let notify_path = self.dir.path().join("notify.sock");
        if notify_path.exists() {
            fs::remove_file(&notify_path)?;
        }
        let notify = UnixDatagram::bind(&notify_path)?;
        notify.set_nonblocking(true)?;
        let start = Instant::now();
        let mut child = self.host.start(self.command()?.env("NOTIFY_SOCKET", &notify_path))?;
        let (mut buffer, mut said) = ([0; 4096], Vec::new());
        let ready = until("lbd is ready (READY=1)", DEADLINE, || {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(Err(status)));
            }
            while let Ok(length) = notify.recv(&mut buffer) {
                said.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
                if said.last().is_some_and(|said| said.lines().any(|line| line == "READY=1")) {
                    return Ok(Some(Ok(start.elapsed())));
                }
            }
            Ok::<_, std::io::Error>(None)
        });
        (self.child, self.said) = (Some(child), said);
        // Its watchdog messages go on.
        self.notify = Some(notify);
        match ready {
            Ok((Ok(took), _)) => Ok(took),
            Ok((Err(status), _)) => {
                self.child = None;
                bail!("lbd ended with {status}:\n{}", self.log())
            }
            Err(error) => bail!("{error}:\n{}", self.log()),
        }
    }

    /// Starts the process, which must end by itself: its exit status and what it wrote.
    ///
    /// # Errors
    /// When it goes on.
    pub fn launch_to_fail(&mut self) -> Result<(ExitStatus, String)> {
        let mut child = self.host.start(&mut self.command()?)?;
        let ended = until("lbd ends", DEADLINE, || child.try_wait());
        if ended.is_err() {
            self.child = Some(child);
        }
        let (status, _) = ended.with_context(|| self.log())?;
        Ok((status, self.log()))
    }

    /// `lbd --withdraw`.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn withdraw(&self) -> Result<Output> {
        let mut command = self.command()?;
        command.arg("--withdraw").stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(self.host.start(&mut command)?.wait_with_output()?)
    }

    fn command(&self) -> Result<Command> {
        let log = match &self.log_into {
            Some(file) => file.try_clone()?,
            None => File::options().create(true).append(true).open(self.dir.path().join("lbd.log"))?,
        };
        let program = self.own_program.clone().map_or_else(|| binary("lbd"), Ok)?;
        let mut command = Command::new(program);
        command.arg("--config").arg(self.config_file()).env_remove("LB_CONFIG").env_remove("LB_SOCKET");
        command.env("LB_LOG", &self.log_filter).env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    /// Sends a signal to the process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid()?.cast_signed()), signal)?)
    }

    /// Ends the process and waits for its end.
    ///
    /// # Errors
    /// When it does not run, or ignores SIGTERM.
    pub fn stop(&mut self, how: Stop) -> Result<()> {
        let mut child = self.child.take().context("lbd does not run")?;
        let signal = if how == Stop::Kill { Signal::SIGKILL } else { Signal::SIGTERM };
        kill(Pid::from_raw(child.id().cast_signed()), signal)?;
        let ended = until("lbd ends", DEADLINE, || child.try_wait());
        if ended.is_err() {
            self.child = Some(child);
        }
        let (status, _) = ended.with_context(|| self.log())?;
        ensure!(how == Stop::Kill || status.success(), "lbd ended with {status}:\n{}", self.log());
        Ok(())
    }

    /// What it told the service manager until it was ready.
    pub fn said(&self) -> &[String] {
        &self.said
    }

    /// Where it sends what a service manager is told (sd_notify(3)), since it was started last.
    ///
    /// # Errors
    /// When it never was.
    pub fn notified(&self) -> Result<&UnixDatagram> {
        self.notify.as_ref().context("lbd was never started")
    }

    /// Ends it and starts it again with the same configuration; how long the start took.
    ///
    /// # Errors
    /// As [`Self::stop`] and [`Self::launch`].
    pub fn restart(&mut self, how: Stop) -> Result<Duration> {
        self.stop(how)?;
        self.launch()
    }

    /// Gives it another configuration by SIGHUP and waits until it is in force.
    ///
    /// # Errors
    /// When lbd refuses it: with the reason.
    pub fn reload(&self, config: &str) -> Result<()> {
        let (before, rejected) = (self.status()?.config_generation, self.rejections()?);
        self.configure(config)?;
        kill(Pid::from_raw(self.pid()?.cast_signed()), Signal::SIGHUP)?;
        let (refusal, _) = until("lbd reloads", DEADLINE, || {
            // Not by the error in the status: it may still be the one of a configuration before.
            let refused = self.rejections()? > rejected;
            let status = self.status()?;
            let taken = status.config_generation > before;
            Ok::<_, anyhow::Error>((taken || refused).then_some(status.config_error))
        })
        .with_context(|| self.log())?;
        match refusal {
            None => Ok(()),
            Some(error) => bail!("lbd refuses the configuration: {error}"),
        }
    }

    /// Configurations that it refused.
    fn rejections(&self) -> Result<usize> {
        Ok(self.ctl(&["events", "ls", "-o", "json"])?.matches("\"config_rejected\"").count())
    }

    /// Runs `lbctl` with these arguments, whatever becomes of it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn lbctl(&self, arguments: &[&str]) -> Result<Output> {
        self.lbctl_command(arguments)?.output().context("cannot start lbctl")
    }

    /// `lbctl` with these arguments, to be run.
    ///
    /// # Errors
    /// When it was not built.
    pub fn lbctl_command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary("lbctl")?);
        command.env("LB_SOCKET", self.dir.path().join("admin.sock")).env("NO_COLOR", "1").stdin(Stdio::null());
        command.args(arguments);
        Ok(command)
    }

    /// Runs `lbctl`; its standard output.
    ///
    /// # Errors
    /// When it fails: with what it said.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let output = self.lbctl(arguments)?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "lbctl {}: {}\n{stdout}{stderr}", arguments.join(" "), output.status);
        Ok(stdout)
    }

    /// Runs `lbctl … -o json`; what it printed.
    ///
    /// # Errors
    /// As [`Self::ctl`], or when that is not JSON.
    pub fn ctl_json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let text = self.ctl(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("lbctl {} printed: {text}", arguments.join(" ")))
    }

    /// `GET /metrics`.
    ///
    /// # Errors
    /// When lbd does not answer.
    pub fn metrics(&self) -> Result<String> {
        let mut stream = UnixStream::connect(self.dir.path().join("admin.sock"))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: lbd\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Waits until the next hops of a pool's nodes are resolved: until then their packets are dropped.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn wait_for_next_hops(&self, pool: &str) -> Result<()> {
        until(&format!("the next hops of pool {pool} are resolved"), DEADLINE, || {
            let pool = self.pool(pool)?;
            Ok::<_, anyhow::Error>(pool.nodes.iter().all(|node| node.mac.is_some()).then_some(()))
        })
        .map(drop)
    }
}

impl Drop for Lb<'_> {
    #[expect(clippy::print_stderr, reason = "the test runner shows it when the test failed")]
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // An error means that it has ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if !self.quiet {
            eprintln!("--- lbd's log\n{}---", self.log());
        }
        if self.pins.exists()
            && let Err(error) = fs::remove_dir_all(&self.pins)
        {
            eprintln!("{}: {error}", self.pins.display());
        }
    }
}

fn section<'t>(table: &'t mut Table, name: &str) -> Result<&'t mut Table> {
    let section = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
    section.as_table_mut().with_context(|| format!("[{name}] is not a table"))
}

/// A binary of this workspace, built with the same profile as the running program.
fn binary(name: &str) -> Result<PathBuf> {
    let running = std::env::current_exe()?;
    let found = running.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!("no {name} in {:?} or above: run `cargo xtask build` first", running.parent().unwrap_or(&running))
    })
}
