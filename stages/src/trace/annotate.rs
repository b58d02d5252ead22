//! Writes a trace into its program: NExT's inline form (arXiv:2404.14662, section 3 and figure 2).
//!
//! `# (k) name=value;` follows the line that made the state, k counting all state changes of the run from 0. A line
//! visited often keeps its first and last visits, with `...;` between: the paper's figures do not settle how many, nor
//! whether loops or lines are counted, so lines are, and both numbers are parameters.
//!
//! Over budget the middle of loops goes first, then the code that was not executed, then what is farthest from the
//! failure, which is where the run ends. `# ... lines 12-80: not executed` stands for lines that are left out.

use std::collections::{BTreeMap, HashSet};

use super::forms::fewest_left_out;
use super::run::{Block, Run};

/// How much of a line's visits is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visits {
    /// Kept from the start.
    pub first: usize,
    /// Kept at the end.
    pub last: usize,
}

/// The fewest visits that show that a line ran.
const LAST_VISIT: Visits = Visits { first: 0, last: 1 };

/// Which code is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    All,
    /// Without functions and classes in which nothing ran.
    Executed,
    /// The functions that ran alone, with the headers of what they stand in.
    Functions,
}

/// The program with its trace, short enough that it `fits`, and whether steps had to be left out for that beyond the
/// middle visits of lines. The function in which the run ended is shown in any case.
pub fn annotate(source: &str, run: &Run, visits: Visits, fits: &dyn Fn(&str) -> bool) -> (String, bool) {
    let page = Page::new(source, run);
    let codes = [Code::All, Code::Executed, Code::Functions];
    let narrower = [visits, Visits { first: 1, last: 1 }, LAST_VISIT];
    for (code, visits) in codes.iter().flat_map(|&code| narrower.map(|visits| (code, visits))) {
        let text = page.write(code, visits, 0);
        if fits(&text) {
            return (text, false);
        }
    }
    // With no step left there is a code that fits, or the last function is all there is.
    let code = codes.into_iter().find(|&code| fits(&page.write(code, LAST_VISIT, page.texts.len())));
    let write = |from| page.write(code.unwrap_or(Code::Functions), LAST_VISIT, from);
    let from = fewest_left_out(page.texts.len(), |from| fits(&write(from)));
    (write(from), true)
}

/// What a page is written from.
struct Page<'a> {
    lines: Vec<&'a str>,
    blocks: Vec<&'a Block>,
    marks: &'a [String],
    /// Line and text of each numbered step.
    texts: Vec<(usize, String)>,
    /// For each block, in the order of `blocks`, the last step in it or in what stands in it.
    last_steps: Vec<Option<usize>>,
}

impl<'a> Page<'a> {
    fn new(source: &'a str, run: &'a Run) -> Self {
        let blocks: Vec<&Block> = run.blocks.iter().collect();
        let mut last_steps = vec![None; blocks.len()];
        let mut texts = Vec::new();
        for step in run.changes() {
            for (block, last) in blocks.iter().zip(&mut last_steps) {
                if (block.first..=block.last).contains(&step.line) {
                    *last = Some(texts.len());
                }
            }
            texts.push((step.line, format!("({}) {}", texts.len(), step.text())));
        }
        Self { lines: source.split('\n').collect(), blocks, marks: &run.marks, texts, last_steps }
    }

    /// The page without the steps before number `from`.
    fn write(&self, code: Code, visits: Visits, from: usize) -> String {
        let mut by_line: BTreeMap<usize, Vec<Option<&str>>> = BTreeMap::new();
        for (number, (line, text)) in self.texts.iter().enumerate() {
            by_line.entry(*line).or_default().push((number >= from).then_some(text));
        }
        let shown = self.shown(code, from);
        let mut text = String::new();
        let mut line = 1;
        while line <= self.lines.len() {
            if line > 1 {
                text.push('\n');
            }
            let code = self.lines[line - 1];
            if let Some((last, why)) = self.hidden_from(line, &shown) {
                let indent = &code[..code.len() - code.trim_start().len()];
                text.extend([indent, &elision(line, last, why)]);
                line = last;
            } else if let Some(comment) = by_line.get(&line).and_then(|texts| comment(texts, visits)) {
                // The end of a logical line: spaces there are in no string.
                text.extend([code.trim_end_matches([' ', '\t']), "  # ", &comment]);
            } else {
                text.push_str(code);
            }
            line += 1;
        }
        if !self.marks.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        self.marks.iter().for_each(|mark| text.extend(["# ... ", mark, "\n"]));
        text
    }

    /// For each line whether it is shown, and if not, whether it was executed.
    fn shown(&self, code: Code, from: usize) -> Vec<Shown> {
        let called = self.last_steps.iter().any(Option::is_some);
        let start = if code == Code::Functions && called { Shown::Outside } else { Shown::Yes };
        let mut shown = vec![start; self.lines.len() + 1];
        if code == Code::All {
            return shown;
        }
        let end = self.last_steps.iter().copied().flatten().max();
        let kept = |last: &Option<usize>| last.is_some_and(|last| last >= from || Some(last) == end);
        // Outer blocks come first, so that what stands in them has the last word.
        let mut order: Vec<usize> = (0..self.blocks.len()).collect();
        order.sort_by_key(|&at| (self.blocks[at].first, std::cmp::Reverse(self.blocks[at].last)));
        for at in order {
            let (block, last) = (self.blocks[at], &self.last_steps[at]);
            let body = match (kept(last), last, block.is_class) {
                (true, _, false) => Shown::Yes,
                (true, _, true) => start,
                (false, Some(_), _) => Shown::Outside,
                (false, None, _) => Shown::NotExecuted,
            };
            shown[block.first..=block.last].fill(body);
            if kept(last) {
                shown[block.first..=block.header].fill(Shown::Yes);
            }
        }
        let stepped: HashSet<usize> = self.texts.iter().skip(from).map(|(line, _)| *line).collect();
        for line in stepped {
            shown[line] = Shown::Yes;
        }
        shown
    }

    /// The last of the hidden lines that begin at `line`, and whether all of them stand in what was not executed.
    fn hidden_from(&self, line: usize, shown: &[Shown]) -> Option<(usize, Shown)> {
        let hidden = |&at: &usize| shown[at] != Shown::Yes && at < self.lines.len();
        let blank = |at: usize| self.lines[at - 1].trim().is_empty();
        if !hidden(&line) || blank(line) {
            return None;
        }
        let mut last = line;
        let mut why = shown[line];
        for at in (line..self.lines.len()).take_while(|at| hidden(at) || blank(*at)).filter(|&at| !blank(at)) {
            last = at;
            why = if shown[at] == Shown::Outside { Shown::Outside } else { why };
        }
        Some((last, why))
    }
}

/// Whether a line is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Yes,
    NotExecuted,
    /// Not in a function on the way to the failure.
    Outside,
}

fn elision(first: usize, last: usize, why: Shown) -> String {
    let why = if why == Shown::NotExecuted { "not executed" } else { "left out" };
    if first == last { format!("# ... line {first}: {why}") } else { format!("# ... lines {first}-{last}: {why}") }
}

/// The last line that a note like `# ... lines 12-80: not executed` stands for.
pub fn elided_until(text: &str) -> Option<usize> {
    let (lines, _) = text.trim_start().strip_prefix("# ... line")?.split_once(": ")?;
    let lines = lines.strip_prefix('s').unwrap_or(lines).trim_start();
    lines.rsplit_once('-').map_or(lines, |(_, last)| last).parse().ok()
}

/// A line's comment; `None` stands for a visit that is left out anyway.
fn comment(texts: &[Option<&str>], Visits { first, last }: Visits) -> Option<String> {
    let (head, tail) =
        if texts.len() <= first + last { (texts, &[][..]) } else { (&texts[..first], &texts[texts.len() - last..]) };
    let gap = if tail.is_empty() { &[][..] } else { &[None][..] };
    let mut parts: Vec<&str> = [head, gap, tail].concat().iter().map(|text| text.unwrap_or("...;")).collect();
    parts.dedup_by(|next, previous| *next == "...;" && *previous == "...;");
    parts.iter().any(|part| *part != "...;").then(|| parts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::super::run::Step;
    use super::*;

    const VISITS: Visits = Visits { first: 2, last: 1 };

    fn run(lines: &[usize], blocks: &[(usize, usize, bool)]) -> Run {
        let change = |line: usize| vec![("x".to_owned(), line.to_string())];
        let block = |&(first, last, is_class): &(usize, usize, bool)| Block {
            first,
            line: first,
            header: first,
            last,
            is_class,
            name: "f".to_owned(),
        };
        Run {
            steps: lines.iter().map(|&line| Step { line, changes: change(line), ..Step::default() }).collect(),
            blocks: blocks.iter().map(block).collect(),
            ..Run::default()
        }
    }

    fn within(source: &str, run: &Run, budget: usize) -> (String, bool) {
        annotate(source, run, VISITS, &|text| text.chars().count() <= budget)
    }

    #[test]
    fn three_visits_are_kept_and_of_four_the_third_is_left_out() {
        let (text, cut) = within("a\nb\n", &run(&[1, 2, 2, 1, 1, 2, 2], &[]), 1000);
        assert_eq!(text, "a  # (0) x=1; (3) x=1; (4) x=1;\nb  # (1) x=2; (2) x=2; ...; (6) x=2;\n");
        assert!(!cut);
    }

    #[test]
    fn a_small_budget_drops_the_middle_first_then_what_is_far_from_the_end_and_the_program_never() {
        let many = run(&[1, 2, 2, 2, 2, 2], &[]);
        assert_eq!(within("a\nb\n", &many, 50), ("a  # (0) x=1;\nb  # (1) x=2; ...; (5) x=2;\n".to_owned(), false));
        assert_eq!(within("a\nb\n", &many, 35), ("a  # (0) x=1;\nb  # ...; (5) x=2;\n".to_owned(), false));
        assert_eq!(within("a\nb\n", &many, 25), ("a\nb  # ...; (5) x=2;\n".to_owned(), true));
        assert_eq!(within("a\nb\n", &many, 3), ("a\nb\n".to_owned(), true));
    }

    #[test]
    fn of_a_long_program_the_functions_on_the_way_to_the_failure_are_shown() {
        let source = "import m\nX = 'a text of some length, as tables of constants are'\n\n\ndef g():\n    pass; pass; pass; pass; pass; pass; pass; pass\n\ndef h():\n    h1\n    h2\n\nclass C:\n    y = 1\n    def i():\n        pass; pass; pass; pass; pass; pass; pass; pass\n\n    def f():\n        f1\n";
        let run =
            run(&[17, 9, 10, 18], &[(5, 6, false), (8, 10, false), (12, 18, true), (14, 15, false), (17, 18, false)]);
        let (text, cut) = within(source, &run, 253);
        assert_eq!(
            (text.as_str(), cut),
            (
                "import m\nX = 'a text of some length, as tables of constants are'\n\n\n# ... lines 5-6: not executed\n\ndef h():\n    h1  # (1) x=9;\n    h2  # (2) x=10;\n\nclass C:\n    y = 1\n    # ... lines 14-15: not executed\n\n    def f():  # (0) x=17;\n        f1  # (3) x=18;\n",
                false
            )
        );
        let (text, cut) = within(source, &run, 168);
        assert_eq!(
            (text.as_str(), cut),
            (
                "# ... lines 1-6: left out\n\ndef h():\n    h1  # (1) x=9;\n    h2  # (2) x=10;\n\nclass C:\n    # ... lines 13-15: left out\n\n    def f():  # (0) x=17;\n        f1  # (3) x=18;\n",
                false
            )
        );
        let last = "# ... lines 1-10: left out\n\nclass C:\n    # ... lines 13-15: left out\n\n    def f():\n        f1  # (3) x=18;\n";
        assert_eq!(within(source, &run, 120), (last.to_owned(), true));
        assert_eq!(within(source, &run, 10), (last.replace("  # (3) x=18;", ""), true));
    }

    #[test]
    fn a_note_says_how_far_it_goes() {
        assert_eq!(elided_until("    # ... lines 12-80: not executed"), Some(80));
        assert_eq!(elided_until(&elision(7, 7, Shown::Outside)), Some(7));
        assert_eq!(elided_until("# ... stopped after 10 statements"), None);
    }

    #[test]
    fn a_comment_takes_the_place_of_trailing_spaces() {
        assert_eq!(within("a  \n", &run(&[1], &[]), 100).0, "a  # (0) x=1;\n");
    }
}
