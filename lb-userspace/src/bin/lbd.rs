//! `lbd`: parses its arguments and hands over to `lb::daemon`.

use std::{
    env, fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory, Parser, Subcommand};
use lb::{
    config::{Config, reference},
    daemon::{self, StartError, handover::Handover},
    failover::guard,
    health::runner,
    proxy::{process, spawner},
    telemetry::{self, LogFormat},
};

/// Smaller and faster than the C library's for many short-lived allocations. It works within the worker's seccomp filter: a
/// call that is not allowed there fails, and none that it needs is.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The lb load balancer.
#[derive(Debug, Parser)]
#[command(
    name = "lbd",
    version,
    before_help = "Examples:
  lbd                                run with /etc/lb/lb.toml
  lbd --check --config new.toml      are there mistakes in it?
  lbd --withdraw                     stop forwarding, after lbd itself was stopped
  LB_LOG=debug lbd --log-format json
",
    after_help = "Signals: TERM or INT stop it as daemon.on_stop says (a second one at once), HUP reads the configuration again,
USR2 replaces lbd by the program that is installed now.
Exit codes: 0 stopped as asked, 1 failed, 2 wrong usage, 3 configuration invalid.
Operate it with lbctl.",
    help_template = "{about-with-newline}\n{before-help}{usage-heading} {usage}\n\n{all-args}{after-help}"
)]
struct Arguments {
    /// The configuration
    #[arg(long, env = "LB_CONFIG", default_value = "/etc/lb/lb.toml", value_name = "PATH")]
    config: PathBuf,
    /// Check the configuration, print every mistake, change nothing
    #[arg(long)]
    check: bool,
    /// Take away what a stopped lbd left: VIPs, programs, pins and with them all connections; then end
    #[arg(long, conflicts_with = "check")]
    withdraw: bool,
    /// How to log, to standard error; LB_LOG filters (debug, lb::health=trace, …)
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
    /// What the program before left in this process
    #[arg(long, hide = true, value_name = "DESCRIPTOR")]
    handover: Option<i32>,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What lbd starts of itself; not for people.
#[derive(Debug, Subcommand)]
enum Part {
    /// The L7 proxy's worker
    #[command(hide = true)]
    Worker {
        #[arg(long, value_enum, default_value_t)]
        log_format: LogFormat,
    },
    /// What starts workers
    #[command(hide = true)]
    Spawner { children: Vec<u32> },
    /// What a worker could do if it were taken over: tries it, as the user that it is run as
    #[command(hide = true)]
    Confined,
    /// Whether lbd would start: asked before it replaces the one that runs
    #[command(hide = true)]
    Rehearse {
        #[arg(long)]
        config: PathBuf,
    },
    /// What runs monitors' programs
    #[command(hide = true)]
    MonitorRunner { directory: PathBuf },
    /// What gives VIP groups away when lbd cannot
    #[command(hide = true)]
    Guard,
    /// The manual page lbd.8, into a directory: for packages
    #[command(hide = true)]
    Man { directory: PathBuf },
    /// The JSON schema of the configuration: for packages, and editors
    #[command(hide = true)]
    Schema,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.part {
        Some(Part::Worker { log_format }) => return worker(log_format),
        Some(Part::Spawner { children }) => return outcome(&spawner::run(&children)),
        Some(Part::Confined) => return outcome(&process::tryout::run()),
        Some(Part::Rehearse { config }) => return rehearse(&config),
        Some(Part::MonitorRunner { directory }) => return outcome(&runner::run(&directory)),
        Some(Part::Guard) => return outcome(&guard::run()),
        Some(Part::Man { directory }) => return outcome(&man(&directory)),
        Some(Part::Schema) => return outcome(&writeln!(io::stdout(), "{:#}", reference::json_schema())),
        None => {}
    }
    if arguments.check {
        return check(&arguments.config);
    }
    if let Err(error) = telemetry::start(arguments.log_format) {
        tell(&format!("lbd: {error}"));
        return ExitCode::from(2);
    }
    if arguments.withdraw {
        return withdraw(&arguments.config);
    }
    let mut handover = match arguments.handover.map(Handover::take).transpose() {
        Ok(handover) => handover,
        Err(error) => {
            tell(&format!("lbd: {error}"));
            return ExitCode::FAILURE;
        }
    };
    if let Some(handover) = handover.as_mut().filter(|handover| handover.has_way_back())
        && let Err(error) = handover.watch()
    {
        tracing::warn!(%error, "nobody goes back to the program before should this one hang at its start");
    }
    let ran = daemon::run(&arguments.config, arguments.log_format, &mut handover);
    telemetry::flush();
    match ran {
        Ok(code) => code,
        Err(error) => {
            if let Some(handover) = handover.filter(Handover::has_way_back) {
                let failed = handover.go_back(&error.to_string());
                tell(&format!("lbd: the program before cannot be run again: {failed}"));
            }
            if let StartError::Config(errors) = &error {
                tell(errors.report(in_colour()).trim_end());
                tell("lbd did not start; lbd --check tells whether a configuration is valid");
            } else {
                tell(&format!("lbd did not start: {error}"));
            }
            error.exit_code()
        }
    }
}

fn worker(log_format: LogFormat) -> ExitCode {
    if let Err(error) = telemetry::start(log_format) {
        tell(&format!("lbd worker: {error}"));
        return ExitCode::from(2);
    }
    let ran = process::run();
    telemetry::flush();
    outcome(&ran)
}

fn rehearse(config: &Path) -> ExitCode {
    match daemon::rehearse(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mistakes = if let StartError::Config(errors) = &error { Some(errors.report(false)) } else { None };
            tell(&mistakes.map_or_else(|| error.to_string(), |report| report.trim_end().to_owned()));
            error.exit_code()
        }
    }
}

fn outcome<E: std::fmt::Display>(result: &Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("lbd: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn check(path: &Path) -> ExitCode {
    match Config::load(path).and_then(Config::read_files) {
        Ok(config) => {
            for warning in config.warnings() {
                tell(&format!("warning: {warning}"));
            }
            // Who closed standard output reads the exit code.
            let _ = writeln!(io::stdout(), "{}: configuration ok", path.display());
            ExitCode::SUCCESS
        }
        Err(errors) => {
            tell(errors.report(in_colour()).trim_end());
            ExitCode::from(3)
        }
    }
}

fn withdraw(config: &Path) -> ExitCode {
    match daemon::withdraw(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let StartError::Config(errors) = &error {
                tell(errors.report(in_colour()).trim_end());
                tell("where the pins and the record of VIPs are, the configuration says: nothing was taken away");
            } else {
                tell(&format!("lbd: {error}"));
            }
            error.exit_code()
        }
    }
}

/// Commands that administrators alone start are in section 8.
fn man(directory: &Path) -> io::Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Arguments::command()).section("8").render(&mut page)?;
    fs::write(directory.join("lbd.8"), page)
}

fn in_colour() -> bool {
    io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn tell(text: &str) {
    // There is nowhere else to say it.
    let _ = writeln!(io::stderr(), "{text}");
}
