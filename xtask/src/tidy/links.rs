//! Links between our documents lead somewhere.

use super::Finding;

/// Relative links of a Markdown file whose target `exists` denies (it is asked for paths from the root of the checkout).
pub(super) fn check(path: &str, text: &str, exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_block = false;
    for (i, line) in text.lines().enumerate() {
        in_block ^= line.trim_start().starts_with("```");
        if in_block {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let target = line[at + 2..].split([')', '#', ' ']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !exists(&resolve(path, target)) {
                findings.push(Finding::new(path, i + 1, format!("the link to {target} leads nowhere")));
            }
        }
    }
    findings
}

/// `target` as seen from the folder of `path`.
fn resolve(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn relative_links_are_followed() {
        let exists = |target: &str| ["README.md", "docs/a.md"].contains(&target);
        let rows = [
            ("docs/b.md", "see [a](a.md) and [top](../README.md#start)", 0),
            ("README.md", "see [a](docs/a.md), [web](https://example.org/x), [here](#here)", 0),
            ("README.md", "see [a](a.md) and [b](docs/b.md)", 2),
            ("README.md", "```\n[a](nowhere)\n```", 0),
        ];
        for (path, text, expected) in rows {
            let found = check(path, text, &exists);
            assert_eq!(found.len(), expected, "{text}: {found:?}");
        }
    }
}
