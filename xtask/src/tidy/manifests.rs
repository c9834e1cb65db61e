//! What one crate of ours may use of another, by its Cargo.toml, and that no version is chosen outside the workspace's.

use super::Finding;

/// Our crates, and which of ours each may depend on.
const OURS: [(&str, &[&str]); 5] = [
    ("lb-common", &[]),
    ("lb-ebpf", &["lb-common"]),
    ("lb-userspace", &["lb-common"]),
    ("lb-tests", &["lb-common", "lb-userspace"]),
    ("xtask", &[]),
];

/// Violations of one manifest.
pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    let name = text.lines().find_map(|line| line.strip_prefix("name = ")).unwrap_or_default().trim_matches('"');
    if path == "Cargo.toml" {
        return Vec::new();
    }
    // A workspace of its own, with no crate of ours: it compiles their files.
    if path == "fuzz/Cargo.toml" {
        return Vec::new();
    }
    let Some((_, allowed)) = OURS.iter().find(|(known, _)| *known == name) else {
        return vec![Finding::new(path, 0, format!("crate {name:?}: say in xtask/src/tidy/manifests.rs what it uses"))];
    };
    let mut findings = Vec::new();
    let mut in_dependencies = false;
    for (i, line) in text.lines().enumerate() {
        if let Some(section) = line.strip_prefix('[') {
            in_dependencies = section.trim_end_matches(']').ends_with("dependencies");
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| in_dependencies && !line.starts_with('#')) else {
            continue;
        };
        let dependency = key.trim().trim_end_matches(".workspace");
        if OURS.iter().any(|(known, _)| *known == dependency) && !allowed.contains(&dependency) {
            findings.push(Finding::new(path, i + 1, format!("{name} must not depend on {dependency}")));
        }
        if !key.contains(".workspace") && !value.contains("workspace = true") {
            findings.push(Finding::new(
                path,
                i + 1,
                format!("{dependency}: its version belongs in the workspace's manifest"),
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_between_crates() {
        let manifest =
            |name: &str, dependency: &str| format!("[package]\nname = \"{name}\"\n\n[dependencies]\n{dependency}\n");
        let rows = [
            ("lb-ebpf", "lb-common.workspace = true", 0),
            ("lb-common", "aya = { workspace = true, optional = true }", 0),
            ("lb-common", "lb-userspace.workspace = true", 1),
            ("lb-userspace", "lb-common = { workspace = true, features = [\"aya\"] }", 0),
            ("lb-userspace", "lb-tests.workspace = true", 1),
            ("xtask", "lb-common.workspace = true", 1),
            ("xtask", "anyhow = \"1\"", 1),
            ("stranger", "", 1),
        ];
        for (name, dependency, expected) in rows {
            let found = check("x/Cargo.toml", &manifest(name, dependency));
            assert_eq!(found.len(), expected, "{name} {dependency}: {found:?}");
        }
    }

    #[test]
    fn other_sections_are_not_dependencies() {
        let text =
            "[package]\nname = \"xtask\"\n\n[lib]\nname = \"lb\"\n\n[target.'cfg(unix)'.dependencies]\nnix = \"1\"\n";
        assert_eq!(check("x/Cargo.toml", text).len(), 1);
    }
}
