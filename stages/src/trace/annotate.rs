//! Writes a trace into its program: NExT's inline form (arXiv:2404.14662, section 3 and figure 2).
//!
//! `# (k) name=value;` follows the line that made the state, k counting all state changes of the run from 0. A line
//! visited often keeps its first and last visits, with `...;` between.

use std::collections::BTreeMap;

/// One state change, in the order of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The 1-based physical line that its comment follows.
    pub line: usize,
    /// E.g. `a=1; b=2;`.
    pub text: String,
}

/// How much of a line's visits is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visits {
    /// Kept from the start.
    pub first: usize,
    /// Kept at the end.
    pub last: usize,
}

/// The program with its trace, in at most `budget_chars` characters, and whether that took more than leaving out
/// middle visits: then comments are cut from the longest down, and at worst the program stands alone.
pub fn annotate(source: &str, steps: &[Step], visits: Visits, budget_chars: usize) -> (String, bool) {
    let mut by_line: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (number, step) in steps.iter().enumerate() {
        by_line.entry(step.line).or_default().push(format!("({number}) {}", step.text));
    }
    let narrower = [visits, Visits { first: 1, last: 1 }, Visits { first: 0, last: 1 }];
    for visits in narrower {
        let comments: BTreeMap<usize, String> =
            by_line.iter().map(|(&line, texts)| (line, comment(texts, visits))).collect();
        let text = splice(source, &comments);
        if text.chars().count() <= budget_chars {
            return (text, false);
        }
    }
    let mut comments: BTreeMap<usize, String> =
        by_line.iter().map(|(&line, texts)| (line, comment(texts, narrower[2]))).collect();
    loop {
        let longest = comments.iter().max_by_key(|(line, text)| (text.chars().count(), **line)).map(|(&line, _)| line);
        let Some(line) = longest else { return (source.to_owned(), true) };
        comments.remove(&line);
        let text = splice(source, &comments);
        if text.chars().count() <= budget_chars {
            return (text, true);
        }
    }
}

fn comment(texts: &[String], visits: Visits) -> String {
    let Visits { first, last } = visits;
    if texts.len() <= first + last {
        return texts.join(" ");
    }
    let (head, tail) = (&texts[..first], &texts[texts.len() - last..]);
    let middle = ["...;".to_owned()];
    head.iter().chain(&middle).chain(tail).map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn splice(source: &str, comments: &BTreeMap<usize, String>) -> String {
    let mut text = String::with_capacity(source.len() * 2);
    for (index, line) in source.split('\n').enumerate() {
        if index > 0 {
            text.push('\n');
        }
        match comments.get(&(index + 1)) {
            // The end of a logical line: spaces there are in no string.
            Some(comment) => text.extend([line.trim_end_matches([' ', '\t']), "  # ", comment]),
            None => text.push_str(line),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const VISITS: Visits = Visits { first: 2, last: 1 };

    fn steps(lines: &[usize]) -> Vec<Step> {
        lines.iter().map(|&line| Step { line, text: format!("x={line};") }).collect()
    }

    #[test]
    fn three_visits_are_kept_and_of_four_the_third_is_left_out() {
        let (text, cut) = annotate("a\nb\n", &steps(&[1, 2, 2, 1, 1, 2, 2]), VISITS, 1000);
        assert_eq!(text, "a  # (0) x=1; (3) x=1; (4) x=1;\nb  # (1) x=2; (2) x=2; ...; (6) x=2;\n");
        assert!(!cut);
    }

    #[test]
    fn a_small_budget_drops_the_middle_first_and_the_program_never() {
        let many = steps(&[1, 2, 2, 2, 2, 2]);
        let (text, cut) = annotate("a\nb\n", &many, VISITS, 50);
        assert_eq!((text.as_str(), cut), ("a  # (0) x=1;\nb  # (1) x=2; ...; (5) x=2;\n", false));
        let (text, cut) = annotate("a\nb\n", &many, VISITS, 20);
        assert_eq!((text.as_str(), cut), ("a  # (0) x=1;\nb\n", true));
        assert_eq!(annotate("a\nb\n", &many, VISITS, 1), ("a\nb\n".to_owned(), true));
    }
}
