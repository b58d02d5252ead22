//! Gathers what is wrong, to be told all at once and in the order of the text.

use std::collections::{HashMap, HashSet};

use super::source::{Sources, Span};
use crate::diagnostic::{Diagnostic, Label, Severity};

/// The problems found so far.
pub(super) struct Problems<'a> {
    sources: &'a Sources,
    found: Vec<(Span, Diagnostic)>,
    /// Where a `$parameter` stood, and where its value was given: a problem with the value is shown at both.
    given: HashMap<Span, (Span, String)>,
    /// Places of which more would only be told because of what is wrong there already.
    settled: HashSet<Span>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(sources: &'a Sources) -> Self {
        Self { sources, found: Vec::new(), given: HashMap::new(), settled: HashSet::new() }
    }

    /// Notes an error at a place, with words for the caret.
    pub(super) fn error(&mut self, at: Span, message: impl Into<String>, label: impl Into<String>) -> &mut Diagnostic {
        self.push(Severity::Error, at, message.into(), label.into())
    }

    /// Notes a warning.
    pub(super) fn warning(
        &mut self,
        at: Span,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> &mut Diagnostic {
        self.push(Severity::Warning, at, message.into(), label.into())
    }

    fn push(&mut self, severity: Severity, at: Span, message: String, label: String) -> &mut Diagnostic {
        let mut labels = vec![self.sources.label(at, label, true)];
        if let Some((given, name)) = self.given.get(&at) {
            labels.push(self.sources.label(*given, format!("`{name}` is given here"), false));
        }
        self.found.push((at, Diagnostic { severity, message, labels, help: Vec::new() }));
        &mut self.found.last_mut().expect("just pushed").1
    }

    /// A place to look at, for [`Diagnostic::label`].
    pub(super) fn at(&self, span: Span, text: impl Into<String>) -> Label {
        self.sources.label(span, text, false)
    }

    /// Remembers that the value at `at` was given elsewhere, as a parameter.
    pub(super) fn given(&mut self, at: Span, given: Span, name: &str) {
        self.given.insert(at, (given, name.to_owned()));
    }

    /// Nothing more is told about the value at `at`.
    pub(super) fn settle(&mut self, at: Span) {
        self.settled.insert(at);
    }

    /// How many problems there are.
    pub(super) fn count(&self) -> usize {
        self.found.len()
    }

    /// Adds a line of help to each problem but the first `known`.
    pub(super) fn help_after(&mut self, known: usize, help: &str) {
        self.found[known..].iter_mut().for_each(|(_, problem)| _ = problem.help(help));
    }

    /// How many errors there are.
    pub(super) fn errors(&self) -> usize {
        self.found.iter().filter(|(_, problem)| problem.severity == Severity::Error).count()
    }

    /// Everything, sorted by place and each thing once; `Ok` if there are but warnings.
    pub(super) fn finish(mut self) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
        self.found.sort_by_key(|(span, _)| *span);
        let settled = &self.settled;
        self.found.dedup_by(|a, b| a.0 == b.0 && (a.1.message == b.1.message || settled.contains(&a.0)));
        let failed = self.errors() > 0;
        let problems = self.found.into_iter().map(|(_, problem)| problem).collect();
        if failed { Err(problems) } else { Ok(problems) }
    }
}
