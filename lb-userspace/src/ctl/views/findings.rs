//! `lbctl trace` and `lbctl doctor`: what was found and what to do.

use std::fmt::Write;

use super::{
    super::output::{Look, Tone, paint},
    severity_tone, word,
};
use crate::control::view::{Finding, Severity, TraceRequest, TraceView};

/// `lbctl trace`.
pub(in crate::ctl) fn trace(request: &TraceRequest, view: &TraceView, look: Look) -> String {
    let tone = match view.action.as_str() {
        "send" => Tone::Good,
        "pass" => Tone::Attention,
        _ => Tone::Bad,
    };
    let flow = format!("{} {} -> {}", word(&request.protocol), request.source, request.destination);
    let mut text = format!("{flow}\n{} ({}): {}\n\n", paint(&view.action, tone, look), view.reason, view.meaning);
    let forwarding = view.forwarding.map(|forwarding| word(&forwarding));
    let fields = [
        ("virtual server", view.virtual_server.as_ref()),
        ("pool", view.pool.as_ref()),
        ("node", view.node.as_ref()),
        ("forwarding", forwarding.as_ref()),
        ("next hop", view.next_hop.as_ref()),
    ];
    // Writing to a String cannot fail.
    for (name, value) in fields {
        let _ = writeln!(text, "{name:<14}  {}", value.map_or("-", String::as_str));
    }
    list(&mut text, "steps", &view.steps);
    list(&mut text, "rewrites", &view.rewrites);
    if let Some(advice) = &view.advice {
        let _ = writeln!(text, "\nnext: {advice}");
    }
    if view.action == "drop" {
        let _ = writeln!(text, "\nreal packets with this fate: lbctl capture --reason {}", view.reason);
    }
    text
}

fn list(text: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}:");
    for (number, line) in lines.iter().enumerate() {
        let _ = writeln!(text, "{:>3}. {line}", number + 1);
    }
}

/// `lbctl doctor`: the worst last, where the eye is; what is as it should be only when it is asked for.
pub(in crate::ctl) fn doctor(findings: &[Finding], look: Look) -> String {
    let mut shown: Vec<&Finding> =
        findings.iter().filter(|finding| look.wide || finding.severity != Severity::Ok).collect();
    shown.sort_by_key(|finding| finding.severity);
    let checks = shown.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let subjects = shown.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in &shown {
        let severity = paint(&format!("{:<7}", word(&finding.severity)), severity_tone(finding.severity), look);
        let Finding { check, subject, finding: found, .. } = finding;
        let _ = writeln!(text, "{severity}  {check:<checks$}  {subject:<subjects$}  {found}");
        if let Some(advice) = finding.advice.as_ref().filter(|_| finding.severity != Severity::Ok) {
            let _ = writeln!(text, "         next: {advice}");
        }
    }
    if !shown.is_empty() {
        text.push('\n');
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (ok, warnings, problems) = (count(Severity::Ok), count(Severity::Warning), count(Severity::Problem));
    let _ = writeln!(text, "{problems} problems, {warnings} warnings, {ok} as it should be");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity, check: &str) -> Finding {
        let (check, subject, finding) = (check.to_owned(), "eth0".to_owned(), format!("{check} found"));
        Finding { check, subject, severity, finding, advice: Some("do this".into()) }
    }

    #[test]
    fn the_worst_comes_last_with_its_advice() {
        let findings =
            [finding(Severity::Problem, "dsr_arp"), finding(Severity::Ok, "pins"), finding(Severity::Warning, "mtu")];
        let text = doctor(&findings, Look::default());
        let expected = "warning  mtu      eth0  mtu found\n         next: do this\n\
                        problem  dsr_arp  eth0  dsr_arp found\n         next: do this\n\n\
                        1 problems, 1 warnings, 1 as it should be\n";
        assert_eq!(text, expected);
        assert!(doctor(&findings, Look { wide: true, ..Look::default() }).contains("pins found"));
    }
}
