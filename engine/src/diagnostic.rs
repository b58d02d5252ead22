//! What is wrong with a pipeline file: message, places, help. Plain data; no colour, no layout.

use std::ops::Range;
use std::sync::Arc;

use serde_json::{Value, json};

/// A text that a diagnostic can point into: a pipeline file, or a value given on the command line.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// The path as the user gave it, or `--set`.
    pub name: String,
    /// The whole text.
    pub text: String,
}

impl SourceFile {
    /// The 1-based line and column (in characters) of a byte offset.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let mut end = offset.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &self.text[..end];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|&character| character != '\n').count() + 1;
        (line, column)
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing can run.
    Error,
    /// It runs, and may not mean what its author thinks.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// A place in a text, with a few words about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The text.
    pub file: Arc<SourceFile>,
    /// The place, in bytes.
    pub span: Range<usize>,
    /// The words; may be empty.
    pub text: String,
    /// Whether this is the place to change, rather than a place to look at.
    pub primary: bool,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong: lower case, no full stop, literals in backticks.
    pub message: String,
    /// Where; the primary label first. Empty if no text is at fault (a file that can't be read).
    pub labels: Vec<Label>,
    /// What to do about it.
    pub help: Vec<String>,
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, message: message.into(), labels: Vec::new(), help: Vec::new() }
    }

    /// Adds a line of help.
    pub fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help.push(help.into());
        self
    }

    /// Adds a place to look at.
    pub fn label(&mut self, label: Label) -> &mut Self {
        self.labels.push(label);
        self
    }

    /// The place to change.
    pub fn primary(&self) -> Option<&Label> {
        self.labels.iter().find(|label| label.primary)
    }

    /// `{kind, message, file, line, column, end: {line, column}, help}`; lines and columns count from 1, and the
    /// place is null where no text is at fault.
    pub fn to_json(&self) -> Value {
        let primary = self.primary();
        let start = primary.map(|label| label.file.line_column(label.span.start));
        let end = primary.map(|label| label.file.line_column(label.span.end));
        json!({
            "kind": self.severity.as_str(),
            "message": self.message,
            "file": primary.map(|label| &label.file.name),
            "line": start.map(|(line, _)| line),
            "column": start.map(|(_, column)| column),
            "end": end.map(|(line, column)| json!({"line": line, "column": column})),
            "help": self.help,
        })
    }
}

/// The candidate that was probably meant by `word`, if one is near enough.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|&(distance, candidate)| {
            distance <= allowed || (lower.len() > 2 && candidate.to_lowercase().starts_with(&lower))
        })
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// What to write instead of a word that is not known: the nearest one, or all that there are, behind words such as "the kinds
/// are".
pub fn instead<'a>(word: &str, known: impl IntoIterator<Item = &'a str>, all: &str) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("{all} {}", list(known)),
    }
}

/// `` `a`, `b` and `c` ``.
pub fn list<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("`{}`", word.as_ref())).collect();
    match words.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_from_one() {
        let file = SourceFile { name: "a".into(), text: "ab\nçd\n".into() };
        assert_eq!(file.line_column(0), (1, 1));
        assert_eq!(file.line_column(5), (2, 2));
        assert_eq!(file.line_column(99), (3, 1));
    }

    #[test]
    fn a_unit_left_out_is_near() {
        assert_eq!(nearest("timeout", ["seed", "timeout_s"]), Some("timeout_s"));
        assert_eq!(nearest("memory", ["memory_bytes", "n"]), Some("memory_bytes"));
        assert_eq!(nearest("temprature", ["temperature", "top_p"]), Some("temperature"));
        assert_eq!(nearest("x", ["kind", "rows"]), None);
    }
}
