//! `cargo xtask tidy`: holds what lints cannot. The rules are pure functions of a file's text; this module walks the tree
//! and reports. A test runs it on the tree, so `cargo xtask test` covers it.
//!
//! To be allowed something that a rule refuses, change the rule's table and say why there.

mod imports;
mod links;
mod manifests;
mod named;
mod rules;
mod source;

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::run;

/// What a rule found.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// Relative to the root of the checkout.
    path: String,
    /// From 1; 0: the file as a whole.
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

/// Lines that a source file should not exceed; above, it is mentioned.
const AIM_LINES: usize = 300;

pub(crate) fn run() -> Result<()> {
    let files = read_tree(run::root())?;
    let findings = check(&files);
    for finding in &findings {
        println!("{}:{}: {}", finding.path, finding.line, finding.what);
    }
    let long: Vec<_> = files.iter().filter(|(path, text)| is_rust(path) && text.lines().count() > AIM_LINES).collect();
    for (path, text) in &long {
        println!("note: {path} has {} lines, aim at {AIM_LINES}", text.lines().count());
    }
    if !findings.is_empty() {
        bail!("tidy: {} findings in {} files", findings.len(), files.len());
    }
    println!("tidy: {} files, {} of them longer than {AIM_LINES} lines", files.len(), long.len());
    Ok(())
}

/// Every rule on every file, in order of path and line.
fn check(files: &[(String, String)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in files {
        findings.extend(rules::text(path, text));
        if is_rust(path) {
            let code = source::code(text);
            findings.extend(rules::rust(path, text, &code));
            findings.extend(imports::check(path, &code));
        }
        if path.ends_with("Cargo.toml") {
            findings.extend(manifests::check(path, text));
        }
        if path.ends_with(".md") {
            findings.extend(links::check(path, text, &|target| run::root().join(target).exists()));
        }
        if path == named::DOCUMENT {
            findings.extend(named::check(path, text, files));
        }
    }
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    findings
}

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

/// Every text file of ours: relative path and content.
fn read_tree(root: &Path) -> Result<Vec<(String, String)>> {
    const KINDS: [&str; 6] = ["rs", "toml", "md", "txt", "sh", "service"];
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && !path.is_symlink() {
                if name != "target" && name != ".git" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|kind| KINDS.iter().any(|known| kind == *known)) {
                let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                let relative = path.strip_prefix(root).expect("it was found below the root");
                files.push((relative.to_string_lossy().into_owned(), text));
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        let files = read_tree(run::root()).expect("the tree can be read");
        assert!(files.iter().any(|(path, _)| path == "xtask/src/tidy.rs"), "the walk finds this file");
        let findings = check(&files);
        let list: Vec<_> = findings.iter().map(|f| format!("{}:{}: {}", f.path, f.line, f.what)).collect();
        assert!(list.is_empty(), "\n{}", list.join("\n"));
    }

    #[test]
    fn the_tree_is_formatted() {
        let mut fmt = run::cargo();
        fmt.args(["fmt", "--all", "--check", "--", "--color", "never"]);
        let output = fmt.output().expect("cargo fmt is installed by `cargo xtask setup`");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
