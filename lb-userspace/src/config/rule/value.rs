//! Single values of rules: of the right type, or a mistake at their place.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::Written;
use crate::config::{
    advice,
    error::{Problem, Problems},
    source::Span,
    text::{CONTROL, has_control},
    words,
};

/// Reads the rules of one virtual server.
pub(super) struct Reader<'p> {
    pub(super) section: String,
    pub(super) problems: &'p mut Problems,
    pub(super) written: Written,
}

impl Reader<'_> {
    pub(super) fn wrong(&mut self, span: &Span, what: &str, label: &str, help: Option<String>) {
        let mut problem = Problem::new(span, format!("{what} (in {})", self.section), label);
        problem.help = help;
        self.problems.push(problem);
    }

    fn wrong_type(&mut self, value: &Spanned<DeValue<'_>>, key: &str, wanted: &str, help: Option<&str>) {
        let found = advice::article(value.get_ref().type_str());
        self.wrong(
            &value.span(),
            &format!("{key} must be {wanted}, not {found}"),
            "wrong type",
            help.map(str::to_owned),
        );
    }

    /// Reports keys that are none of `known`.
    pub(super) fn known_keys(&mut self, table: &DeTable<'_>, known: &[&str], what: &str) {
        for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            self.unknown(key.get_ref(), &key.span(), known, what);
        }
    }

    pub(super) fn unknown(&mut self, name: &str, span: &Span, known: &[&str], what: &str) {
        let help = words::advice(name, what, known);
        self.wrong(span, &format!("unknown key {name:?}"), "not known here", Some(help));
    }

    pub(super) fn text(&mut self, value: &Spanned<DeValue<'_>>, key: &str) -> Option<String> {
        let text = self.any_text(value, key)?;
        self.without_control(value, key, text)
    }

    /// A text that may have several lines: a body.
    pub(super) fn any_text(&mut self, value: &Spanned<DeValue<'_>>, key: &str) -> Option<String> {
        let text = value.get_ref().as_str().map(str::to_owned);
        if text.is_none() {
            self.wrong_type(value, key, "text", Some("write it in quotes"));
        }
        text
    }

    fn without_control(&mut self, value: &Spanned<DeValue<'_>>, key: &str, text: String) -> Option<String> {
        if has_control(&text) {
            self.wrong(&value.span(), &format!("{key} has a control character: {text:?}"), CONTROL, None);
            return None;
        }
        Some(text)
    }

    /// A text, or a list of texts.
    pub(super) fn texts(&mut self, value: &Spanned<DeValue<'_>>, key: &str) -> Option<Vec<String>> {
        if let Some(items) = value.get_ref().as_array().filter(|items| !items.is_empty()) {
            return items.iter().map(|item| self.text(item, key)).collect();
        }
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(value, key, "a text or a list of texts", None);
            return None;
        };
        self.without_control(value, key, text.to_owned()).map(|text| vec![text])
    }

    pub(super) fn number(&mut self, value: &Spanned<DeValue<'_>>, key: &str, most: u64) -> Option<u64> {
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong_type(value, key, "an integer", None);
            return None;
        };
        let parsed = u64::from_str_radix(number.as_str(), number.radix()).ok().filter(|number| *number <= most);
        if parsed.is_none() {
            self.wrong(&value.span(), &format!("{key} must be within 0 to {most}"), "out of range", None);
        }
        parsed
    }

    pub(super) fn truth(&mut self, value: &Spanned<DeValue<'_>>, key: &str) -> Option<bool> {
        let truth = value.get_ref().as_bool();
        if truth.is_none() {
            self.wrong_type(value, key, "true or false", None);
        }
        truth
    }

    pub(super) fn table<'v, 'i>(
        &mut self,
        value: &'v Spanned<DeValue<'i>>,
        key: &str,
        example: &str,
    ) -> Option<&'v DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(value, key, "a table", Some(&format!("write it like {key} = {example}")));
        }
        table
    }

    /// One of some words.
    pub(super) fn word(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        known: &'static [&'static str],
    ) -> Option<&'static str> {
        let text = self.text(value, key)?;
        let found = known.iter().copied().find(|word| *word == text);
        if found.is_none() {
            let help = words::advice(&text, "known words", known);
            self.wrong(&value.span(), &format!("{key} cannot be {text:?}"), "unknown word", Some(help));
        }
        found
    }

    /// A key of a table that must be there.
    pub(super) fn needed<'v, 'i>(
        &mut self,
        table: &'v DeTable<'i>,
        span: &Span,
        of: &str,
        key: &str,
    ) -> Option<&'v Spanned<DeValue<'i>>> {
        let value = table.get(key);
        if value.is_none() {
            self.wrong(span, &format!("{of} has no {key:?}"), &format!("{key:?} is missing"), None);
        }
        value
    }
}
