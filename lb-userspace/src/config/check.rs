//! The way from text to a valid configuration: read, check against the schema, build, check what the parts say of each
//! other. Every step reports all that it finds; the value comes out only when there was nothing.

mod addresses;
mod alerts;
mod api;
mod bgp;
mod cluster;
mod limits;
mod monitors;
mod pools;
mod ports;
mod proxy;
mod references;

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    Config, ConfigErrors, Users, VirtualServer,
    build::{self, Building},
    document::Document,
    error::{Problem, Problems},
    kinds, read,
    rule::Written,
    schema,
    source::{Sources, Span},
};

pub(super) fn check(sources: &Sources) -> Result<Config, ConfigErrors> {
    let mut problems = Problems::default();
    let mut tree = read::read(sources, &mut problems);
    let rules = schema::check(&mut tree.root, &mut problems);
    kinds::check(&mut tree.root, &mut problems);
    if tree.broken {
        return Err(problems.into_errors(sources));
    }
    let pruned = !problems.is_empty();
    let whole = toml::Spanned::new(0..0, tree.root);
    let config = match Document::deserialize(toml::Deserializer::from(whole)) {
        Ok(document) => {
            let config = build::build(&Building { document: &document, rules: &rules, sources });
            check_references(&document, &config, &rules, pruned, &mut problems);
            Some(config)
        }
        Err(error) => {
            let message = format!("not understood: {}", error.message().lines().collect::<Vec<_>>().join(", "));
            problems.push(Problem::new(&error.span().unwrap_or(0..0), message, "here"));
            None
        }
    };
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        Some(_) | None => Err(problems.into_errors(sources)),
    }
}

fn check_references(
    document: &Document,
    config: &Config,
    rules: &BTreeMap<String, Written>,
    pruned: bool,
    problems: &mut Problems,
) {
    let mut checker = Checker { document, config, rules, users: config.users(), pruned, problems };
    checker.references();
    checker.addresses();
    checker.api();
    checker.cluster();
    checker.bgp();
    checker.ports();
    checker.pools();
    checker.monitors();
    checker.alerts();
    checker.limits();
    checker.proxy();
}

/// A document that fits the schema, its places, and its meaning.
struct Checker<'c> {
    document: &'c Document,
    config: &'c Config,
    /// Rules of virtual servers, by name.
    rules: &'c BTreeMap<String, Written>,
    users: Users<'c>,
    /// Whether something wrong was taken out of the document: then nothing is concluded from what is not there.
    pruned: bool,
    problems: &'c mut Problems,
}

impl<'c> Checker<'c> {
    /// The virtual servers that a pool may serve.
    fn users_of(&self, pool: &str) -> Vec<(&'c str, &'c VirtualServer)> {
        self.users.get(pool).cloned().unwrap_or_default()
    }

    fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn pool_span(&self, pool: &str) -> Span {
        self.document.pool.get_key_value(pool).map_or(0..0, |(name, _)| name.span.clone())
    }
}
