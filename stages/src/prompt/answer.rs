//! What a model writes: a rationale and a fix, read and written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::patch;

/// How a fix stands in a completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FixFormat {
    /// `fix: 4 if x <= 3:`: line 4 of the buggy program becomes this, its indentation kept.
    #[default]
    Edit,
    /// The whole program in a ```` ```python ```` block.
    Program,
    /// A unified diff of the buggy program in a ```` ```diff ```` block.
    Diff,
}

/// What a completion says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The explanation; empty if there is none.
    pub rationale: String,
    /// The whole repaired program; empty if none could be read.
    pub fix: String,
}

/// Reads a completion: the rationale up to `fix:` or the code block, then the fix applied to `buggy`.
pub fn parse(completion: &str, buggy: &str, format: FixFormat, with_rationale: bool) -> Answer {
    match format {
        FixFormat::Edit => {
            let (rationale, edit) = if with_rationale {
                completion.split_once("\nfix:").unwrap_or((completion, ""))
            } else {
                ("", completion.strip_prefix("fix:").unwrap_or(completion))
            };
            Answer { rationale: rationale.trim().to_owned(), fix: apply_edit(buggy, edit).unwrap_or_default() }
        }
        FixFormat::Program | FixFormat::Diff => {
            let (rationale, rest) = completion.split_once("```").unwrap_or((completion, ""));
            let body = rest.split_once('\n').map_or("", |(_language, body)| body);
            let body = body.split("```").next().unwrap_or_default();
            let fix = match format {
                FixFormat::Diff => patch::apply(buggy, body).unwrap_or_default(),
                _ => body.to_owned(),
            };
            Answer { rationale: rationale.trim().to_owned(), fix }
        }
    }
}

/// Replaces one line: `edit` is `NUMBER new text`; the line's indentation is kept. The `def` line stays.
fn apply_edit(buggy: &str, edit: &str) -> Option<String> {
    let (number, code) = edit.trim().split_once(' ')?;
    let index = number.parse::<usize>().ok()?.checked_sub(1)?;
    let mut lines: Vec<String> = buggy.lines().map(str::to_owned).collect();
    let line = lines.get_mut(index)?;
    let indent = line.len() - line.trim_start().len();
    if code.contains('\n') || code.trim().is_empty() {
        return None;
    }
    line.replace_range(indent.., code.trim());
    let mut program = lines.join("\n");
    program.push('\n');
    Some(program)
}

/// The completion that a demonstration stands for.
pub fn demonstration(rationale: &str, fix: &str, format: FixFormat, with_rationale: bool) -> String {
    let start = if with_rationale { up_to_fix(rationale, format) } else { before_fix(format).to_owned() };
    match format {
        FixFormat::Edit => format!("{start} {fix}"),
        FixFormat::Program | FixFormat::Diff => format!("{start}{fix}```"),
    }
}

/// A completion with this rationale, up to where its fix begins.
pub fn up_to_fix(rationale: &str, format: FixFormat) -> String {
    match format {
        FixFormat::Edit => format!(" {rationale}\nfix:"),
        FixFormat::Program | FixFormat::Diff => format!("{rationale}\n{}", before_fix(format)),
    }
}

fn before_fix(format: FixFormat) -> &'static str {
    match format {
        FixFormat::Edit => "",
        FixFormat::Program => "```python\n",
        FixFormat::Diff => "```diff\n",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUGGY: &str = "def f(x):\n    if x > 3:\n        return 1\n    return 0\n";

    #[test]
    fn an_edit_keeps_the_indentation() {
        let answer = parse(" x=3 is left out.\nfix: 2 if x >= 3:", BUGGY, FixFormat::Edit, true);
        assert_eq!(answer.rationale, "x=3 is left out.");
        assert_eq!(answer.fix, "def f(x):\n    if x >= 3:\n        return 1\n    return 0\n");
    }

    #[test]
    fn a_completion_without_a_fix_gives_an_empty_one() {
        for completion in ["", " no idea", "\nfix:", "\nfix: 9 return", "\nfix: x y", "\nfix: 2", "\nfix: 0 x"] {
            assert_eq!(parse(completion, BUGGY, FixFormat::Edit, true).fix, "", "{completion:?}");
        }
    }

    #[test]
    fn a_program_is_read_from_its_block() {
        let answer = parse("because\n```python\nx = 1\n```\n", BUGGY, FixFormat::Program, true);
        assert_eq!((answer.rationale.as_str(), answer.fix.as_str()), ("because", "x = 1\n"));
    }

    #[test]
    fn a_demonstration_parses_back() {
        let text = demonstration("x=3 is left out.", "2 if x >= 3:", FixFormat::Edit, true);
        assert!(parse(&text, BUGGY, FixFormat::Edit, true).fix.contains("x >= 3"));
        let text = demonstration("", "2 if x >= 3:", FixFormat::Edit, false);
        assert!(parse(&text, BUGGY, FixFormat::Edit, false).fix.contains("x >= 3"));
        let (diff, fixed) = ("@@ -2 +2 @@\n-    if x > 3:\n+    if x >= 3:\n", BUGGY.replace('>', ">="));
        for (format, fix) in [(FixFormat::Program, fixed.as_str()), (FixFormat::Diff, diff)] {
            for rationale in ["", "x=3 is left out."] {
                let text = demonstration(rationale, fix, format, !rationale.is_empty());
                let expected = Answer { rationale: rationale.to_owned(), fix: fixed.clone() };
                assert_eq!(parse(&text, BUGGY, format, true), expected, "{format:?}");
            }
        }
    }

    #[test]
    fn a_diff_is_read_from_its_block() {
        let text =
            demonstration("x=3 is left out.", "@@ -2 +2 @@\n-    if x > 3:\n+    if x >= 3:\n", FixFormat::Diff, true);
        let answer = parse(&text, BUGGY, FixFormat::Diff, true);
        assert_eq!((answer.rationale.as_str(), answer.fix), ("x=3 is left out.", BUGGY.replace('>', ">=")));
        assert_eq!(parse("```diff\n@@ -2 +2 @@\n-nothing\n```", BUGGY, FixFormat::Diff, true).fix, "");
    }
}
