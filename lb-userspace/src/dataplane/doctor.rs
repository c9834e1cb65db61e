//! `lbctl doctor`: what around the XDP program keeps packets from flowing. Each check reads what it needs and judges it in
//! a pure function; nodes of DSR pools are asked with real packets. What could not be checked is a finding, too.
//!
//! Called by `inspect`. Must never change anything: not a setting, not a map, not an address.

mod dsr;
mod ethtool;
mod frames;
mod host;
mod interfaces;
pub mod knock;
mod nodes;
mod packet_socket;
mod peer;
mod pins;
mod probes;
mod surroundings;
mod tables;
mod vips;

use std::fmt::Display;

use self::surroundings::Surroundings;
use super::inspect::Context;
use crate::control::{
    query::QueryError,
    view::{Finding, Severity},
};

/// Runs all checks. Takes up to three seconds when there are nodes of DSR pools to ask.
///
/// # Errors
/// `Failed` when the kernel does not even tell of interfaces and routes.
pub fn doctor(context: &Context) -> Result<Vec<Finding>, QueryError> {
    let around = Surroundings::read(context.names.snapshot())?;
    let mut findings = pins::check(context, &around.names);
    findings.extend(interfaces::check(context, &around));
    findings.extend(nodes::check(&around));
    findings.extend(vips::check(&around));
    findings.extend(host::check(&around));
    findings.extend(tables::check(&context.collected.tables()));
    findings.extend(dsr::check(&around));
    Ok(findings)
}

/// As it should be.
fn fine(check: &str, subject: impl Display, found: impl Display) -> Finding {
    finding(check, subject, Severity::Ok, found, None)
}

/// Not as good as it could be.
fn warning(check: &str, subject: impl Display, found: impl Display, advice: impl Display) -> Finding {
    finding(check, subject, Severity::Warning, found, Some(advice.to_string()))
}

/// Packets are lost.
fn problem(check: &str, subject: impl Display, found: impl Display, advice: impl Display) -> Finding {
    finding(check, subject, Severity::Problem, found, Some(advice.to_string()))
}

/// Not known, and why.
fn unchecked(check: &str, subject: impl Display, why: impl Display, advice: impl Display) -> Finding {
    warning(check, subject, format!("could not be checked: {why}"), advice)
}

fn finding(
    check: &str,
    subject: impl Display,
    severity: Severity,
    found: impl Display,
    advice: Option<String>,
) -> Finding {
    Finding { check: check.to_owned(), subject: subject.to_string(), severity, finding: found.to_string(), advice }
}

#[cfg(test)]
mod tests;
