//! Users and tokens on their way into a backup, and back.

use super::{Access, Caller, accounts::Accounts, lock, login::keeps_an_admin};
use crate::control::query::QueryError;

impl Access {
    /// Users and tokens as they are kept: hashes and digests.
    pub(in crate::admin) fn export(&self) -> Result<String, QueryError> {
        serde_json::to_string(&*lock(&self.accounts)).map_err(|error| QueryError::Failed(error.to_string()))
    }

    /// Whether these are others than those that are there.
    pub(in crate::admin) fn would_change(&self, exported: &str) -> Result<bool, QueryError> {
        Ok(read(exported)? != *lock(&self.accounts))
    }

    /// Whether [`Access::import`] would take these: they can be read, and leave somebody who may do everything.
    pub(in crate::admin) fn may_import(&self, caller: &Caller, exported: &str) -> Result<(), QueryError> {
        keeps_an_admin(caller, read(exported)?.has_admin())
    }

    /// Takes these in the place of those that are there: all sessions end.
    pub(in crate::admin) fn import(&self, caller: &Caller, exported: &str) -> Result<(), QueryError> {
        let imported = read(exported)?;
        self.change(|accounts| {
            keeps_an_admin(caller, imported.has_admin())?;
            *accounts = imported;
            Ok(())
        })?;
        lock(&self.sessions).clear();
        Ok(())
    }
}

fn read(exported: &str) -> Result<Accounts, QueryError> {
    serde_json::from_str(exported)
        .map_err(|_| QueryError::Invalid("the users of the archive cannot be read".to_owned()))
}
