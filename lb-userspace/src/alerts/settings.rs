//! The alerts of a configuration with all that they need of it, so that each can be compared with what it was before. Pure.

use std::sync::Arc;

use super::select::Selection;
use crate::config::{
    Config,
    alert::{Action, Alert, Server, SyslogTo},
    files::Files,
};

/// An alert.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) name: String,
    pub(super) alert: Alert,
    pub(super) selection: Selection,
    pub(super) files: Arc<Files>,
}

/// All of a configuration, by name.
pub(super) fn of(config: &Config) -> Vec<Told> {
    let files = Arc::new(config.proxy.files.clone());
    let told = |(name, alert): (&String, &Alert)| Told {
        name: name.clone(),
        alert: alert.clone(),
        selection: Selection::new(alert, &config.alerts),
        files: Arc::clone(&files),
    };
    config.alerts.alerts.iter().map(told).collect()
}

impl Told {
    /// Whether it is told as before: in the same way, with the same secrets. What is told may differ.
    pub(super) fn is_told_as(&self, before: &Self) -> bool {
        let contents = |told: &Self| -> Vec<Vec<u8>> {
            let one = crate::config::alert::Alerts {
                alerts: [(told.name.clone(), told.alert.clone())].into(),
                ..Default::default()
            };
            one.files().into_iter().map(|(file, _)| told.files.bytes(file).to_vec()).collect()
        };
        self.alert == before.alert && contents(self) == contents(before) && self.authorities() == before.authorities()
    }

    /// PEM: who may have signed the certificate of whom is told.
    pub(super) fn authorities(&self) -> String {
        let trust = match &self.alert.action {
            Action::Email(email) => &email.trust,
            Action::Webhook(webhook) => &webhook.trust,
            Action::Log | Action::Syslog(_) | Action::Snmp(_) | Action::Program { .. } => return String::new(),
        };
        trust.ca.as_ref().map_or_else(|| self.files.system_store.clone(), |ca| self.files.text(ca))
    }

    /// How it is told, in a word.
    pub(super) fn kind(&self) -> &'static str {
        match &self.alert.action {
            Action::Log => "log",
            Action::Email(_) => "email",
            Action::Syslog(_) => "syslog",
            Action::Snmp(_) => "snmp",
            Action::Webhook(_) => "webhook",
            Action::Program { .. } => "program",
        }
    }

    /// Whom it tells, without secrets.
    pub(super) fn target(&self) -> String {
        let place = |server: &Server| format!("{}:{}", super::net::name(&server.host), server.port);
        match &self.alert.action {
            Action::Log => "lbd's log".to_owned(),
            Action::Email(email) => format!("{} by {}", email.to.join(", "), place(&email.server)),
            Action::Syslog(syslog) => match &syslog.to {
                SyslogTo::Udp(server) => format!("udp {}", place(server)),
                SyslogTo::Tcp(server) => format!("tcp {}", place(server)),
                SyslogTo::Unix(path) => path.display().to_string(),
            },
            Action::Snmp(snmp) => place(&snmp.server),
            // The path of a webhook is often a secret.
            Action::Webhook(webhook) => {
                format!("{}://{}", if webhook.is_tls { "https" } else { "http" }, place(&webhook.server))
            }
            Action::Program { name, .. } => name.clone(),
        }
    }
}
