//! `lbctl user`, `token` and `audit`.

use std::{
    io::{self, BufRead, IsTerminal},
    path::Path,
};

use jiff::Timestamp;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::{
    args::{AuditVerbs, TokenVerbs, UserSetting, UserVerbs},
    client::{Client, encode, query_path},
    failure::Failure,
    output::{Cell, Look, Output, left, right, table},
};
use crate::control::{
    access::{AuditEntry, AuditPage, AuditVerification, MadeToken, NewToken, NewUser, TokenView, UserPatch, UserView},
    api::Empty,
};

/// Longest password that is read.
const MAX_PASSWORD: u64 = 1024;

pub(super) fn user(client: &Client, output: &Output, verb: UserVerbs) -> Result<(), Failure> {
    match verb {
        UserVerbs::Ls => {
            let answer = client.get::<Vec<UserView>>("users")?;
            output.answer(&answer, |users, look| user_table(users, look))?;
            if answer.value.is_empty() && !output.is_json() {
                output.note("there is no user\nnext: lbctl user add NAME --role admin");
            }
            Ok(())
        }
        UserVerbs::Add { name, role, password } => {
            let new = NewUser {
                name: name.clone(),
                role,
                password: read_secret(password.password_file.as_deref(), "password", true)?,
            };
            let answer = client.post::<UserView>("users", &new)?;
            told(output, &answer, &format!("user {name} may do what the role {role} may"))
        }
        UserVerbs::Set { name, settings } => {
            let mut patch = UserPatch::default();
            for setting in settings {
                match setting {
                    UserSetting::Role(role) => patch.role = Some(role),
                    UserSetting::Disabled(disabled) => patch.disabled = Some(disabled),
                }
            }
            let answer = client.patch::<UserView>(&format!("users/{}", encode(&name)), &patch)?;
            let can = if answer.value.disabled { "cannot log in" } else { "may log in" };
            told(output, &answer, &format!("user {name}: role {}, {can}; its sessions have ended", answer.value.role))
        }
        UserVerbs::Passwd { name, password } => {
            let patch = UserPatch {
                password: Some(read_secret(password.password_file.as_deref(), "password", true)?),
                ..UserPatch::default()
            };
            let answer = client.patch::<UserView>(&format!("users/{}", encode(&name)), &patch)?;
            told(output, &answer, &format!("user {name} has a new password; its sessions have ended"))
        }
        UserVerbs::Rm { name } => {
            client.delete::<Empty>(&format!("users/{}", encode(&name)))?;
            output.note(&format!("user {name} is gone, with its sessions and tokens"));
            Ok(())
        }
    }
}

pub(super) fn token(client: &Client, output: &Output, verb: TokenVerbs) -> Result<(), Failure> {
    match verb {
        TokenVerbs::Ls => {
            output.answer(&client.get::<Vec<TokenView>>("tokens")?, |tokens, look| token_table(tokens, look))
        }
        TokenVerbs::Create { name, role, paths, lifetime_s } => {
            let wanted = NewToken { name, role, paths, lifetime_s: Some(lifetime_s) };
            let answer = client.post::<MadeToken>("tokens", &wanted)?;
            output.answer(&answer, |made, _| made.secret.clone())?;
            output.note(&format!(
                "it is shown this once; it ends {}\nnext: lbctl --url https://… --token-file FILE status",
                moment(answer.value.token.expires_s)
            ));
            Ok(())
        }
        TokenVerbs::Revoke { id } => {
            client.delete::<Empty>(&format!("tokens/{}", encode(&id)))?;
            output.note(&format!("token {id} is worth nothing any more"));
            Ok(())
        }
    }
}

pub(super) fn audit(client: &Client, output: &Output, verb: &AuditVerbs) -> Result<(), Failure> {
    match verb {
        AuditVerbs::Ls { limit, before } => {
            let query = serde_json::json!({"limit": limit, "before": before});
            let answer = client.get::<AuditPage>(&query_path("audit", &query)?)?;
            output.answer(&answer, |page, look| audit_table(&page.entries, look))?;
            if let Some(before) = answer.value.next_before.filter(|_| !output.is_json()) {
                output.note(&format!("older ones: lbctl audit ls --before {before}"));
            }
            Ok(())
        }
        AuditVerbs::Verify => {
            let answer = client.get::<AuditVerification>("audit/verification")?;
            output.answer(&answer, |found, _| verification(found))?;
            match answer.value.problem {
                Some(problem) => Err(Failure::AuditBroken(problem)),
                None => Ok(()),
            }
        }
    }
}

fn told(output: &Output, answer: &super::client::Answer<UserView>, text: &str) -> Result<(), Failure> {
    if output.is_json() {
        return output.answer(answer, |user, look| user_table(std::slice::from_ref(user), look));
    }
    output.note(text);
    Ok(())
}

fn user_table(users: &[UserView], look: Look) -> String {
    let columns = vec![
        left("NAME", |user: &UserView| Cell::new(&user.name)),
        left("ROLE", |user: &UserView| Cell::new(user.role)),
        left("LOG IN", |user: &UserView| Cell::new(if user.disabled { "no" } else { "yes" })),
        right("SESSIONS", |user: &UserView| Cell::new(user.sessions)).spare(1),
        left("LAST LOGIN", |user: &UserView| Cell::optional(user.last_login_s.map(moment))),
        left("PASSWORD SET", |user: &UserView| Cell::optional(user.password_set_s.map(moment))).spare(2),
        left("CREATED", |user: &UserView| Cell::new(moment(user.created_s))).wide(),
    ];
    table(columns, users, look)
}

fn token_table(tokens: &[TokenView], look: Look) -> String {
    let columns = vec![
        left("ID", |token: &TokenView| Cell::new(&token.id)),
        left("NAME", |token: &TokenView| Cell::new(&token.name)),
        left("ROLE", |token: &TokenView| Cell::new(token.role)),
        left("PATHS", |token: &TokenView| {
            Cell::new(if token.paths.is_empty() { "all".to_owned() } else { token.paths.join(",") })
        })
        .wraps(),
        left("ENDS", |token: &TokenView| Cell::new(moment(token.expires_s))),
        left("LAST USED", |token: &TokenView| Cell::optional(token.last_used_s.map(moment))).spare(2),
        left("MADE BY", |token: &TokenView| Cell::new(&token.created_by)).spare(3),
        left("CREATED", |token: &TokenView| Cell::new(moment(token.created_s))).wide(),
    ];
    table(columns, tokens, look)
}

fn audit_table(entries: &[AuditEntry], look: Look) -> String {
    let json = |value: &Option<serde_json::Value>| value.as_ref().map(ToString::to_string);
    let columns = vec![
        right("NUMBER", |entry: &AuditEntry| Cell::new(entry.seq)),
        left("TIME", |entry: &AuditEntry| Cell::new(moment(entry.at_s))),
        left("WHO", |entry: &AuditEntry| Cell::new(&entry.who)),
        left("FROM", |entry: &AuditEntry| Cell::new(&entry.from)).spare(1),
        left("WHAT", |entry: &AuditEntry| Cell::new(&entry.what)).wraps(),
        right("STATUS", |entry: &AuditEntry| Cell::new(entry.status)),
        left("DETAIL", |entry: &AuditEntry| Cell::optional(entry.detail.as_ref())).wraps(),
        left("BEFORE", move |entry: &AuditEntry| Cell::optional(json(&entry.before))).wraps().wide(),
        left("AFTER", move |entry: &AuditEntry| Cell::optional(json(&entry.after))).wraps().wide(),
    ];
    table(columns, entries, look)
}

fn verification(found: &AuditVerification) -> String {
    let AuditVerification { intact, entries, first, last, head, .. } = found;
    let number = |number: &Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let word = if *intact { "intact" } else { "NOT as it was written" };
    format!("{word}: {entries} lines, {} to {}\nhead: {head}\n", number(first), number(last))
}

/// `2026-11-21 18:09:54`, UTC.
pub(super) fn moment(seconds: i64) -> String {
    Timestamp::from_second(seconds)
        .map_or_else(|_| seconds.to_string(), |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// A secret: of a file, of standard input, or typed, maybe twice, without being shown.
pub(super) fn read_secret(file: Option<&Path>, what: &str, twice: bool) -> Result<String, Failure> {
    let first_line = |reader: &mut dyn BufRead| {
        let mut line = String::new();
        io::Read::take(reader, MAX_PASSWORD)
            .read_line(&mut line)
            .map(|_| line.trim_end_matches(['\r', '\n']).to_owned())
    };
    match file {
        Some(path) if path == Path::new("-") => Ok(first_line(&mut io::stdin().lock())?),
        Some(path) => {
            let of_file = |source| Failure::File { path: path.to_owned(), source };
            let mut reader = io::BufReader::new(std::fs::File::open(path).map_err(of_file)?);
            first_line(&mut reader).map_err(of_file)
        }
        None if io::stdin().is_terminal() => {
            let first = typed(&format!("{what}: "))?;
            if !twice || typed("again: ")? == first {
                Ok(first)
            } else {
                Err(Failure::Usage("the two are not the same".to_owned()))
            }
        }
        None => Err(Failure::Usage(format!("say --{what}-file FILE, or - for standard input"))),
    }
}

/// A line that the terminal does not show.
#[expect(clippy::print_stderr, reason = "a question is for the terminal, beside what is printed")]
fn typed(question: &str) -> Result<String, Failure> {
    let terminal = io::stdin();
    eprint!("{question}");
    let before = tcgetattr(&terminal).map_err(io::Error::from)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&terminal, OptionalActions::Flush, &silent).map_err(io::Error::from)?;
    let mut line = String::new();
    let read = terminal.lock().read_line(&mut line);
    tcsetattr(&terminal, OptionalActions::Now, &before).map_err(io::Error::from)?;
    eprintln!();
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_audit_log_cannot_move_the_cursor() {
        let entry = AuditEntry { seq: 7, who: "x\u{1b}[2J".into(), what: "POST /a".into(), ..AuditEntry::default() };
        let text = audit_table(&[entry], Look::default());
        assert!(text.contains("POST /a") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn passwords_come_from_files_without_their_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "a good password\r\nsecond\n").unwrap();
        assert_eq!(read_secret(Some(&path), "password", true).unwrap(), "a good password");
        let none = dir.path().join("none");
        assert!(matches!(read_secret(Some(&none), "password", true), Err(Failure::File { .. })));
    }

    #[test]
    fn moments_are_dates() {
        assert_eq!(moment(0), "1970-01-01 00:00:00");
    }
}
