//! Execution facts that a rationale states, held against the trace of its row.
//!
//! A fact is `at (k) name=value`: what the step numbered k of the trace changed. A fix may pass all tests although its
//! rationale made the facts up, and training on such rationales teaches to write numbers, not to read the trace. Prose
//! of other forms (`x is 5 after the loop`) states nothing that can be checked here, and counts as stating no fact.

use std::collections::BTreeMap;

/// What a rationale says of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact<'a> {
    /// The step's number.
    pub step: usize,
    /// What it changed.
    pub name: &'a str,
    /// The value as it was written.
    pub value: &'a str,
}

/// Steps of a trace by their numbers: what each changed, as names and texts of values.
pub type Steps<'a> = BTreeMap<usize, Vec<(&'a str, &'a str)>>;

/// The facts that a text states, in their order.
pub fn stated(text: &str) -> Vec<Fact<'_>> {
    let mut facts = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find('(') {
        let before = rest[..open].trim_end().to_ascii_lowercase();
        let before = before.strip_suffix("step").map_or(before.as_str(), str::trim_end);
        let is_at = before.strip_suffix("at").is_some_and(|word| !word.ends_with(|last: char| last.is_alphanumeric()));
        rest = &rest[open..];
        match numbered(rest).filter(|_| is_at).and_then(|(step, after)| fact(step, after)) {
            Some((fact, after)) => {
                facts.push(fact);
                rest = after;
            }
            None => rest = &rest[1..],
        }
    }
    facts
}

/// The steps that an inline trace (NExT, arXiv:2404.14662, section 3) shows: `# (k) name=value; name=value;`.
pub fn steps(trace: &str) -> Steps<'_> {
    let mut steps = Steps::new();
    for line in trace.lines() {
        let comments = line.match_indices("# (").map(|(at, _)| &line[at + 2..]);
        let Some(mut rest) = comments.into_iter().find(|comment| numbered(comment).is_some()) else { continue };
        let mut step = None;
        while !rest.is_empty() {
            if let Some((number, after)) = numbered(rest) {
                step = Some(number);
                rest = after.trim_start();
                continue;
            }
            let change = until_semicolon(rest);
            if let (Some(step), Some((name, value))) = (step, change.split_once('=')) {
                steps.entry(step).or_default().push((name.trim(), value));
            }
            rest = rest[change.len()..].trim_start_matches(';').trim_start();
        }
    }
    steps
}

impl Fact<'_> {
    /// Whether the trace shows it. Of a value that the trace cuts short (`...`) what is shown must agree.
    pub fn holds(&self, steps: &Steps) -> bool {
        let changes = steps.get(&self.step).map(Vec::as_slice).unwrap_or_default();
        changes.iter().any(|(name, value)| {
            let (stated, shown) = (without_spaces(self.value), without_spaces(value));
            let cut = shown.find("...").map(|at| &shown[..at]);
            *name == self.name && (stated == shown || cut.is_some_and(|cut| stated.starts_with(cut)))
        })
    }
}

/// `(12) rest` as 12 and the rest.
fn numbered(text: &str) -> Option<(usize, &str)> {
    let (number, rest) = text.strip_prefix('(')?.split_once(')')?;
    Some((number.parse().ok()?, rest))
}

/// The fact after its step's number, and what follows it.
fn fact(step: usize, text: &str) -> Option<(Fact<'_>, &str)> {
    let text = text.trim_start_matches([' ', ',', ':', '`']);
    let end = text.find(|part: char| !(part.is_alphanumeric() || "_.[]'\"".contains(part))).unwrap_or(text.len());
    let (name, text) = text.split_at(end);
    if !name.starts_with(|first: char| first.is_alphabetic() || first == '_') {
        return None;
    }
    let text = text.trim_start_matches(['`', ' ']);
    let after = ["==", "=", "is ", "was ", "becomes ", "equals "].iter().find_map(|word| text.strip_prefix(word))?;
    let after = after.trim_start_matches(['`', ' ']);
    let value = &after[..literal(after)?];
    Some((Fact { step, name, value }, &after[value.len()..]))
}

/// The length of the literal that a text begins with, as a trace would show it.
fn literal(text: &str) -> Option<usize> {
    let first = text.chars().next()?;
    let word = |part: char| part.is_alphanumeric() || part == '_';
    if first.is_ascii_digit() || first == '-' {
        let digits = |text: &str| text.find(|part: char| !part.is_ascii_digit()).unwrap_or(text.len());
        let sign = usize::from(first == '-');
        let whole = sign + digits(&text[sign..]);
        let fraction = text[whole..].strip_prefix('.').map_or(0, digits);
        return (whole > sign).then_some(if fraction > 0 { whole + 1 + fraction } else { whole });
    }
    if "'\"([{<".contains(first) {
        return group(text);
    }
    let name = text.find(|part: char| !(word(part) || part == '.')).unwrap_or(text.len());
    match &text[..name] {
        "True" | "False" | "None" => Some(name),
        // `Point(x=1)`, `ValueError('no')`, `b'bytes'`.
        _ if name > 0 && text[name..].starts_with(['(', '\'', '"']) => Some(name + group(&text[name..])?),
        _ => None,
    }
}

/// The length of a quoted or bracketed text, to its end.
fn group(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut quote = None;
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match (quote, letter) {
            (Some(_), '\\') => _ = letters.next(),
            (Some(open), _) if letter == open => {
                quote = None;
                if depth == 0 {
                    return Some(at + letter.len_utf8());
                }
            }
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(letter),
            (None, '(' | '[' | '{' | '<') => depth += 1,
            (None, ')' | ']' | '}' | '>') => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// What stands before the first `;` outside quotes and brackets.
fn until_semicolon(text: &str) -> &str {
    let mut at = 0;
    while let Some(letter) = text[at..].chars().next() {
        match letter {
            ';' => return &text[..at],
            '\'' | '"' | '(' | '[' | '{' => at += group(&text[at..]).unwrap_or(1),
            _ => at += letter.len_utf8(),
        }
    }
    text
}

fn without_spaces(value: &str) -> String {
    let mut quote = None;
    let spaces = |letter: &char| {
        match quote {
            Some(open) if *letter == open => quote = None,
            None if ['\'', '"'].contains(letter) => quote = Some(*letter),
            _ => {}
        }
        quote.is_some() || *letter != ' '
    };
    value.chars().filter(spaces).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "def f(n, s='# no'):  # (0) n=2; s='a; (9) n=3;';\n    \
                         for i in range(n):  # (1) i=0; (3) i=1; ...; (10) i=3;\n        \
                         out.append(i)  # (2) out=[0, {'k': (1, 2)}]; total=-1.5; (4) x deleted;\n    \
                         return out  # (5) __return__=[0, 1, ...+7];\n";

    fn checked(rationale: &str) -> Vec<bool> {
        let steps = steps(TRACE);
        stated(rationale).iter().map(|fact| fact.holds(&steps)).collect()
    }

    #[test]
    fn a_step_has_what_it_changed() {
        let steps = steps(TRACE);
        assert_eq!(steps[&0], [("n", "2"), ("s", "'a; (9) n=3;'")]);
        assert_eq!(steps[&2], [("out", "[0, {'k': (1, 2)}]"), ("total", "-1.5")]);
        assert_eq!(steps.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3, 5, 10]);
    }

    #[test]
    fn a_fact_is_true_where_the_trace_shows_that_value_at_that_step() {
        assert_eq!(checked("at (3) i=1 should be 2"), [true]);
        assert_eq!(checked("At step (3), `i` is 0. at (1) i = 0, but at (11) i=3"), [false, true, false]);
        assert_eq!(checked("at (2) out = [0,{'k':(1,2)}] and at (2) total=-1.5."), [true, true]);
        assert_eq!(checked("at (5) __return__=[0, 1, 4] is not the last turn"), [true]);
        assert_eq!(checked("at (5) __return__=[0, 2, 4]"), [false]);
        assert_eq!(checked("at (0) s='a; (9) n=3;'"), [true]);
    }

    #[test]
    fn what_names_no_value_states_no_fact() {
        for rationale in
            ["", "line 3 should add i", "at (3) the loop ends", "that (3) i=1", "at (3) i is too large", "at (3) i=["]
        {
            assert!(stated(rationale).is_empty(), "{rationale}");
        }
    }
}
