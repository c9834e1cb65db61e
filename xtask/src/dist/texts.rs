//! What the packages have beside programs and files of the checkout: manual pages, completions, the schema for editors.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::fresh;
use crate::run;

/// The shells, and the file each looks for.
const SHELLS: [(&str, &str); 3] = [("bash", "lbctl.bash"), ("zsh", "_lbctl"), ("fish", "lbctl.fish")];

/// Writes them into `man`, `completions` and `share` of a folder.
pub(super) fn write(folder: &Path) -> Result<()> {
    let [man, completions, share] = ["man", "completions", "share"].map(|name| folder.join(name));
    for folder in [&man, &completions, &share] {
        fresh(folder)?;
    }
    run::output(lbctl().arg("man").arg(&man))?;
    run::output(run::built("release", "lbd").arg("man").arg(&man))?;
    configuration(&man)?;
    for entry in fs::read_dir(&man)? {
        // No time stamp: the same source makes the same package.
        run::output(Command::new("gzip").arg("-9n").arg(entry?.path()))?;
    }
    for (shell, file) in SHELLS {
        save(completions.join(file), &run::output(lbctl().args(["completions", shell]))?)?;
    }
    save(share.join("lb.schema.json"), &run::output(run::built("release", "lbd").arg("schema"))?)
}

fn lbctl() -> Command {
    run::built("release", "lbctl")
}

/// `lb.toml(5)` from `docs/config.md`.
fn configuration(man: &Path) -> Result<()> {
    let text = fs::read_to_string(run::root().join("docs/config.md")).context("docs/config.md")?;
    let source = man.join("lb.toml.md");
    let body = text.split_once('\n').map_or("", |(_, body)| body);
    save(
        source.clone(),
        &format!("% LB.TOML 5\n# NAME\nlb.toml - configuration of lbd, the lb load balancer\n{body}"),
    )?;
    run::output(run::command("go-md2man").arg("-in").arg(&source).arg("-out").arg(man.join("lb.toml.5")))?;
    fs::remove_file(source).context("the source of lb.toml.5")
}

fn save(file: PathBuf, text: &str) -> Result<()> {
    fs::write(&file, text).with_context(|| file.display().to_string())
}
