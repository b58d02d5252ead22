//! The one renderer and parser of prompts, for sample, train and model alike.
//!
//! A template (Jinja, through minijinja) sees the row's columns and writes what the model reads. A *document* template
//! may hold the line `<|completion|>`: what stands before it is context, what follows is what the model learns to
//! write.

mod answer;
mod fences;
mod indentation;
mod lexer;
mod view;

use std::path::Path;
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;
use tracetune_engine::stage::{Setup, StageError};
use tracetune_engine::statistics::splitmix64;

pub use answer::{
    Answer, FixFormat, before_fix, demonstration, parse, up_to_end_of_fix, up_to_fix, with_closing_fence,
};
pub use view::{Line, Step, View};

/// Separates context from target in a document template.
pub const COMPLETION_MARK: &str = "<|completion|>";

/// The templates that ship with the program: name after `builtin:`, text.
pub const BUILTIN: &[(&str, &str)] = &[
    ("repair", include_str!("../../../pipelines/prompts/repair.j2")),
    ("repair-chat", include_str!("../../../pipelines/prompts/repair-chat.j2")),
];

/// Settings a template can ask for, beside the row.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Settings {
    /// Whether the model explains before it repairs.
    pub rationale: bool,
    /// Whether execution is shown.
    pub trace: bool,
    /// How the fix is asked for: `edit`, `program` or `diff`.
    pub fix_format: FixFormat,
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
        if !name.starts_with("builtin:") && setup.resolve(name).is_file() {
            setup.watch(name)?;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

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
                let settings = Settings {
                    rationale: true,
                    trace: true,
                    fix_format: FixFormat::Program,
                    exemplars: vec![view.clone()],
                };
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
        let settings = Settings { rationale: true, trace: true, fix_format: FixFormat::Program, exemplars: Vec::new() };
        assert_eq!(
            template.render(&view, &settings, 0).unwrap(),
            "# the value itself\n1 def f(x): # (0) x=1;\n2  return x + 1 # (1) __return__=2;\n# assert f(1) == 1 got 2\nwhy:"
        );
    }

    #[test]
    fn the_chat_prompt_reads_as_documented() {
        let view = |program: &str, fix: &str| View {
            instruction: "the value itself".to_owned(),
            tests: vec!["assert f(1) == 1".to_owned()],
            test: "assert f(1) == 1".to_owned(),
            got: "2".to_owned(),
            rationale: "It adds 1.".to_owned(),
            fix: fix.to_owned(),
            ..View::of_program(program, "")
        };
        let template = Template::load("builtin:repair-chat", Path::new(".")).unwrap();
        let settings = |rationale, fix_format| Settings { rationale, trace: false, fix_format, exemplars: Vec::new() };
        let (program, fix) = ("def f(x):\n    return x + 1\n", "def f(x):\n    return x\n");
        let task = "### Task\nthe value itself\n\n### Buggy program\n```python\ndef f(x):\n    return x + 1\n```\n\
                    ### Tests\nassert f(1) == 1\n### Repair\n";
        // Programs with an end of the last line and without read the same.
        for (program, fix) in [(program, fix), (program.trim_end(), fix.trim_end())] {
            let view = view(program, fix);
            let exemplars = vec![view.clone()];
            let settings = Settings { exemplars, ..settings(true, FixFormat::Program) };
            let shown = format!(
                "Repair the buggy program. First explain step by step why it fails its tests. Then write the whole repaired \
                 program in one ```python block.\n\n{task}It adds 1.\n```python\ndef f(x):\n    return x\n```\n\n{task}"
            );
            assert_eq!(template.render(&view, &settings, 0).unwrap(), shown);
        }
        for (fix_format, what) in [
            (FixFormat::Diff, "a unified diff of the repaired program in one ```diff block"),
            (
                FixFormat::Edit,
                "`fix: NUMBER LINE`, where NUMBER is the number of the wrong line, counted from 1, and LINE its repaired text",
            ),
        ] {
            let rendered = template.render(&view(program, fix), &settings(false, fix_format), 0).unwrap();
            assert_eq!(rendered, format!("Repair the buggy program. Write only {what}.\n\n{task}"));
        }
    }

    #[test]
    fn two_spaces_and_tabs_are_shown_like_four_spaces() {
        let template = Template::load("builtin:repair", Path::new(".")).unwrap();
        let settings = Settings { rationale: true, trace: false, fix_format: FixFormat::Edit, exemplars: Vec::new() };
        let shown = |indent: &str| {
            let program = "def f(x):\n>if x:\n>>return 1\n>return 0\n".replace('>', indent);
            template.render(&View::of_program(&program, ""), &settings, 0).unwrap()
        };
        assert_eq!(shown("    "), "# \n1 def f(x):\n2  if x:\n3   return 1\n4  return 0\n# \nwhy:");
        for indent in [" ", "  ", "\t"] {
            assert_eq!(shown(indent), shown("    "), "{indent:?}");
        }
    }

    #[test]
    fn an_edit_that_changes_nothing_leaves_the_programs_of_mbpp_as_they_are() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/mbpp.jsonl");
        let Ok(text) = fs_err::read_to_string(path) else { return };
        for line in text.lines() {
            let problem: serde_json::Value = serde_json::from_str(line).unwrap();
            let program = problem["code"].as_str().unwrap();
            let view = View::of_program(program, "");
            assert_eq!(view.lines.len(), program.lines().count());
            for Line { number, code, .. } in view.lines.iter().filter(|line| !line.code.trim().is_empty()) {
                let fix = parse(&format!(" {number} {code}"), program, FixFormat::Edit, false).fix;
                assert_eq!(fix, program, "line {number}");
            }
        }
    }
}
