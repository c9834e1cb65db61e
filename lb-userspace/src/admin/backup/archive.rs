//! The archive of a backup: one JSON document, whose content is encrypted and authenticated by a key from a passphrase
//! (argon2id, AES-256-GCM), its head included. Nothing of it is looked at before it has proved to be what was written, nothing
//! in it is compressed, and a file in it has a path that is checked where it is restored. Pure: random bytes come in.

use std::path::PathBuf;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

use crate::{
    control::revision::{Revision, Texts},
    state_file::{hex, unhex},
};

/// What the document says it is.
const FORMAT: &str = "lb-backup-1";

/// Least characters of a passphrase.
const MIN_PASSPHRASE: usize = 12;

/// Longest passphrase that is looked at.
const MAX_PASSPHRASE: usize = 1024;

const SALT: usize = 16;
const NONCE: usize = 12;

/// Memory in KiB, passes and lanes by which the key is derived: it may take a second, once.
const COST: (u32, u32, u32) = (64 * 1024, 3, 1);

/// Random bytes of an archive.
pub(super) type Random = [u8; SALT + NONCE];

/// Why an archive cannot be made or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ArchiveError {
    /// The passphrase is no good.
    #[error("the passphrase has less than {MIN_PASSPHRASE} characters, or more than {MAX_PASSPHRASE} bytes")]
    Passphrase,
    /// It is not an archive of ours.
    #[error("this is no backup of this version of lb")]
    Format,
    /// It was changed, or the passphrase is another.
    #[error("the passphrase is wrong, or the archive was changed or cut short")]
    Sealed,
}

/// An archive as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Archive {
    /// `lb-backup-1`.
    pub(super) format: String,
    /// Version of the lbd that made it.
    pub(super) lbd: String,
    /// Seconds since 1970 when it was made.
    pub(super) made_s: i64,
    /// Hexadecimal.
    pub(super) salt: String,
    /// Hexadecimal.
    pub(super) nonce: String,
    /// The content, hexadecimal.
    pub(super) sealed: String,
}

/// What is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Content {
    /// The configuration.
    pub(super) texts: Texts,
    /// The files that it names.
    pub(super) files: Vec<SavedFile>,
    /// Users and tokens, as they are kept.
    pub(super) users: String,
    /// Earlier revisions, the newest first.
    pub(super) history: Vec<(Revision, Texts)>,
}

/// A file that the configuration names.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedFile {
    pub(super) path: PathBuf,
    /// Hexadecimal.
    pub(super) content: String,
}

impl std::fmt::Debug for SavedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SavedFile({})", self.path.display())
    }
}

impl Archive {
    /// Encrypts content. Takes about a second.
    pub(super) fn seal(
        content: &Content,
        passphrase: &str,
        made_s: i64,
        random: &Random,
    ) -> Result<Self, ArchiveError> {
        if passphrase.chars().count() < MIN_PASSPHRASE {
            return Err(ArchiveError::Passphrase);
        }
        let (salt, nonce) = random.split_at(SALT);
        let lbd = env!("CARGO_PKG_VERSION").to_owned();
        let mut archive =
            Self { format: FORMAT.to_owned(), lbd, made_s, salt: hex(salt), nonce: hex(nonce), sealed: String::new() };
        let mut bytes = serde_json::to_vec(content).map_err(|_| ArchiveError::Format)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| ArchiveError::Format)?;
        let sealed = key(passphrase, salt)?.seal_in_place_append_tag(nonce, Aad::from(archive.head()), &mut bytes);
        sealed.map_err(|_| ArchiveError::Sealed)?;
        archive.sealed = hex(&bytes);
        Ok(archive)
    }

    /// Decrypts the content. Takes about a second.
    pub(super) fn open(&self, passphrase: &str) -> Result<Content, ArchiveError> {
        if self.format != FORMAT {
            return Err(ArchiveError::Format);
        }
        let read = |text: &str| unhex(text).ok_or(ArchiveError::Format);
        let (salt, nonce, mut bytes) = (read(&self.salt)?, read(&self.nonce)?, read(&self.sealed)?);
        if salt.len() != SALT {
            return Err(ArchiveError::Format);
        }
        let nonce = Nonce::try_assume_unique_for_key(&nonce).map_err(|_| ArchiveError::Format)?;
        let key = key(passphrase, &salt)?;
        let content = key.open_in_place(nonce, Aad::from(self.head()), &mut bytes).map_err(|_| ArchiveError::Sealed)?;
        serde_json::from_slice(content).map_err(|_| ArchiveError::Format)
    }

    /// What is not secret, and cannot be changed either.
    fn head(&self) -> Vec<u8> {
        format!("{}\n{}\n{}\n{}\n{}", self.format, self.lbd, self.made_s, self.salt, self.nonce).into_bytes()
    }
}

fn key(passphrase: &str, salt: &[u8]) -> Result<LessSafeKey, ArchiveError> {
    let (memory_kib, passes, lanes) = COST;
    if passphrase.len() > MAX_PASSPHRASE {
        return Err(ArchiveError::Passphrase);
    }
    let params = Params::new(memory_kib, passes, lanes, Some(32)).map_err(|_| ArchiveError::Format)?;
    let mut key = [0; 32];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into(passphrase.as_bytes(), salt, &mut key).map_err(|_| ArchiveError::Passphrase)?;
    UnboundKey::new(&AES_256_GCM, &key).map(LessSafeKey::new).map_err(|_| ArchiveError::Format)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSPHRASE: &str = "a long passphrase";

    fn content() -> Content {
        let texts = Texts { main: "version = 1 # CANARY-7f3a\n".into(), ..Texts::default() };
        let file = SavedFile { path: "/etc/lb/site.key".into(), content: hex(b"CANARY-7f3a") };
        Content { texts, files: vec![file], users: "{\"users\": \"CANARY-7f3a\"}".into(), history: Vec::new() }
    }

    fn sealed() -> Archive {
        Archive::seal(&content(), PASSPHRASE, 1000, &[7; SALT + NONCE]).unwrap()
    }

    #[test]
    fn what_was_sealed_is_opened_by_its_passphrase_alone() {
        let archive = sealed();
        assert_eq!(archive.open(PASSPHRASE).unwrap(), content());
        assert_eq!(archive.open("another passphrase"), Err(ArchiveError::Sealed));
        assert_eq!(Archive::seal(&content(), "short", 0, &[0; SALT + NONCE]), Err(ArchiveError::Passphrase));
        let text = serde_json::to_string(&archive).unwrap();
        for secret in ["CANARY-7f3a", &hex(b"CANARY-7f3a"), "site.key"] {
            assert!(!text.contains(secret), "{secret}");
        }
        assert!(!format!("{:?}", content().files).contains(&hex(b"CANARY")));
    }

    #[test]
    fn nothing_of_it_can_be_changed() {
        let good = sealed();
        let flip = |text: &str, at: usize| {
            let mut text = text.to_owned();
            let other = if text.as_bytes()[at] == b'0' { "1" } else { "0" };
            text.replace_range(at..=at, other);
            text
        };
        let mut bad = vec![
            Archive { lbd: "9.9.9".into(), ..good.clone() },
            Archive { made_s: 1001, ..good.clone() },
            Archive { salt: flip(&good.salt, 3), ..good.clone() },
            Archive { nonce: flip(&good.nonce, 3), ..good.clone() },
            Archive { sealed: String::new(), ..good.clone() },
            Archive { sealed: good.sealed[..good.sealed.len() - 2].to_owned(), ..good.clone() },
            Archive { sealed: good.sealed.clone() + "00", ..good.clone() },
            Archive { format: "lb-backup-2".into(), ..good.clone() },
            Archive { salt: "zz".into(), ..good.clone() },
            Archive { nonce: "00".into(), ..good.clone() },
        ];
        bad.extend(
            (0..good.sealed.len()).step_by(61).map(|at| Archive { sealed: flip(&good.sealed, at), ..good.clone() }),
        );
        for archive in bad {
            assert!(archive.open(PASSPHRASE).is_err(), "{archive:?}");
        }
    }
}
