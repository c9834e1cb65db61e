//! Rules about one file: its header, its size, words and attributes that must not be in it.

use super::Finding;

/// Lines that a source file may not exceed.
const MAX_LINES: usize = 500;
/// The one place where tests may sleep: everything else waits on conditions through it.
const SLEEPER: &str = "tests/src/harness/wait.rs";
/// Where `unsafe` may be: what talks to the kernel in ways that the type system does not know.
const UNSAFE: [&str; 11] = [
    "lb-common/src/maps.rs",                      // `aya::Pod` for the map types
    "lb-ebpf/",                                   // packet and map pointers
    "lb-userspace/src/daemon/handover.rs",        // descriptors that an execve leaves
    "lb-userspace/src/dataplane",                 // mmap of maps, bpf(2)
    "lb-userspace/src/failover/bgp/socket.rs",    // TCP_MD5SIG, TTL security
    "lb-userspace/src/failover/host.rs",          // real-time priority
    "lb-userspace/src/failover/packet_socket.rs", // raw socket
    "lb-userspace/src/failover/share/link.rs",    // priority of a thread
    "lb-userspace/src/proxy/channel.rs",          // descriptors that come over a socket
    "lb-userspace/src/proxy/process/tryout.rs",   // tries what a worker is refused
    "tests/",                                     // bpf(2), namespaces
];
/// Words that say something is not done. Put together here so that this file passes its own rule.
const UNFINISHED: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
];

/// Rules about any text file.
pub(super) fn text(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (i, line) in text.split('\n').enumerate() {
        if line.ends_with([' ', '\t', '\r']) {
            findings.push(Finding::new(path, i + 1, "white space at the end of the line"));
        }
        if let Some(word) = UNFINISHED.iter().find(|word| line.contains(**word)) {
            findings.push(Finding::new(
                path,
                i + 1,
                format!("{word}: finish it, or leave it out and say so in the docs"),
            ));
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        findings.push(Finding::new(path, text.lines().count(), "no newline at the end of the file"));
    }
    findings
}

/// Rules about a Rust file; `code` is its text without comments and literals.
pub(super) fn rust(path: &str, text: &str, code: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    // `tests.rs` are the tests of the module beside it, whose header stands for both.
    if !text.starts_with("//!") && !path.ends_with("/tests.rs") {
        findings.push(Finding::new(path, 1, "no //! header: what the module owns, must never do, and who calls it"));
    }
    if path.ends_with("/mod.rs") {
        findings.push(Finding::new(path, 0, "mod.rs: name it after the folder, beside it"));
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        findings.push(Finding::new(path, lines, format!("{lines} lines: split it at {MAX_LINES}")));
    }
    findings.extend(unexplained_attributes(path, code));
    for (i, line) in text.lines().enumerate() {
        let ignored = line.trim_start().starts_with("#[ignore");
        if ignored && !line.contains("needs root") {
            let what = "an ignored test: only for what needs root (say so); `cargo xtask test` runs it all the same";
            findings.push(Finding::new(path, i + 1, what));
        }
    }
    for (i, line) in code.lines().enumerate() {
        if path.starts_with("tests/") && path != SLEEPER && line.contains("sleep(") {
            findings.push(Finding::new(path, i + 1, format!("a test sleeps: wait on a condition ({SLEEPER})")));
        }
        if has_word(line, "unsafe") && !UNSAFE.iter().any(|place| path.starts_with(place)) {
            findings.push(Finding::new(path, i + 1, "unsafe outside its places (xtask/src/tidy/rules.rs)"));
        }
    }
    findings
}

/// `#[allow(…)]` and `#[expect(…)]` that do not say why.
fn unexplained_attributes(path: &str, code: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for opening in ["[allow(", "[expect("] {
        for (at, _) in code.match_indices(opening) {
            let Some(end) = code[at..].find(")]") else { continue };
            if !code[at..at + end].contains("reason =") {
                let line = code[..at].lines().count().max(1);
                findings.push(Finding::new(path, line, format!("#{opening}…)] without reason = \"…\"")));
            }
        }
    }
    findings
}

/// Whether `word` stands in `line` with nothing of a word around it.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(findings: &[Finding]) -> Vec<(usize, &str)> {
        findings.iter().map(|f| (f.line, f.what.split([':', ' ']).next().unwrap_or_default())).collect()
    }

    #[test]
    fn text_rules() {
        assert_eq!(text("a.md", "fine\n"), []);
        assert_eq!(whats(&text("a.md", "bad \nno end")), [(1, "white"), (2, "no")]);
        let unfinished = format!("// {}: later\n", concat!("TO", "DO"));
        assert_eq!(text("a.rs", &unfinished).len(), 1);
    }

    #[test]
    fn rust_rules() {
        let check = |path, text: &str| {
            let code = crate::tidy::source::code(text);
            rust(path, text, &code).into_iter().map(|f| f.what).collect::<Vec<_>>()
        };
        assert!(check("lb-common/src/a.rs", "//! A.\nfn a() {}\n").is_empty());
        let rows = [
            ("no header", "lb-common/src/a.rs", "fn a() {}\n", "no //! header"),
            ("mod.rs", "lb-common/src/a/mod.rs", "//! A.\n", "mod.rs"),
            ("allow without reason", "x/src/a.rs", "//! A.\n#![allow(dead_code)]\n", "#[allow(…)] without"),
            ("expect over lines", "x/src/a.rs", "//! A.\n#[expect(\n    dead_code,\n)]\n", "#[expect(…)] without"),
            ("ignored test", "x/src/a.rs", "//! A.\n#[ignore = \"slow\"]\n", "an ignored test"),
            ("sleeping test", "tests/src/a.rs", "//! A.\nfn a() { thread::sleep(x) }\n", "a test sleeps"),
            ("unsafe anywhere", "lb-userspace/src/control.rs", "//! A.\nunsafe {}\n", "unsafe outside"),
        ];
        for (name, path, text, expected) in rows {
            let found = check(path, text);
            assert!(found.len() == 1 && found[0].starts_with(expected), "{name}: {found:?}");
        }
        let long = format!("//! A.\n{}", "\n".repeat(MAX_LINES));
        assert_eq!(check("x/src/a.rs", &long), ["501 lines: split it at 500"]);
        let explained = "//! A.\n#[expect(dead_code, reason = \"for the test\")]\n";
        assert!(check("x/src/a.rs", explained).is_empty());
        assert!(check("x/src/a.rs", "//! A.\n#[ignore = \"needs root\"]\n").is_empty());
        assert!(check("x/src/a/tests.rs", "use super::*;\n").is_empty());
        assert!(check("lb-userspace/src/dataplane/x.rs", "//! A.\nunsafe {}\n").is_empty());
        assert!(check("x/src/a.rs", "//! A.\n#![deny(unsafe_op_in_unsafe_fn)] // unsafe\n").is_empty());
    }
}
