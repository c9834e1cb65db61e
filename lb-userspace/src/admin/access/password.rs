//! Passwords: what is kept of them (argon2id, RFC 9106), and which ones are taken. Pure but for the memory that argon2
//! works in: salts come in as arguments.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use serde::{Deserialize, Serialize};

use crate::{
    config::api::PasswordPolicy,
    state_file::{hex, unhex},
};

/// Bytes of a salt.
pub(super) const SALT: usize = 16;

/// Bytes that are kept of a password.
const OUTPUT: usize = 32;

/// Longest password that is looked at: argon2 reads all of it.
const MAX_BYTES: usize = 256;

/// Memory in KiB, passes and lanes of new hashes: what OWASP asks for at the least, 19 MiB and two passes.
const COST: (u32, u32, u32) = (19 * 1024, 2, 1);

/// The most that is believed of a file.
const MAX_COST: (u32, u32, u32) = (1024 * 1024, 16, 8);

/// What is kept of a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::admin) struct Hashed {
    salt: String,
    hash: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl std::fmt::Debug for Hashed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hashed { .. }")
    }
}

impl Hashed {
    /// Takes tens of milliseconds.
    pub(super) fn of(password: &str, salt: [u8; SALT]) -> Self {
        let (memory_kib, passes, lanes) = COST;
        let hash = digest(password, &salt, COST).map_or_else(String::new, |hash| hex(&hash));
        Self { salt: hex(&salt), hash, memory_kib, passes, lanes }
    }

    /// Whether it is the password; takes as long whether it is or not.
    pub(super) fn is(&self, password: &str) -> bool {
        let Some((salt, hash)) = unhex(&self.salt).zip(unhex(&self.hash)) else { return false };
        let cost = (self.memory_kib, self.passes, self.lanes);
        hash.len() == OUTPUT
            && digest(password, &salt, cost).is_some_and(|given| verify_slices_are_equal(&given, &hash).is_ok())
    }
}

/// `None` when the cost makes no sense, or the password is too long to look at.
fn digest(password: &str, salt: &[u8], (memory_kib, passes, lanes): (u32, u32, u32)) -> Option<[u8; OUTPUT]> {
    let too_much = memory_kib > MAX_COST.0 || passes > MAX_COST.1 || lanes > MAX_COST.2 || password.len() > MAX_BYTES;
    let params = Params::new(memory_kib, passes, lanes, Some(OUTPUT)).ok().filter(|_| !too_much)?;
    let mut hash = [0; OUTPUT];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into(password.as_bytes(), salt, &mut hash).ok()?;
    Some(hash)
}

/// Why a password is not taken, apart from those that were used before.
pub(super) fn complaint(policy: &PasswordPolicy, user: &str, password: &str) -> Option<String> {
    let length = password.chars().count();
    if length < policy.min_length {
        return Some(format!("the password has less than {} characters", policy.min_length));
    }
    if password.len() > MAX_BYTES {
        return Some(format!("the password has more than {MAX_BYTES} bytes"));
    }
    if password.chars().any(char::is_control) {
        return Some("the password has control characters".to_owned());
    }
    let tests: [fn(char) -> bool; 4] =
        [|c| c.is_lowercase(), |c| c.is_uppercase(), |c| c.is_numeric(), |c| !c.is_alphanumeric()];
    let classes = tests.iter().filter(|test| password.chars().any(test)).count();
    if classes < policy.classes {
        let wanted = policy.classes;
        return Some(format!(
            "the password has characters of {classes} kinds; {wanted} of small letters, capitals, digits, others are wanted"
        ));
    }
    let same = password.chars().next().is_some_and(|first| password.chars().all(|c| c == first));
    if same || password.to_lowercase().contains(&user.to_lowercase()) {
        return Some("the password is too easy to guess: it repeats one character, or has the user's name".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_again_and_no_other() {
        let hashed = Hashed::of("correct horse battery", [7; SALT]);
        assert!(hashed.is("correct horse battery"));
        for wrong in ["", "correct horse batterz", "correct horse battery ", &"x".repeat(1 << 20)] {
            assert!(!hashed.is(wrong));
        }
        let text = serde_json::to_string(&hashed).unwrap();
        assert!(!text.contains("horse") && !format!("{hashed:?}").contains(&hashed.hash));
        assert_ne!(hashed, Hashed::of("correct horse battery", [8; SALT]), "the salt counts");
    }

    #[test]
    fn it_is_argon2id_as_others_compute_it() {
        // `echo -n password | argon2 somesaltsomesalt -id -t 2 -k 19456 -p 1 -l 32 -r` (Debian's argon2).
        let hash = digest("password", b"somesaltsomesalt", COST).unwrap();
        assert_eq!(hex(&hash), "2b5dc4054886ec957ef59c73b661c54dd6fb274590b278f657c6d96aac8fa6d1");
    }

    #[test]
    fn a_broken_record_is_nobodys_password() {
        let good = Hashed::of("correct horse battery", [7; SALT]);
        let broken = [
            Hashed { hash: String::new(), ..good.clone() },
            Hashed { hash: "zz".into(), ..good.clone() },
            Hashed { salt: String::new(), ..good.clone() },
            Hashed { memory_kib: u32::MAX, ..good.clone() },
            Hashed { passes: 0, ..good.clone() },
        ];
        for hashed in broken {
            assert!(!hashed.is("correct horse battery") && !hashed.is(""));
        }
    }

    #[test]
    fn passwords_are_taken_by_the_policy() {
        let policy = PasswordPolicy { min_length: 8, classes: 3, ..PasswordPolicy::default() };
        let rows = [
            ("Ab3defgh", None),
            ("Äb3défgh", None),
            ("Ab3defg", Some("less than 8")),
            ("abcdefgh1", Some("2 kinds")),
            ("Xx9-carol-", Some("guess")),
            ("Ab3defgh\n", Some("control")),
        ];
        for (password, expected) in rows {
            let found = complaint(&policy, "Carol", password);
            match expected {
                None => assert_eq!(found, None, "{password}"),
                Some(part) => assert!(found.as_ref().is_some_and(|text| text.contains(part)), "{password}: {found:?}"),
            }
        }
        assert!(complaint(&PasswordPolicy::default(), "x", &"a".repeat(20)).is_some());
        assert!(complaint(&PasswordPolicy::default(), "x", &"ab".repeat(500)).is_some());
    }
}
