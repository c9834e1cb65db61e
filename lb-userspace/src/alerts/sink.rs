//! The ways in which notices are told, and one attempt at it. Called by `deliver`.

pub(super) mod email;
pub(super) mod program;
pub(super) mod snmp;
pub(super) mod syslog;
pub(super) mod webhook;

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use self::{
    program::Runs,
    snmp::{
        Sender,
        usm::{Engine, User},
    },
};
use super::{Failure, net, notice::Notice, settings::Told};
use crate::config::alert::{Action, Encryption, Snmp, SnmpSecurity};

/// An alert, made ready: TLS and keys are built once.
#[derive(Debug)]
pub(super) struct Sink {
    action: Action,
    timeout: Duration,
    tls: Option<TlsReady>,
    snmp: Option<Sender>,
    secret: Secret,
    outside: Outside,
}

/// What all alerts share.
#[derive(Clone, Debug)]
pub(super) struct Outside {
    pub(super) engine: Arc<Engine>,
    pub(super) runs: Option<Runs>,
}

/// TLS, or why there is none.
struct TlsReady(Result<TlsConnector, String>);

impl std::fmt::Debug for TlsReady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_ok() { "ready" } else { "missing" })
    }
}

/// A password or field; never shown.
struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Sink {
    pub(super) fn new(told: &Told, outside: Outside) -> Self {
        let action = told.alert.action.clone();
        let needs_tls = match &action {
            Action::Email(email) => email.encryption != Encryption::None,
            Action::Webhook(webhook) => webhook.is_tls,
            Action::Log | Action::Syslog(_) | Action::Snmp(_) | Action::Program { .. } => false,
        };
        let snmp = match &action {
            Action::Snmp(snmp) => Some(sender(snmp, told, &outside.engine)),
            Action::Log | Action::Email(_) | Action::Syslog(_) | Action::Webhook(_) | Action::Program { .. } => None,
        };
        let secret = match &action {
            Action::Email(email) => email.login.as_ref().map(|(_, file)| told.files.bytes(file)),
            Action::Webhook(webhook) => webhook.header.as_ref().map(|file| told.files.bytes(file)),
            Action::Log | Action::Syslog(_) | Action::Snmp(_) | Action::Program { .. } => None,
        };
        Self {
            secret: Secret(secret.unwrap_or_default().to_vec()),
            timeout: told.alert.timeout,
            tls: needs_tls.then(|| TlsReady(net::tls(&told.authorities()))),
            snmp,
            action,
            outside,
        }
    }

    /// Tries once, in its time.
    pub(super) async fn attempt(&self, notice: &Notice) -> Result<(), Failure> {
        let told = timeout(self.timeout, self.send(notice)).await;
        told.unwrap_or_else(|_| Err(Failure::again(format!("not done within {:?}", self.timeout))))
    }

    async fn send(&self, notice: &Notice) -> Result<(), Failure> {
        let tls = match &self.tls {
            None => None,
            Some(TlsReady(Ok(connector))) => Some(connector),
            Some(TlsReady(Err(why))) => return Err(Failure::never(why.clone())),
        };
        match &self.action {
            Action::Log => {
                let (event, severity, state) = (notice.name(), notice.severity().word(), notice.state());
                tracing::warn!(event, severity, state, object = notice.object(), "alert: {}", notice.line());
                Ok(())
            }
            Action::Email(email) => email::send(email, &self.secret.0, tls, notice).await,
            Action::Syslog(syslog) => syslog::send(syslog, notice).await,
            Action::Snmp(snmp) => match &self.snmp {
                Some(sender) => snmp::send(snmp, sender, &self.outside.engine, notice).await,
                None => Err(Failure::never("there is no SNMP user".to_owned())),
            },
            Action::Webhook(webhook) => webhook::send(webhook, &self.secret.0, tls, notice).await,
            Action::Program { name, arguments } => {
                program::send(self.outside.runs.as_ref(), name, arguments, self.timeout, notice).await
            }
        }
    }
}

fn sender(snmp: &Snmp, told: &Told, engine: &Engine) -> Sender {
    let bytes = |file| told.files.bytes(file).trim_ascii_end();
    match &snmp.security {
        SnmpSecurity::Community(file) => Sender::Community(bytes(file).to_vec()),
        SnmpSecurity::User { name, authentication, privacy } => {
            Sender::User(Box::new(User::new(name, bytes(authentication), bytes(privacy), engine)))
        }
    }
}
