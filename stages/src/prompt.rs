//! The one renderer and parser of prompts, for sample, train and model alike.
//!
//! A template (Jinja, through minijinja) sees the row's columns and writes what the model reads. A *document* template
//! may hold the line `<|completion|>`: what stands before it is context, what follows is what the model learns to
//! write.

use std::path::Path;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, UndefinedBehavior};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::stage::{Setup, StageError};

use crate::patch;
use crate::trace::elided_until;

/// Separates context from target in a document template.
pub const COMPLETION_MARK: &str = "<|completion|>";

/// The templates that ship with the program: name after `builtin:`, text.
pub const BUILTIN: &[(&str, &str)] = &[
    ("repair", include_str!("../../pipelines/prompts/repair.j2")),
    ("repair-chat", include_str!("../../pipelines/prompts/repair-chat.j2")),
];

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
    /// Levels of four spaces.
    pub level: usize,
    /// The code without indentation.
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
        for (index, line) in program.lines().enumerate() {
            let number = index + 1;
            if number <= left_out {
                continue;
            }
            let annotated = shown.next().filter(|shown| *shown != line);
            let code = line.trim_start();
            let level = (line.len() - code.len()).div_ceil(4);
            if let Some(last) = annotated.and_then(elided_until) {
                left_out = last;
                let note = annotated.unwrap_or_default().trim_start().to_owned();
                lines.push(Line { number, level, code: note, ..Line::default() });
                continue;
            }
            let comment = annotated.and_then(|annotated| annotated.strip_prefix(line.trim_end()));
            let comment = comment.and_then(|rest| rest.trim_start().strip_prefix("# ")).unwrap_or_default();
            lines.push(Line {
                number,
                level,
                code: code.to_owned(),
                steps: steps(comment),
                comment: comment.to_owned(),
            });
        }
        let trace = if annotated.is_empty() { program } else { annotated };
        Self { lines, program: program.to_owned(), trace: trace.to_owned(), ..Self::default() }
    }
}

/// Settings a template can ask for, beside the row.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Settings {
    /// Whether the model explains before it repairs.
    pub rationale: bool,
    /// Whether execution is shown.
    pub trace: bool,
    /// Solved examples to show first.
    pub exemplars: Vec<View>,
}

/// A compiled template.
pub struct Template {
    environment: Environment<'static>,
    name: String,
}

impl Template {
    /// The text of `builtin:NAME`, or of a file below the project's root.
    ///
    /// # Errors
    /// No such template; the message names those there are.
    pub fn source(name: &str, root: &Path) -> Result<String, StageError> {
        if let Some(builtin) = name.strip_prefix("builtin:") {
            let found = BUILTIN.iter().find(|(known, _)| *known == builtin);
            return found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| {
                let known: Vec<String> = BUILTIN.iter().map(|(known, _)| format!("`builtin:{known}`")).collect();
                StageError::input(format!("there is no template `{name}`; there are {}", known.join(", ")))
            });
        }
        let path = root.join(name);
        std::fs::read_to_string(&path)
            .map_err(|error| StageError::input(format!("can't read the template `{}`: {error}", path.display())))
    }

    /// Loads and compiles a template.
    ///
    /// # Errors
    /// It can't be read, or its syntax is wrong; the message has the line.
    pub fn load(name: &str, root: &Path) -> Result<Self, StageError> {
        let source = Self::source(name, root)?;
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| StageError::input(format!("template syntax: {error:#}")))?);
        environment
            .add_template_owned(name.to_owned(), source)
            .map_err(|error| StageError::input(format!("template `{name}`: {error:#}")))?;
        Ok(Self { environment, name: name.to_owned() })
    }

    /// The part of the key that stands for the template's text.
    ///
    /// # Errors
    /// As [`Template::source`].
    pub fn key_part(name: &str, setup: &Setup) -> Result<(String, String), StageError> {
        let text = Self::source(name, setup.root)?;
        Ok((format!("template {name}"), blake3::hash(text.as_bytes()).to_hex().to_string()))
    }

    /// Renders the template for one row. `salt` addresses `pick(n)`, the template's random choice among `0..n`.
    ///
    /// # Errors
    /// The template uses a name that the row does not have.
    pub fn render(&self, view: &View, settings: &Settings, salt: u64) -> Result<String, StageError> {
        let failed = |error: minijinja::Error| StageError::input(format!("template `{}`: {error:#}", self.name));
        let template = self.environment.get_template(&self.name).map_err(failed)?;
        let draws = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let pick = Value::from_function(move |bound: u64| -> u64 {
            let draw = draws.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            splitmix64(salt.wrapping_add(draw.wrapping_mul(0x9e37_79b9_7f4a_7c15))) % bound.max(1)
        });
        template
            .render(minijinja::context! { settings => Serde(settings), pick => pick, ..Value::from(Serde(view)) })
            .map_err(failed)
    }
}

/// Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators": the output function.
pub fn splitmix64(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
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
    fn every_shipped_template_renders() {
        let view = View {
            instruction: "add".to_owned(),
            test: "assert f(1) == 2".to_owned(),
            got: "1".to_owned(),
            ..View::of_program(
                "def f(x):\n    y = x\n    return y\n",
                "def f(x):  # (0) x=1;\n    y = x  # (1) y=1;\n    return y  # (2) __return__=1;\n",
            )
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for name in ["repair", "repair-chat", "fill-traced", "fill-before", "fill-blind"] {
            let template = Template::load(&format!("pipelines/prompts/{name}.j2"), &root).unwrap();
            for salt in 0..20 {
                let settings = Settings { rationale: true, trace: true, exemplars: vec![view.clone()] };
                let text = template.render(&view, &settings, salt).unwrap();
                assert!(text.contains("add"), "{name}: {text}");
            }
        }
    }

    #[test]
    fn the_repair_prompt_reads_as_documented() {
        let view = View {
            instruction: "the value itself".to_owned(),
            test: "assert f(1) == 1".to_owned(),
            got: "2".to_owned(),
            ..View::of_program(
                "def f(x):\n    return x + 1\n",
                "def f(x):  # (0) x=1;\n    return x + 1  # (1) __return__=2;\n",
            )
        };
        let template = Template::load("builtin:repair", Path::new(".")).unwrap();
        let settings = Settings { rationale: true, trace: true, exemplars: Vec::new() };
        assert_eq!(
            template.render(&view, &settings, 0).unwrap(),
            "# the value itself\n1 def f(x): # (0) x=1;\n2  return x + 1 # (1) __return__=2;\n# assert f(1) == 1 got 2\nwhy:"
        );
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
