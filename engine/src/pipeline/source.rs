//! The texts a pipeline is made of, and places in them.
//!
//! A pipeline may come from several texts (`extends`, `--set`). Each gets a range of its own in one space of offsets,
//! so that a span alone says which text it is in, also after values have been merged.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Overrides;
use crate::diagnostic::{Diagnostic, Label, SourceFile};

/// A TOML value with its place.
pub(super) type Value<'a> = Spanned<DeValue<'a>>;
/// A TOML table; its keys are sorted by name, and have places.
pub(super) type Table<'a> = DeTable<'a>;

/// A place in one of the [`Sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start, end: range.end }
    }
}

/// All texts, the extended ones before those that extend them, the `--set` values last.
pub(super) struct Sources {
    /// Each text with the offset of its first byte, ascending.
    files: Vec<(usize, Arc<SourceFile>)>,
    /// How many of them are pipeline files.
    pipelines: usize,
    /// What kept `extends` from being followed.
    broken: Option<(Span, String)>,
}

impl Sources {
    /// Reads a pipeline file and those it extends.
    pub(super) fn read(path: &Path, overrides: &Overrides) -> Result<Self, Diagnostic> {
        let text = fs_err::read_to_string(path).map_err(|error| cannot_read(path, &error))?;
        let mut chain = vec![(path.to_owned(), text)];
        let mut broken = None;
        while let Some((target, span)) = extended(&chain[chain.len() - 1]) {
            let known = |(seen, _): &(PathBuf, String)| same_file(seen, &target);
            if chain.iter().any(known) {
                let cycle: Vec<String> = chain.iter().map(|(path, _)| path.display().to_string()).collect();
                broken =
                    Some((span, format!("`extends` goes in a circle: {} -> {}", cycle.join(" -> "), target.display())));
                break;
            }
            match fs_err::read_to_string(&target) {
                Ok(text) => chain.push((target, text)),
                Err(error) => {
                    broken = Some((span, format!("can't read `{}`: {}", target.display(), reason(&error))));
                    break;
                }
            }
        }
        let names = chain.into_iter().map(|(path, text)| (path.display().to_string(), text));
        Ok(Self::new(names.rev().collect(), broken, overrides))
    }

    /// One text; `extends` is not followed.
    pub(super) fn text(name: &str, text: &str, overrides: &Overrides) -> Self {
        Self::new(vec![(name.to_owned(), text.to_owned())], None, overrides)
    }

    fn new(chain: Vec<(String, String)>, broken: Option<(Span, String)>, overrides: &Overrides) -> Self {
        let pipelines = chain.len();
        let sets = overrides.set.iter().map(|(path, value)| ("--set".to_owned(), format!("{path}={value}")));
        let mut next = 0;
        let files: Vec<_> = chain
            .into_iter()
            .chain(sets)
            .map(|(name, text)| {
                let start = next;
                next += text.len() + 1;
                (start, Arc::new(SourceFile { name, text }))
            })
            .collect();
        // The last file read is the first of `files`, so a place in it needs no shift.
        Self { files, pipelines, broken }
    }

    /// What kept `extends` from being followed.
    pub(super) fn broken(&self) -> Option<(Span, &str)> {
        self.broken.as_ref().map(|(span, message)| (*span, message.as_str()))
    }

    /// The pipeline files, the extended ones first.
    pub(super) fn pipelines(&self) -> impl DoubleEndedIterator<Item = (usize, &str)> {
        self.files[..self.pipelines].iter().map(|(start, file)| (*start, file.text.as_str()))
    }

    /// The `--set` values as the texts `path=value`.
    pub(super) fn sets(&self) -> impl Iterator<Item = (usize, &str)> {
        self.files[self.pipelines..].iter().map(|(start, file)| (*start, file.text.as_str()))
    }

    /// A label for people.
    pub(super) fn label(&self, span: Span, text: impl Into<String>, primary: bool) -> Label {
        let place = self.files.partition_point(|(start, _)| *start <= span.start).saturating_sub(1);
        let (start, file) = &self.files[place];
        let local = (span.start - start).min(file.text.len())..(span.end - start).min(file.text.len());
        Label { file: Arc::clone(file), span: local, text: text.into(), primary }
    }
}

/// Parses a text and moves its spans to the offset; with everything that is wrong with its syntax.
pub(super) fn parse(start: usize, text: &str) -> (Table<'_>, Vec<(Span, String)>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<(Span, String)> = errors
        .iter()
        .map(|error| (shifted(error.span().unwrap_or(text.len()..text.len()), start), error.message().to_owned()))
        .collect();
    problems.sort_by_key(|(span, _)| *span);
    // The parser goes on after an error, and what it says next about the same line only repeats itself. Past a bracket
    // that is not closed everything looks wrong.
    problems.dedup_by_key(|(span, _)| text[..(span.start - start).min(text.len())].matches('\n').count());
    if problems.first().is_some_and(|(_, message)| message.contains("array") || message.contains("inline table")) {
        problems.truncate(1);
    }
    (shift_table(table.into_inner(), start), problems)
}

/// Parses a single value; `None` if it is not TOML.
pub(super) fn parse_value(start: usize, text: &str) -> Option<Value<'_>> {
    DeValue::parse(text).ok().map(|value| shift(value, start))
}

/// The place of a value or a key.
pub(super) fn span<T>(spanned: &Spanned<T>) -> Span {
    spanned.span().into()
}

/// The table's entries in the order of the text.
pub(super) fn entries<'t, 'a>(table: &'t Table<'a>) -> Vec<(&'t str, Span, &'t Value<'a>)> {
    let mut entries: Vec<_> = table.iter().map(|(key, value)| (key.get_ref().as_ref(), span(key), value)).collect();
    entries.sort_by_key(|(_, span, _)| *span);
    entries
}

/// The folder where relative paths in parameters start, and where `.tracetune` lies: the nearest folder at or above
/// the pipeline file that holds `.tracetune` or `.git`, or else the file's own.
pub fn project_root(file: &Path) -> PathBuf {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let folder = file.parent().unwrap_or(Path::new("/"));
    let marked = |folder: &&Path| folder.join(".tracetune").is_dir() || folder.join(".git").exists();
    folder.ancestors().find(marked).unwrap_or(folder).to_owned()
}

fn extended((path, text): &(PathBuf, String)) -> Option<(PathBuf, Span)> {
    let (table, _) = DeTable::parse_recoverable(text);
    let value = table.get_ref().get("extends")?;
    let target = value.get_ref().as_str()?;
    Some((path.parent().unwrap_or(Path::new("")).join(target), span(value)))
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Diagnostic {
    let mut diagnostic = Diagnostic::error(format!("can't read `{}`: {}", path.display(), reason(error)));
    if error.kind() == std::io::ErrorKind::NotFound {
        diagnostic.help("`tracetune init` writes a pipeline to start from");
    }
    diagnostic
}

/// The error without the path that `fs_err` puts before it.
fn reason(error: &std::io::Error) -> impl fmt::Display {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        _ => error.to_string(),
    }
}

fn shifted(range: Range<usize>, start: usize) -> Span {
    Span { start: range.start + start, end: range.end + start }
}

fn shift(value: Value<'_>, start: usize) -> Value<'_> {
    let Range { start: from, end: to } = value.span();
    let shifted = match value.into_inner() {
        DeValue::Array(items) => DeValue::Array(items.into_iter().map(|item| shift(item, start)).collect()),
        DeValue::Table(table) => DeValue::Table(shift_table(table, start)),
        plain => plain,
    };
    Spanned::new(from + start..to + start, shifted)
}

fn shift_table(table: Table<'_>, start: usize) -> Table<'_> {
    table
        .into_iter()
        .map(|(key, value)| {
            let Range { start: from, end: to } = key.span();
            (Spanned::new(from + start..to + start, key.into_inner()), shift(value, start))
        })
        .collect()
}
