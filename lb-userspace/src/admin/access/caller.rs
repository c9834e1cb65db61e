//! Who sent a request, and how it came.

use std::{fmt, net::IpAddr};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use super::sessions::SessionId;
use crate::control::access::Role;

/// The group whose members may do everything by the unix socket.
pub(in crate::admin) const GROUP: &str = "lb";

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::admin) struct Caller {
    /// How it is known: a user's name.
    pub(in crate::admin) name: String,
    /// What it may do; `None`: nothing that needs a role.
    pub(in crate::admin) role: Option<Role>,
    /// How it came.
    pub(in crate::admin) via: Via,
}

/// How a request came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::admin) enum Via {
    /// By the unix socket, from this process.
    Socket { pid: Option<i32> },
    /// By HTTPS, with a session's cookie.
    Session { address: IpAddr, id: SessionId, csrf: String, idle_left_s: u64, left_s: u64 },
    /// By HTTPS, with a token.
    Token { address: IpAddr, id: String, paths: Vec<String> },
    /// By HTTPS, without a word of who it is.
    Nobody { address: IpAddr },
}

impl Caller {
    /// A process on the unix socket. Where the socket is for root and the group alone, whoever could connect may do
    /// everything; where all local users can, the others may look.
    pub(in crate::admin) fn local(uid: Option<u32>, gid: Option<u32>, pid: Option<i32>, open_to_all: bool) -> Self {
        let user = uid.and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten());
        let trusted = !open_to_all || uid.is_some_and(|uid| is_trusted(uid, gid, user.as_ref()));
        let name = user.map(|user| user.name).or_else(|| uid.map(|uid| format!("uid {uid}")));
        let role = if trusted { Role::Admin } else { Role::Viewer };
        Self { name: name.unwrap_or_else(|| "unknown".to_owned()), role: Some(role), via: Via::Socket { pid } }
    }

    pub(in crate::admin) fn nobody(address: IpAddr) -> Self {
        Self { name: "nobody".to_owned(), role: None, via: Via::Nobody { address } }
    }

    /// Whether secrets of the configuration are for it.
    pub(in crate::admin) fn sees_secrets(&self) -> bool {
        self.role == Some(Role::Admin)
    }

    /// Where it came from; `None`: the unix socket.
    pub(in crate::admin) fn address(&self) -> Option<IpAddr> {
        match &self.via {
            Via::Socket { .. } => None,
            Via::Session { address, .. } | Via::Token { address, .. } | Via::Nobody { address } => Some(*address),
        }
    }

    /// The same in words.
    pub(in crate::admin) fn place(&self) -> String {
        self.address().map_or_else(|| "socket".to_owned(), |address| address.to_string())
    }
}

/// Whether a local user is root, lbd's own or in the group.
fn is_trusted(uid: u32, gid: Option<u32>, user: Option<&User>) -> bool {
    if uid == 0 || uid == Uid::effective().as_raw() {
        return true;
    }
    let Some(group) = Group::from_name(GROUP).ok().flatten().map(|group| group.gid) else { return false };
    let listed = user.and_then(|user| {
        let name = std::ffi::CString::new(user.name.as_str()).ok()?;
        getgrouplist(&name, user.gid).ok()
    });
    gid.map(Gid::from_raw) == Some(group) || listed.is_some_and(|groups| groups.contains(&group))
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.via {
            Via::Socket { pid: Some(pid) } => write!(f, "{} (process {pid})", self.name),
            Via::Socket { pid: None } => f.write_str(&self.name),
            Via::Session { address, .. } | Via::Token { address, .. } | Via::Nobody { address } => {
                write!(f, "{} from {address}", self.name)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_socket_for_all_only_root_and_the_group_may_do_everything() {
        let role = |uid, all| Caller::local(Some(uid), Some(65_534), Some(1), all).role;
        assert_eq!(role(0, true), Some(Role::Admin));
        assert_eq!(role(Uid::effective().as_raw(), true), Some(Role::Admin));
        assert_eq!(role(65_534, true), Some(Role::Viewer));
        assert_eq!(role(65_534, false), Some(Role::Admin), "the socket's mode has let it in");
        assert_eq!(Caller::local(None, None, None, true).role, Some(Role::Viewer));
    }
}
