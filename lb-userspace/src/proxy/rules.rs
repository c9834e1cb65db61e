//! The rules of an HTTP virtual server, compiled: evaluated in order on the request, on the response, and at the end.
//!
//! Evaluation is pure but for counters: facts and limits go in, a verdict and [`Edits`] come out; the engine applies them. A
//! rule sees what earlier ones changed. A terminal action ends the list. Every text that becomes part of a head is checked
//! after expansion (H6); a request that would put control characters into one is refused.
//!
//! A set without rules costs a branch. Each thread clones its set: compiled expressions are shared by clones, their caches
//! are not.

mod action;
mod condition;
mod edits;
mod explain;
mod matcher;
mod query;
mod text;
mod view;

use std::{fmt, sync::Arc, time::Duration};

pub use edits::{Edits, HeaderEdits, NoteKind};
pub use query::parameter;

use self::{action::Step, condition::Groups, view::View};
use super::{
    facts::{Facts, RequestId, ResponseFacts},
    limit::Limits,
    pool::PoolId,
    stats::Counter,
};
use crate::control::proxy::{
    ProxyPlan,
    rule::{
        self as plan, Rules,
        check::{Mistake, Phase},
    },
};

/// The rules of a virtual server, ready to be evaluated.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    request: Arc<[Rule]>,
    response: Arc<[Rule]>,
    completion: Arc<[Rule]>,
}

/// A compiled rule.
#[derive(Clone, Debug)]
struct Rule {
    name: Box<str>,
    id: RuleId,
    when: condition::Condition,
    /// Whether a later text asks for groups of a regex.
    uses_groups: bool,
    steps: Box<[Step]>,
}

/// A rule's place among all of its virtual server: request rules, then response and completion rules. Also the place of its
/// counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleId(pub u16);

/// What rules look at.
pub struct Scope<'a> {
    /// The request.
    pub facts: &'a dyn Facts,
    /// The response; `None` in request rules.
    pub response: Option<&'a dyn ResponseFacts>,
    /// The virtual server.
    pub virtual_server: &'a str,
    /// The pool that serves; empty in request rules.
    pub pool: &'a str,
    /// The node that served; empty in request rules.
    pub node: &'a str,
    /// Tells this request apart.
    pub request_id: RequestId,
    /// How long the worker runs: for rates. May be coarse.
    pub now: Duration,
    /// Seconds since 1970.
    pub unix_s: u64,
    /// Counters of the rules, by [`RuleId`].
    pub hits: &'a [Arc<Counter>],
}

impl fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("virtual_server", &self.virtual_server).finish_non_exhaustive()
    }
}

/// What the rules decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: the virtual server's pool serves, or the response goes on.
    Continue,
    /// This pool serves.
    Pool(PoolId),
    /// This is answered: body and media type are in the edits, with the header fields of the response.
    Respond {
        /// Status.
        status: u16,
    },
    /// A redirect: the location is in the edits.
    Redirect {
        /// Status.
        status: u16,
    },
    /// A limit is reached.
    Limited {
        /// 429 for rates, 503 for requests at a time.
        status: u16,
        /// For `Retry-After`, where it is known.
        retry_after: Option<Duration>,
    },
    /// An expanded text would have put control characters into a head, or the new path cannot stand in one.
    Refuse {
        /// 400 for requests, 502 for responses.
        status: u16,
    },
    /// The connection is closed without an answer.
    Drop,
}

impl RuleSet {
    /// Compiles the rules of `virtual_server`.
    ///
    /// # Errors
    /// Everything that is wrong with them; a plan that the configuration made has nothing.
    pub fn compile(virtual_server: &str, plan: &ProxyPlan, limits: &Limits) -> Result<Self, Vec<Mistake>> {
        let service = plan.virtual_servers.get(virtual_server).map(|server| &server.service);
        let Some(crate::control::proxy::Service::Http(http)) = service else { return Ok(Self::default()) };
        let mistakes = http.rules.mistakes();
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let policy = super::path::Policy {
            allow_encoded_slash: http.strictness.allow_encoded_slash,
            merge_slashes: http.strictness.merge_slashes,
        };
        let mut compiler = Compiler { virtual_server, plan, limits, policy, next: 0, mistakes };
        let set = compiler.set(&http.rules);
        if compiler.mistakes.is_empty() { Ok(set) } else { Err(compiler.mistakes) }
    }

    /// Names of the rules, by [`RuleId`].
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all().map(|rule| &*rule.name)
    }

    /// The name of a rule.
    #[must_use]
    pub fn name(&self, id: RuleId) -> &str {
        self.names().nth(usize::from(id.0)).unwrap_or("")
    }

    /// Whether the edits of a request must be kept for response rules.
    #[must_use]
    pub fn looks_at_responses(&self) -> bool {
        !self.response.is_empty()
    }

    /// Whether there is anything to do when a request is done.
    #[must_use]
    pub fn looks_at_completion(&self) -> bool {
        !self.completion.is_empty()
    }

    /// Evaluates the request rules.
    #[inline]
    pub fn evaluate_request(&self, scope: &Scope<'_>, edits: &mut Edits) -> Verdict {
        if self.request.is_empty() {
            return Verdict::Continue;
        }
        evaluate(&self.request, Phase::Request, scope, edits)
    }

    /// Evaluates the response rules, on the edits that the request rules left.
    #[inline]
    pub fn evaluate_response(&self, scope: &Scope<'_>, edits: &mut Edits) -> Verdict {
        if self.response.is_empty() {
            return Verdict::Continue;
        }
        evaluate(&self.response, Phase::Response, scope, edits)
    }

    /// Evaluates the completion rules: they can only log and raise events.
    #[inline]
    pub fn evaluate_completion(&self, scope: &Scope<'_>, edits: &mut Edits) {
        if !self.completion.is_empty() {
            evaluate(&self.completion, Phase::Completion, scope, edits);
        }
    }

    fn all(&self) -> impl Iterator<Item = &Rule> {
        self.request.iter().chain(self.response.iter()).chain(self.completion.iter())
    }
}

fn evaluate(rules: &[Rule], phase: Phase, scope: &Scope<'_>, edits: &mut Edits) -> Verdict {
    let mut groups = Groups::default();
    for rule in rules {
        if !rule.when.holds(&View { scope, edits }, &mut groups, rule.uses_groups) {
            continue;
        }
        if let Some(counter) = scope.hits.get(usize::from(rule.id.0)) {
            counter.add(1);
        }
        edits.rule = Some(rule.id);
        for step in &rule.steps {
            if let Some(verdict) = step.run(phase, scope, &groups, edits) {
                return verdict;
            }
        }
    }
    Verdict::Continue
}

struct Compiler<'a> {
    virtual_server: &'a str,
    plan: &'a ProxyPlan,
    limits: &'a Limits,
    policy: super::path::Policy,
    next: u16,
    mistakes: Vec<Mistake>,
}

impl Compiler<'_> {
    fn set(&mut self, rules: &Rules) -> RuleSet {
        RuleSet {
            request: self.phase(Phase::Request, &rules.request),
            response: self.phase(Phase::Response, &rules.response),
            completion: self.phase(Phase::Completion, &rules.completion),
        }
    }

    fn phase(&mut self, phase: Phase, rules: &[plan::Rule]) -> Arc<[Rule]> {
        // A group may be used by a rule after the one whose regex matched.
        let any_groups = rules.iter().any(|rule| rule.actions.iter().any(action::uses_groups));
        let compiled = rules.iter().enumerate().filter_map(|(position, rule)| {
            let id = RuleId(self.next);
            self.next += 1;
            match self.rule(id, phase, rule, any_groups) {
                Ok(rule) => Some(rule),
                Err(what) => {
                    let (phase, rule) = (phase.name(), rule.name.clone());
                    self.mistakes.push(Mistake { phase, position, rule, place: String::new(), what });
                    None
                }
            }
        });
        compiled.collect()
    }

    fn rule(&self, id: RuleId, phase: Phase, rule: &plan::Rule, uses_groups: bool) -> Result<Rule, String> {
        let steps = rule.actions.iter().enumerate();
        let names = action::Names {
            virtual_server: self.virtual_server,
            rule: &rule.name,
            plan: self.plan,
            limits: self.limits,
            policy: self.policy,
            place: phase.place(),
        };
        Ok(Rule {
            name: rule.name.clone().into(),
            id,
            when: condition::Condition::compile(&rule.when)?,
            uses_groups,
            steps: steps.map(|(i, action)| Step::compile(action, i, &names)).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests;
