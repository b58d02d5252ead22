//! What a model writes: a rationale and a fix, read and written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fences::{Block, Page};
use crate::patch;

/// How a fix stands in a completion. Thoughts, up to `</think>`, are no part of what is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FixFormat {
    /// `fix: 4 if x <= 3:`: line 4 of the buggy program becomes this, its indentation kept. It is one line, with
    /// nothing or an empty line after it; what comes then is not read.
    #[default]
    Edit,
    /// The whole program in a fenced block, ```` ```python ````: the last complete block that defines a function or class
    /// of the buggy program; if none does, the last complete block of Python, or without a language. A block that is never
    /// closed is no fix, nor is code without a fence.
    Program,
    /// A unified diff of the buggy program in a ```` ```diff ```` block: the last complete one.
    Diff,
}

/// What a completion says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The explanation, which comes before the fix; empty if there is none.
    pub rationale: String,
    /// The whole repaired program; empty if none could be read.
    pub fix: String,
}

/// Reads a completion: the rationale, then the fix, applied to `buggy`.
pub fn parse(completion: &str, buggy: &str, format: FixFormat, with_rationale: bool) -> Answer {
    let page = Page::read(completion);
    let found = find(completion, &page, buggy, format, with_rationale);
    let rationale = completion[page.answer..found.start].trim().to_owned();
    let fix = match format {
        _ if found.end.is_none() => None,
        FixFormat::Edit => apply_edit(buggy, &found.text),
        FixFormat::Program => Some(found.text),
        FixFormat::Diff => patch::apply(buggy, &found.text),
    };
    Answer { rationale, fix: fix.unwrap_or_default() }
}

/// The completion up to the end of its fix, which is what a model should learn to write. A fence that a stop string cut
/// off is put back where the completion is known to have been read as a fix (`is_fix`).
pub fn up_to_end_of_fix(
    completion: &str,
    buggy: &str,
    format: FixFormat,
    with_rationale: bool,
    is_fix: bool,
) -> String {
    let page = Page::read(completion);
    match (find(completion, &page, buggy, format, with_rationale).end, page.blocks.last()) {
        (Some(end), _) => completion[..end].to_owned(),
        (None, Some(Block { end: None, .. })) if is_fix => with_closing_fence(completion, format),
        _ => completion.to_owned(),
    }
}

/// The completion as it was before a stop string cut off the fence that closes its block.
pub fn with_closing_fence(completion: &str, format: FixFormat) -> String {
    match Page::read(completion).blocks.last() {
        Some(Block { end: None, fence, .. }) if format != FixFormat::Edit => {
            let line_end = if completion.ends_with('\n') { "" } else { "\n" };
            format!("{completion}{line_end}{fence}")
        }
        _ => completion.to_owned(),
    }
}

/// Where a fix stands in a completion.
struct Found {
    /// Where it begins, its label or fence included: the rationale ends here.
    start: usize,
    /// The fix as it is written.
    text: String,
    /// Where it ends, its fence included; `None` if there is none.
    end: Option<usize>,
}

fn find(completion: &str, page: &Page, buggy: &str, format: FixFormat, with_rationale: bool) -> Found {
    let answer = &completion[page.answer..];
    if format == FixFormat::Edit {
        let label = edit_label(answer, with_rationale);
        let Some((start, edit)) = label else {
            return Found { start: completion.len(), text: String::new(), end: None };
        };
        let text = answer[edit..].trim_start();
        let mut lines = text.lines();
        let line = lines.next().unwrap_or_default().trim_end();
        // A model that goes on at once has not settled on an edit.
        let is_alone = lines.next().is_none_or(|next| next.trim().is_empty());
        let end = is_alone.then_some(completion.len() - text.len() + line.len());
        return Found { start: page.answer + start, text: line.to_owned(), end };
    }
    let found = match format {
        FixFormat::Diff => diff(page),
        _ => program(page, buggy),
    };
    match found {
        Some(block) => Found { start: block.start, text: block.body.clone(), end: block.end },
        None => {
            let start =
                page.blocks.last().filter(|block| block.end.is_none()).map_or(completion.len(), |open| open.start);
            Found { start, text: String::new(), end: None }
        }
    }
}

/// Where the line with the edit begins, and where its label ends. Without a rationale the label is the prompt's.
fn edit_label(answer: &str, with_rationale: bool) -> Option<(usize, usize)> {
    const LABEL: &str = "fix:";
    if answer.trim_start().starts_with(LABEL) {
        let start = answer.len() - answer.trim_start().len();
        return Some((start, start + LABEL.len()));
    }
    if !with_rationale {
        return Some((0, 0));
    }
    answer.find("\nfix:").map(|at| (at, at + 1 + LABEL.len()))
}

/// The block with the repaired program: the last complete one that defines what the buggy program does. Others quote a
/// line, show how to call it or what it prints.
fn program<'a>(page: &'a Page, buggy: &str) -> Option<&'a Block> {
    let names: Vec<&str> = definitions(buggy).collect();
    let python = || page.complete().filter(|block| block.is_python());
    python()
        .rfind(|block| definitions(&block.body).any(|name| names.contains(&name)))
        .or_else(|| python().rfind(|block| block.says_python()))
        .or_else(|| python().next_back())
}

fn diff(page: &Page) -> Option<&Block> {
    let says_diff = |block: &&Block| matches!(block.language.as_str(), "diff" | "patch" | "udiff");
    page.complete().rfind(says_diff).or_else(|| page.complete().rfind(|block| block.language.is_empty()))
}

/// The functions and classes of a program that stand in no other.
fn definitions(program: &str) -> impl Iterator<Item = &str> {
    program.lines().filter_map(|line| {
        let line = line.strip_prefix("async ").map_or(line, str::trim_start);
        let name = line.strip_prefix("def ").or_else(|| line.strip_prefix("class "))?.trim_start();
        let end = name.find(|letter: char| !(letter.is_alphanumeric() || letter == '_')).unwrap_or(name.len());
        (end > 0).then_some(&name[..end])
    })
}

/// Replaces the code of one line: `edit` is `NUMBER new text`. White space around it stays, as do all other lines.
fn apply_edit(buggy: &str, edit: &str) -> Option<String> {
    let (number, code) = edit.trim().split_once(' ')?;
    let index = number.parse::<usize>().ok()?.checked_sub(1)?;
    let code = code.trim();
    let mut lines: Vec<&str> = buggy.split_inclusive('\n').collect();
    let line = *lines.get(index)?;
    if code.is_empty() {
        return None;
    }
    let rest = line.trim_start_matches([' ', '\t', '\x0c']);
    let indent =
        if rest.trim().is_empty() { line.trim_end_matches(['\n', '\r']) } else { &line[..line.len() - rest.len()] };
    let end = &line[line.trim_end().len().max(indent.len())..];
    let changed = format!("{indent}{code}{end}");
    lines[index] = &changed;
    Some(lines.concat())
}

/// The completion that a demonstration stands for.
pub fn demonstration(rationale: &str, fix: &str, format: FixFormat, with_rationale: bool) -> String {
    let start = if with_rationale { up_to_fix(rationale, format) } else { before_fix(format).to_owned() };
    match format {
        FixFormat::Edit => format!("{start} {fix}"),
        FixFormat::Program | FixFormat::Diff => {
            let end = if fix.ends_with('\n') { "```" } else { "\n```" };
            format!("{start}{fix}{end}")
        }
    }
}

/// A completion with this rationale, up to where its fix begins.
pub fn up_to_fix(rationale: &str, format: FixFormat) -> String {
    match format {
        FixFormat::Edit => format!(" {rationale}\nfix:"),
        FixFormat::Program | FixFormat::Diff => format!("{rationale}\n{}", before_fix(format)),
    }
}

/// What opens a fix, after the rationale's end or the prompt's.
pub fn before_fix(format: FixFormat) -> &'static str {
    match format {
        FixFormat::Edit => "",
        FixFormat::Program => "```python\n",
        FixFormat::Diff => "```diff\n",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUGGY: &str = "def f(x):\n    if x > 3:\n        return 1\n    return 0\n";
    const FIXED: &str = "def f(x):\n    if x >= 3:\n        return 1\n    return 0\n";

    fn program(completion: &str) -> Answer {
        parse(completion, BUGGY, FixFormat::Program, true)
    }

    #[test]
    fn an_edit_keeps_the_indentation() {
        let answer = parse(" x=3 is left out.\nfix: 2 if x >= 3:", BUGGY, FixFormat::Edit, true);
        assert_eq!(answer.rationale, "x=3 is left out.");
        assert_eq!(answer.fix, FIXED);
    }

    #[test]
    fn an_edit_leaves_every_other_byte_alone() {
        let buggy = "def f(x):  \r\n\tif x > 3: \r\n\t  '''a\r\n   b'''\r\n\r\n\treturn (x,\r\n\t\t  1)";
        let edited = |edit: &str| parse(edit, buggy, FixFormat::Edit, false).fix;
        assert_eq!(edited("2 if x >= 3:"), buggy.replace('>', ">="));
        assert_eq!(edited("7 2)"), buggy.replace("1)", "2)"));
        for (number, line) in (1..).zip(buggy.lines()).filter(|(_, line)| !line.is_empty()) {
            assert_eq!(edited(&format!("{number} {line}")), buggy, "line {number}");
        }
    }

    #[test]
    fn what_follows_an_edit_after_an_empty_line_is_not_read() {
        let task = "\n\n# the next task\n1 def g(x):\n# g(1)\nwhy: because\nfix: 3 return 2\n";
        for more in ["\n", task, "\r\n \r\nDone."] {
            let completion = format!(" why\nfix: 2 if x >= 3:{more}");
            assert_eq!(parse(&completion, BUGGY, FixFormat::Edit, true).fix, FIXED, "{more:?}");
            let learned = up_to_end_of_fix(&completion, BUGGY, FixFormat::Edit, true, true);
            assert_eq!(learned, " why\nfix: 2 if x >= 3:", "{more:?}");
            let learned = up_to_end_of_fix(&completion[9..], BUGGY, FixFormat::Edit, false, true);
            assert_eq!(learned, " 2 if x >= 3:", "{more:?}");
        }
    }

    #[test]
    fn an_edit_of_several_lines_is_none() {
        for more in ["\nfix: 3 return 2", "\n        return 2\n\n# the next task"] {
            let completion = format!(" why\nfix: 2 if x >= 3:{more}");
            let answer = parse(&completion, BUGGY, FixFormat::Edit, true);
            assert_eq!((answer.rationale.as_str(), answer.fix.as_str()), ("why", ""), "{more:?}");
            assert_eq!(up_to_end_of_fix(&completion, BUGGY, FixFormat::Edit, true, false), completion, "{more:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_learned_says_the_same_fix(
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "```", "~~~", "````", "python", "diff", "markdown", "\n", "\n", "\r\n", "<think>", "</think>", "fix:", " ", "    ",
                    "2 y", "def f(x):", "x = 1", "@@ -1 +1 @@", "-def f(x):", "+def g(x):", "\"\"\"", "é", "1. ", "why", "`",
                ]),
                0..40,
            ),
            with_rationale: bool,
        ) {
            let completion = words.concat();
            for format in [FixFormat::Edit, FixFormat::Program, FixFormat::Diff] {
                let fix = parse(&completion, BUGGY, format, with_rationale).fix;
                let learned = up_to_end_of_fix(&completion, BUGGY, format, with_rationale, false);
                prop_assert!(completion.starts_with(&learned));
                prop_assert_eq!(parse(&learned, BUGGY, format, with_rationale).fix, fix);
            }
        }
    }

    #[test]
    fn a_completion_without_a_fix_gives_an_empty_one() {
        for completion in ["", " no idea", "\nfix:", "\nfix: 9 return", "\nfix: x y", "\nfix: 2", "\nfix: 0 x"] {
            assert_eq!(parse(completion, BUGGY, FixFormat::Edit, true).fix, "", "{completion:?}");
        }
    }

    #[test]
    fn a_program_is_read_from_its_block() {
        let answer = program("because\n```python\nx = 1\n```\n");
        assert_eq!((answer.rationale.as_str(), answer.fix.as_str()), ("because", "x = 1\n"));
    }

    #[test]
    fn a_line_that_the_rationale_quotes_is_not_the_fix() {
        for quote in ["```python\n    if x > 3:\n```", "```\nx > 3\n```", "~~~py\nreturn 1\n~~~", "```x > 3```"] {
            let rationale = format!("The condition\n{quote}\nleaves out 3.");
            for fence in ["python", "Python3", "py", ""] {
                let answer = program(&format!("{rationale}\n```{fence}\n{FIXED}```\nThat is all."));
                assert_eq!((answer.rationale.as_str(), answer.fix.as_str()), (rationale.as_str(), FIXED), "{quote}");
            }
        }
    }

    #[test]
    fn the_last_of_several_programs_is_the_fix() {
        let drafts = format!("First\n```python\n{BUGGY}```\nNo:\n```python\n{FIXED}```\n");
        assert_eq!(program(&drafts).fix, FIXED);
        assert_eq!(program("```python\nx = 1\n```\n```python\nx = 2\n```").fix, "x = 2\n");
    }

    #[test]
    fn what_follows_the_program_is_not_the_fix() {
        for more in [
            "Run it:\n```bash\npython3 f.py\n```",
            "Use it:\n```python\nprint(f(3))\n```",
            "It prints\n```\n1\n```",
            "```javascript\nfunction f(x) {}\n```",
            "### Task\nAdd.\n\n### Buggy program\n```python\ndef g(a):\n    return a\n```\n### Tests\n",
            "```python\ndef f(x):\n    # cut off",
        ] {
            let completion = format!("Because.\n```python\n{FIXED}```\n\n{more}");
            assert_eq!(program(&completion).fix, FIXED, "{more}");
            let learned = up_to_end_of_fix(&completion, BUGGY, FixFormat::Program, true, true);
            assert_eq!(learned, format!("Because.\n```python\n{FIXED}```"), "{more}");
        }
    }

    #[test]
    fn a_program_in_another_language_or_without_a_fence_is_no_fix() {
        for completion in [FIXED.to_owned(), format!("```rust\n{FIXED}```"), format!("`{FIXED}`")] {
            let answer = program(&completion);
            assert_eq!((answer.rationale.as_str(), answer.fix.as_str()), (completion.trim(), ""));
        }
    }

    #[test]
    fn a_program_that_is_cut_off_is_no_fix() {
        let answer = program("Because.\n```python\ndef f(x):\n    if x >= 3:\n");
        assert_eq!((answer.rationale.as_str(), answer.fix.as_str()), ("Because.", ""));
    }

    #[test]
    fn thoughts_are_neither_rationale_nor_fix() {
        let thought = format!("<think>\nMaybe\n```python\n{BUGGY}```\nfix: 1 x\n");
        let answer = program(&format!("{thought}</think>\nBecause.\n```python\n{FIXED}```"));
        assert_eq!((answer.rationale.as_str(), answer.fix.as_str()), ("Because.", FIXED));
        assert_eq!(program(&thought), Answer { rationale: String::new(), fix: String::new() });
        let answer = parse(&format!("{thought}</think> why\nfix: 2 if x >= 3:"), BUGGY, FixFormat::Edit, true);
        assert_eq!((answer.rationale.as_str(), answer.fix.as_str()), ("why", FIXED));
    }

    #[test]
    fn a_completion_is_learned_with_its_thoughts() {
        let completion = format!("<think>hm</think>Because.\n```python\n{FIXED}```");
        let learned = up_to_end_of_fix(&format!("{completion}\nmore"), BUGGY, FixFormat::Program, true, true);
        assert_eq!(learned, completion);
    }

    #[test]
    fn a_fence_that_a_stop_string_cut_off_is_put_back() {
        for cut in [FIXED, FIXED.trim_end()] {
            let completion = format!("Because.\n```python\n{cut}");
            let whole = format!("Because.\n```python\n{FIXED}```");
            assert_eq!(with_closing_fence(&completion, FixFormat::Program), whole);
            assert_eq!(up_to_end_of_fix(&completion, BUGGY, FixFormat::Program, true, true), whole);
            assert_eq!(up_to_end_of_fix(&completion, BUGGY, FixFormat::Program, true, false), completion);
        }
        assert_eq!(with_closing_fence(" why\nfix: 2 x", FixFormat::Edit), " why\nfix: 2 x");
    }

    #[test]
    fn a_demonstration_parses_back() {
        let text = demonstration("x=3 is left out.", "2 if x >= 3:", FixFormat::Edit, true);
        assert!(parse(&text, BUGGY, FixFormat::Edit, true).fix.contains("x >= 3"));
        let text = demonstration("", "2 if x >= 3:", FixFormat::Edit, false);
        assert!(parse(&text, BUGGY, FixFormat::Edit, false).fix.contains("x >= 3"));
        let diff = "@@ -2 +2 @@\n-    if x > 3:\n+    if x >= 3:\n";
        for (format, fix) in [(FixFormat::Program, FIXED), (FixFormat::Diff, diff)] {
            for (rationale, fix) in [("", fix), ("x=3 is left out.", fix), ("Because.", fix.trim_end())] {
                let text = demonstration(rationale, fix, format, !rationale.is_empty());
                let expected = Answer { rationale: rationale.to_owned(), fix: FIXED.to_owned() };
                assert_eq!(parse(&text, BUGGY, format, true), expected, "{format:?}");
                assert_eq!(up_to_end_of_fix(&text, BUGGY, format, true, true), text, "{format:?}");
            }
        }
    }

    #[test]
    fn the_fix_to_a_given_rationale_is_read_as_it_goes_on() {
        let diff = "@@ -2 +2 @@\n-    if x > 3:\n+    if x >= 3:\n```";
        let program = format!("{FIXED}```\n### Task");
        for (format, text) in
            [(FixFormat::Edit, " 2 if x >= 3:\n\n# next"), (FixFormat::Program, &program), (FixFormat::Diff, diff)]
        {
            let text = before_fix(format).to_owned() + text;
            assert_eq!(parse(&text, BUGGY, format, false).fix, FIXED, "{format:?}");
        }
    }

    #[test]
    fn a_diff_is_read_from_its_block() {
        let diff = "@@ -2 +2 @@\n-    if x > 3:\n+    if x >= 3:\n";
        let rationale = "The line\n```python\nif x > 3:\n```\nis wrong.";
        let completion = format!("{rationale}\n```diff\n{diff}```\n```python\n{BUGGY}```\n");
        let answer = parse(&completion, BUGGY, FixFormat::Diff, true);
        assert_eq!((answer.rationale.as_str(), answer.fix.as_str()), (rationale, FIXED));
        assert_eq!(parse("```diff\n@@ -2 +2 @@\n-nothing\n```", BUGGY, FixFormat::Diff, true).fix, "");
    }
}
