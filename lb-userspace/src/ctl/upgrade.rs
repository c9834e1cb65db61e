//! `lbctl upgrade`: lbd is replaced by the program that is installed, and the one that runs is kept for the way back; with
//! `--rollback` the programs of before are installed again, by exchanging the files.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::{args::Upgrade, client::Client, failure::Failure, output::Output, views};
use crate::{
    control::{api::Empty, view::Status},
    state_file,
};

/// How long the new program may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two questions whether it does.
const PAUSE: Duration = Duration::from_millis(100);

/// Mode of programs.
const PROGRAM: u32 = 0o755;

pub(super) fn run(client: &Client, output: &Output, upgrade: &Upgrade) -> Result<(), Failure> {
    if !client.is_local() {
        if upgrade.rollback {
            let where_it_works = "a rollback exchanges files of the machine that lbd runs on: run lbctl there";
            return Err(Failure::Usage(where_it_works.to_owned()));
        }
        return replace(client, output);
    }
    if upgrade.rollback {
        return roll_back(client, output, upgrade);
    }
    let running = client.get::<Status>("status")?.value.pid;
    if let Err(error) = keep(running, upgrade) {
        output.note(&format!("the program of before is not kept for a rollback: {error}"));
    }
    replace(client, output)
}

/// Keeps the lbd that runs, if another one is installed now.
fn keep(running: u32, Upgrade { program, previous, .. }: &Upgrade) -> Result<(), Failure> {
    let Ok(installed) = fs::read(program) else { return Ok(()) };
    let running = PathBuf::from(format!("/proc/{running}/exe"));
    let running = fs::read(&running).map_err(|source| Failure::File { path: running, source })?;
    if running == installed {
        return Ok(());
    }
    let kept = previous.join("lbd");
    fs::create_dir_all(previous)
        .and_then(|()| state_file::prepare_shared(&kept, &running, PROGRAM)?.commit())
        .map_err(|source| Failure::File { path: kept, source })
}

/// Installs the programs of before, and keeps those that were installed in their place. What lbd refuses is undone.
fn roll_back(client: &Client, output: &Output, Upgrade { program, previous, .. }: &Upgrade) -> Result<(), Failure> {
    let kept = previous.join("lbd");
    if !kept.exists() {
        return Err(Failure::NotUpgraded(format!("no program of before is kept in {}", previous.display())));
    }
    exchange(&kept, program)?;
    let replaced = replace(client, output);
    if replaced.is_err() {
        exchange(&kept, program)?;
        return replaced;
    }
    // The package keeps an lbctl as well; without it, this one speaks to either.
    let (own, other) = (std::env::current_exe()?, previous.join("lbctl"));
    if other.exists() {
        exchange(&other, &own)?;
    }
    Ok(())
}

/// Neither name is without a file for a moment.
fn exchange(one: &Path, other: &Path) -> Result<(), Failure> {
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)
        .map_err(|error| Failure::File { path: other.to_owned(), source: error.into() })
}

/// Asks for it, then waits until the new program answers, or the one before again.
fn replace(client: &Client, output: &Output) -> Result<(), Failure> {
    let before = client.get::<Status>("status")?.value;
    match client.post::<Empty>("upgrade", &Empty {}) {
        // It may have been replaced before its answer was out.
        Ok(_) | Err(Failure::BadAnswer { .. }) => {}
        Err(error) => return Err(error),
    }
    let until = Instant::now() + PATIENCE;
    loop {
        thread::sleep(PAUSE);
        match client.get::<Status>("status") {
            Ok(now) if now.value.upgrades > before.upgrades => {
                if output.is_json() {
                    return output.answer(&now, views::status);
                }
                let (old, new, pid) = (&before.version, &now.value.version, now.value.pid);
                output.note(&format!("lbd {new} has taken the place of {old}, process {pid}"));
                return Ok(());
            }
            Ok(now) if now.value.upgrade_error.is_some() => {
                return Err(Failure::NotUpgraded(now.value.upgrade_error.unwrap_or_default()));
            }
            // Between the two programs connections wait, or break.
            Ok(_) | Err(_) if Instant::now() < until => {}
            Ok(_) => return Err(Failure::NotUpgraded("lbd is still the program before; see its log".to_owned())),
            Err(error) => return Err(error),
        }
    }
}
