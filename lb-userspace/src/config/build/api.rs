//! The admin API over the network: from what is written to its meaning.

use super::Building;
use crate::config::{
    api::{Api, Audit, DEFAULT_PORT, PasswordPolicy},
    document::api::LocalUsers,
};

pub(super) fn api(building: &Building<'_>) -> Api {
    let raw = &building.document.api;
    let number = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let files = raw.chain.as_ref().zip(raw.key.as_ref());
    Api {
        listen: raw.listen.as_ref().map(|at| at.value.with_default(DEFAULT_PORT)),
        certificate: files.map(|(chain, key)| (building.file(chain), building.file(key))),
        allow: raw.allow.iter().map(|at| at.value.0).collect(),
        local_viewers: raw.local_users.value == LocalUsers::Viewer,
        session_idle: raw.session_idle.value.0,
        session_longest: raw.session_longest.value.0,
        password: PasswordPolicy {
            min_length: number(raw.password.min_length.value),
            classes: number(raw.password.classes.value),
            reuse: number(raw.password.reuse.value),
            changes_per_day: number(raw.password.changes_per_day.value),
        },
        audit: Audit { file_size: raw.audit.file_size.value.0, files: number(raw.audit.files.value) },
    }
}
