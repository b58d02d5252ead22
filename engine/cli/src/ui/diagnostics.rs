//! Diagnostics with the lines that they point into.

use annotate_snippets::{AnnotationKind, Element, Group, Level, Renderer, Snippet};
use tracetune_engine::diagnostic::{Diagnostic, Label, Severity};

use super::style;

/// The diagnostic as coloured text (the stream takes colours away where they are not wanted).
pub(super) fn rendered(problem: &Diagnostic, width: usize) -> String {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut files: Vec<&Label> = Vec::new();
    for label in &problem.labels {
        if !files.iter().any(|known| known.file == label.file) {
            files.push(label);
        }
    }
    let snippets = files.iter().map(|first| {
        let labels = problem.labels.iter().filter(|label| label.file == first.file);
        let annotations = labels.map(|label| {
            let kind = if label.primary { AnnotationKind::Primary } else { AnnotationKind::Context };
            let text = (!label.text.is_empty()).then_some(label.text.as_str());
            kind.span(visible(label)).label(text)
        });
        Element::from(Snippet::source(&first.file.text).path(&first.file.name).annotations(annotations))
    });
    if files.is_empty() {
        // The renderer would draw the margin of a text that is not there.
        let help = problem.help.iter().map(|help| format!("\n{}: {help}", style::help("help"))).collect::<String>();
        let word = problem.severity.as_str();
        let word = if problem.severity == Severity::Error { style::error(word) } else { style::warning(word) };
        return format!("{word}: {}{help}\n", problem.message);
    }
    let mut groups = vec![Group::with_title(level.primary_title(&problem.message)).elements(snippets)];
    groups.extend(problem.help.iter().map(|help| Group::with_title(Level::HELP.secondary_title(help))));
    let text = Renderer::styled().term_width(width).render(&groups);
    format!("{text}\n")
}

/// An empty place, as at the end of a file, still gets a caret.
fn visible(label: &Label) -> std::ops::Range<usize> {
    let length = label.file.text.len();
    let start = label.span.start.min(length);
    start..label.span.end.clamp(start, length)
}
