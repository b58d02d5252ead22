//! What a template sees of a row.

use serde::Serialize;

use super::indentation::indents;
use crate::trace::elided_until;

/// What a template sees of a row.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct View {
    /// What the program should do.
    pub instruction: String,
    /// The program as numbered lines with their trace comments; a note stands for lines that the trace leaves out.
    pub lines: Vec<Line>,
    /// The program without comments of ours.
    pub program: String,
    /// The program with the trace as inline comments; the plain program where traces are off.
    pub trace: String,
    /// All tests.
    pub tests: Vec<String>,
    /// The test that fails.
    pub test: String,
    /// What the failing call gave; empty where traces are off.
    pub got: String,
    /// An exemplar's or a seed's rationale.
    pub rationale: String,
    /// An exemplar's or a seed's fix.
    pub fix: String,
    /// What the model wrote, in training documents.
    pub completion: String,
}

/// One line of the program.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Line {
    /// 1-based.
    pub number: usize,
    /// How deep it stands: how many of Python's blocks a statement is in, whether they are indented by tabs or by any
    /// number of spaces. A continued line, a comment or a line of a string has the level that its width comes to.
    pub level: usize,
    /// What the level stands for: `indent` and `code` are the line.
    pub indent: String,
    /// The code without indentation. Within a string of several lines white space is text: what is left after as many
    /// times four spaces as there are.
    pub code: String,
    /// The trace comment without `# `; empty where there is none.
    pub comment: String,
    /// The steps that the comment shows.
    pub steps: Vec<Step>,
}

/// One state-changing step, as a trace comment shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Step {
    /// Its number in the whole execution, from 0.
    pub number: usize,
    /// What changed, e.g. `x=1; y=2;`.
    pub text: String,
}

/// Reads the steps of a comment like `(0) x=1; (2) x=3; ...; (8) x=9;`.
fn steps(comment: &str) -> Vec<Step> {
    let starts: Vec<(usize, usize, usize)> = comment
        .match_indices('(')
        .filter(|(at, _)| *at == 0 || comment[..*at].ends_with("; "))
        .filter_map(|(at, _)| {
            let (number, _) = comment[at + 1..].split_once(") ")?;
            Some((at, at + 1 + number.len() + 2, number.parse().ok()?))
        })
        .collect();
    let ends = starts.iter().skip(1).map(|start| start.0).chain([comment.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(&(_, from, number), end)| {
            let text = comment[from..end].trim_end();
            Step { number, text: text.strip_suffix(" ...;").unwrap_or(text).to_owned() }
        })
        .collect()
}

impl View {
    /// The view of a program with its annotated form; where `annotated` is empty (traces are off) comments are.
    pub fn of_program(program: &str, annotated: &str) -> Self {
        let mut shown = annotated.lines();
        let mut lines = Vec::new();
        let mut left_out = 0;
        for ((index, line), indent) in program.lines().enumerate().zip(indents(program)) {
            let number = index + 1;
            let (level, (indent, code)) = (indent.level, line.split_at(indent.bytes));
            if number <= left_out {
                continue;
            }
            let annotated = shown.next().filter(|shown| *shown != line);
            if let Some(last) = annotated.and_then(elided_until) {
                left_out = last;
                let note = annotated.unwrap_or_default().trim_start().to_owned();
                lines.push(Line { number, level, indent: indent.to_owned(), code: note, ..Line::default() });
                continue;
            }
            let comment = annotated.and_then(|annotated| annotated.strip_prefix(line.trim_end()));
            let comment = comment.and_then(|rest| rest.trim_start().strip_prefix("# ")).unwrap_or_default();
            lines.push(Line {
                number,
                level,
                indent: indent.to_owned(),
                code: code.to_owned(),
                steps: steps(comment),
                comment: comment.to_owned(),
            });
        }
        let trace = if annotated.is_empty() { program } else { annotated };
        Self { lines, program: program.to_owned(), trace: trace.to_owned(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_numbers_lines_across_those_left_out() {
        let view = View::of_program(
            "\ndef g():\n    pass\n\ndef f(x):\n    return x\n",
            "\n# ... lines 2-3: not executed\n\ndef f(x):  # (0) x=1;\n    return x\n",
        );
        let lines: Vec<(usize, &str, &str)> =
            view.lines.iter().map(|line| (line.number, line.code.as_str(), line.comment.as_str())).collect();
        let note = (2, "# ... lines 2-3: not executed", "");
        assert_eq!(lines, [(1, "", ""), note, (4, "", ""), (5, "def f(x):", "(0) x=1;"), (6, "return x", "")]);
    }

    #[test]
    fn steps_are_read_from_a_comment() {
        let read: Vec<(usize, String)> = steps("(0) x=(1, 2); y='a; (b) c'; (2) x=3; ...; (8) x=9;")
            .into_iter()
            .map(|s| (s.number, s.text))
            .collect();
        let expected = [(0, "x=(1, 2); y='a; (b) c';"), (2, "x=3;"), (8, "x=9;")];
        assert_eq!(read, expected.map(|(number, text)| (number, text.to_owned())));
    }

    #[test]
    fn lines_carry_the_trace_comments() {
        let view = View::of_program("def f(x):\n    return x\n", "def f(x):  # (0) x=1;\n    return x\n");
        assert_eq!(view.lines[0].comment, "(0) x=1;");
        assert_eq!(
            (view.lines[1].level, view.lines[1].code.as_str(), view.lines[1].comment.as_str()),
            (1, "return x", "")
        );
    }
}
