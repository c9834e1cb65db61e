//! `lbctl backup` and `restore`.

use std::{fs, io, path::Path};

use serde_json::Value;

use super::{
    args::{Backup, Restore},
    client::Client,
    failure::Failure,
    output::{Look, Output},
    users::{moment, read_secret},
    views,
};
use crate::{
    control::backup::{BackupRequest, RestoreRequest, Restored},
    state_file,
};

pub(super) fn backup(client: &Client, output: &Output, arguments: &Backup) -> Result<(), Failure> {
    let Backup { file, passphrase_file, replace } = arguments;
    if file.exists() && !replace {
        return Err(Failure::Usage(format!("{} is there; --replace replaces it", file.display())));
    }
    let passphrase = read_secret(passphrase_file.as_deref(), "passphrase", true)?;
    let answer = client.post::<Value>("backup", &BackupRequest { passphrase })?;
    state_file::replace(file, answer.json.as_bytes()).map_err(|source| Failure::File { path: file.clone(), source })?;
    output.note(&format!(
        "{} can be read by nobody without the passphrase: keep that elsewhere\nnext: lbctl restore {} --compare",
        file.display(),
        file.display()
    ));
    Ok(())
}

pub(super) fn restore(client: &Client, output: &Output, arguments: &Restore) -> Result<(), Failure> {
    let archive = read(&arguments.file)?;
    let passphrase = read_secret(arguments.passphrase_file.as_deref(), "passphrase", false)?;
    let Restore { compare, keep_users, force, .. } = *arguments;
    let request = RestoreRequest { archive, passphrase, compare, keep_users, force };
    let answer = client.post::<Restored>("restore", &request)?;
    output.answer(&answer, |restored, look| shown(restored, compare, look))
}

fn read(path: &Path) -> Result<Value, Failure> {
    let of_file = |source| Failure::File { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(of_file)?;
    serde_json::from_str(&text).map_err(|_| of_file(io::Error::other("this is no backup of lb")))
}

fn shown(restored: &Restored, compare: bool, look: Look) -> String {
    let Restored { lbd, made_s, applied, files, left, users_changed, problems, .. } = restored;
    let mut text = format!("made by lbd {lbd} on {} UTC\n", moment(*made_s));
    let mut line = |head: &str, what: &str| text += &format!("{head}: {what}\n");
    match applied {
        Some(applied) if !applied.changed => line("configuration", "the same"),
        Some(applied) => {
            let number = applied.revision.filter(|_| !compare).map_or_else(String::new, |n| format!("revision {n}\n"));
            line("configuration", &format!("{number}{}", views::changes(&applied.difference, look)));
        }
        None => line("configuration", "not valid here, as it is now"),
    }
    let verb = if compare { "would be written" } else { "written" };
    for file in files {
        line(verb, file);
    }
    for file in left {
        line("left", file);
    }
    line("users and tokens", if *users_changed { "others" } else { "stay" });
    for problem in problems {
        line("problem", problem);
    }
    text
}
