//! Tests that a document names are there.

use super::Finding;

/// The document: what must not happen, and the test that shows that it does not.
pub(super) const DOCUMENT: &str = "docs/threats.md";

/// Names in backquotes that look like a test's (`several_words`) and are no function of any file.
pub(super) fn check(path: &str, text: &str, files: &[(String, String)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (i, line) in text.lines().enumerate() {
        for name in line.split('`').skip(1).step_by(2).filter(|name| is_name(name)) {
            let declared = format!("fn {name}(");
            if !files.iter().any(|(file, code)| super::is_rust(file) && code.contains(&declared)) {
                findings.push(Finding::new(path, i + 1, format!("there is no test {name}")));
            }
        }
    }
    findings
}

fn is_name(text: &str) -> bool {
    text.contains('_') && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn tests_that_are_not_there_are_told() {
        let files = [("a.rs".to_owned(), "fn it_holds() {}\nfn it_holds_too(x: u8) {}\n".to_owned())];
        let rows = [
            ("| H1 | `it_holds`, `it_holds_too` |", 0),
            ("| H1 | `it_hold` | `it_does_not` |", 2),
            ("`--slow`, `h1` and `h7_…` are no names; `cargo xtask tidy` neither", 0),
        ];
        for (text, expected) in rows {
            let found = check("docs/threats.md", text, &files);
            assert_eq!(found.len(), expected, "{text}: {found:?}");
        }
    }
}
