//! Backup and restore: the configuration with its files and history, users and tokens in one encrypted archive; back as a new
//! revision, or not at all.

mod archive;
mod files;

use std::path::PathBuf;

use axum::{Extension, extract::State};
use serde_json::json;

use self::archive::{Archive, ArchiveError, Content, Random, SavedFile};
use super::{
    Backend,
    access::{Caller, Note, random, unix_s},
    answer::{Answer, Written, blocking},
    body::Body,
    lockout,
    problem::Refusal,
    routes::SLOW,
    table::Route,
};
use crate::{
    config::Config,
    control::{
        access::Role::Admin,
        backup::{BackupRequest, RestoreRequest, Restored},
        query::QueryError,
        revision::{Content as Proposed, How, Proposal, Whole},
    },
    state_file::hex,
};

/// Earlier revisions in an archive.
const HISTORY: usize = 50;

/// Largest archive: that of a configuration as large as may be.
const MAX_ARCHIVE: usize = 128 << 20;

pub(super) fn rows() -> Vec<Route> {
    vec![
        Route::post("/api/v1/backup", Admin, "Everything that is needed to restore this machine, encrypted", backup)
            .within(SLOW)
            .takes::<BackupRequest>()
            .answers::<Archive>(),
        Route::post("/api/v1/restore", Admin, "Restore a backup as a new revision, or say what would change", restore)
            .within(SLOW)
            .takes_up_to(MAX_ARCHIVE)
            .takes::<RestoreRequest>()
            .answers::<Restored>(),
    ]
}

async fn backup(
    State(backend): State<Backend>,
    Extension(note): Extension<Note>,
    Body(request): Body<BackupRequest>,
) -> Answer<Archive> {
    let _place = backend.access.may_hash().await;
    let worker = backend.clone();
    let (archive, revision) = blocking(move || make(&worker, &request)).await?.map_err(Refusal::of_order)?;
    note.change(json!(null), json!({"revision": revision}));
    Written::of(&archive)
}

fn make(backend: &Backend, request: &BackupRequest) -> Result<(Archive, Option<u64>), QueryError> {
    let document = backend.configuration.revision(None)?;
    let config = Config::of(&config_file(backend)?, &document.texts).and_then(Config::read_files);
    let config = config.map_err(|errors| QueryError::Failed(errors.to_string()))?;
    let read = |(path, content): (&std::path::Path, &[u8])| SavedFile { path: path.to_owned(), content: hex(content) };
    let number = document.revision.as_ref().map(|revision| revision.number);
    let older = backend.configuration.revisions()?.revisions.into_iter().filter(|r| Some(r.number) != number);
    // One that is damaged is left out: it could not be restored either.
    let history = older.take(HISTORY).filter_map(|revision| {
        let document = backend.configuration.revision(Some(revision.number)).ok()?;
        Some((revision, document.texts))
    });
    let content = Content {
        texts: document.texts.clone(),
        files: config.proxy.files.all().map(read).collect(),
        users: backend.access.export()?,
        history: history.collect(),
    };
    let random: Random = random();
    let archive = Archive::seal(&content, &request.passphrase, unix_s(), &random).map_err(of_archive)?;
    Ok((archive, number))
}

async fn restore(
    State(backend): State<Backend>,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    Body(request): Body<RestoreRequest>,
) -> Answer<Restored> {
    let _place = backend.access.may_hash().await;
    let worker = backend.clone();
    let restored = blocking(move || bring_back(&worker, &caller, &request)).await?.map_err(Refusal::of_order)?;
    let revision = restored.applied.as_ref().and_then(|applied| applied.revision);
    note.change(json!(null), json!({"revision": revision, "files": restored.files, "users": restored.users_changed}));
    Written::of(&restored)
}

fn bring_back(backend: &Backend, caller: &Caller, request: &RestoreRequest) -> Result<Restored, QueryError> {
    let archive: Archive =
        serde_json::from_value(request.archive.clone()).map_err(|_| of_archive(ArchiveError::Format))?;
    let content = archive.open(&request.passphrase).map_err(of_archive)?;
    let file = config_file(backend)?;
    let config = Config::of(&file, &content.texts).map_err(|errors| QueryError::Invalid(errors.to_string()))?;
    let directory = file.parent().unwrap_or(&file).to_owned();
    let plan = files::plan(&content.files, &config, &directory).map_err(QueryError::Invalid)?;
    let users = (!request.keep_users).then_some(content.users.as_str());
    let users_changed = users.map_or(Ok(false), |users| backend.access.would_change(users))?;
    if !request.force {
        lockout::refuse(caller, &config)?;
    }
    let changed = plan.wanted.iter().filter(|file| !file.is_there());
    let mut restored = Restored {
        lbd: archive.lbd.clone(),
        made_s: archive.made_s,
        files: changed.map(|file| file.path.display().to_string()).collect(),
        left: plan.left.clone(),
        users_changed,
        revisions: content.history.len() + 1,
        ..Restored::default()
    };
    let proposal = |dry_run| {
        let whole = Whole { main: content.texts.main.clone(), fragments: Some(content.texts.fragments.clone()) };
        let comment = Some(format!("restored from the backup of {}", archive.made_s));
        Proposal::new(Proposed::Whole(whole), None, How { comment, confirm_s: None, force: request.force, dry_run })
    };
    if request.compare {
        match backend.configuration.apply(proposal(true), &caller.name) {
            Ok(applied) => restored.applied = Some(applied),
            // Files that it names may come with it.
            Err(error) => restored.problems.push(error.to_string()),
        }
        return Ok(restored);
    }
    // Whatever would refuse the users refuses all, before anything is changed.
    users.map_or(Ok(()), |users| backend.access.may_import(caller, users))?;
    files::write(&plan.wanted).map_err(QueryError::Failed)?;
    let applied =
        backend.configuration.apply(proposal(false), &caller.name).inspect_err(|_| files::undo(&plan.wanted))?;
    restored.applied = Some(applied);
    if let Some(users) = users {
        backend.access.import(caller, users)?;
    }
    Ok(restored)
}

fn of_archive(error: ArchiveError) -> QueryError {
    QueryError::Invalid(error.to_string())
}

fn config_file(backend: &Backend) -> Result<PathBuf, QueryError> {
    Ok(PathBuf::from(backend.control.status()?.config_file))
}
