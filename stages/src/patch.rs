//! Applies a unified diff that a model wrote: line numbers are hints, counts are not read, the text must match.
//! What the diff does not change stays as it is, down to white space at the ends of lines.

/// A run of lines to find, and what to put there.
#[derive(Default)]
struct Hunk<'a> {
    /// The 1-based line at which the diff says it begins; 0 if it does not say.
    line: usize,
    changes: Vec<Change<'a>>,
}

/// A line of a hunk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change<'a> {
    Keep(&'a str),
    Remove(&'a str),
    Add(&'a str),
}

/// The changed program; `None` if the diff has no hunk, or one whose lines are not in the program.
pub(crate) fn apply(program: &str, diff: &str) -> Option<String> {
    let hunks = hunks(diff);
    let mut lines: Vec<String> = program.split_inclusive('\n').map(str::to_owned).collect();
    let line_end = if lines.first().is_some_and(|line| line.ends_with("\r\n")) { "\r\n" } else { "\n" };
    let mut shift = 0_isize;
    if !hunks.iter().any(Hunk::changes_something) {
        return None;
    }
    for hunk in hunks {
        let said = hunk.line.checked_add_signed(shift).unwrap_or(0);
        let old: Vec<&str> = hunk.old().collect();
        let at = if old.is_empty() {
            // Nothing to find: what is added goes after the line that is named.
            if said > lines.len() {
                return None;
            }
            said
        } else {
            let said = said.saturating_sub(1);
            let fits = |at: &usize| old.iter().zip(&lines[*at..]).all(|(old, line)| old.trim_end() == line.trim_end());
            let places = 0..(lines.len() + 1).saturating_sub(old.len());
            places.filter(fits).min_by_key(|at| at.abs_diff(said))?
        };
        let new = hunk.new_lines(&lines[at..at + old.len()], line_end);
        shift += new.len() as isize - old.len() as isize;
        lines.splice(at..at + old.len(), new);
        // A last line without an end that is no longer the last.
        let last = lines.len().saturating_sub(1);
        lines[..last].iter_mut().filter(|line| !line.ends_with('\n')).for_each(|line| line.push_str(line_end));
    }
    Some(lines.concat())
}

fn hunks(diff: &str) -> Vec<Hunk<'_>> {
    let mut hunks: Vec<Hunk<'_>> = Vec::new();
    for line in diff.lines() {
        if let Some(head) = line.strip_prefix("@@") {
            let digits = head.trim_start().trim_start_matches('-');
            let end = digits.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(digits.len());
            hunks.push(Hunk { line: digits[..end].parse().unwrap_or(0), ..Hunk::default() });
            continue;
        }
        // What stands before the first hunk names files.
        let Some(hunk) = hunks.last_mut() else { continue };
        hunk.changes.extend(match line.split_at_checked(1) {
            Some(("-", old)) => Some(Change::Remove(old)),
            Some(("+", new)) => Some(Change::Add(new)),
            Some(("\\", _)) => None,
            Some((" ", both)) => Some(Change::Keep(both)),
            // Models leave out the space before an empty line.
            None => Some(Change::Keep("")),
            Some(_) => Some(Change::Keep(line)),
        });
    }
    hunks
}

impl<'a> Hunk<'a> {
    /// The lines to find.
    fn old(&self) -> impl Iterator<Item = &'a str> {
        self.changes.iter().filter_map(|change| match change {
            Change::Keep(text) | Change::Remove(text) => Some(*text),
            Change::Add(_) => None,
        })
    }

    /// What comes in place of the lines that were found.
    fn new_lines(&self, found: &[String], line_end: &str) -> Vec<String> {
        let mut found = found.iter();
        let new_line = |change: &Change| match change {
            Change::Keep(_) => found.next().cloned(),
            Change::Remove(_) => found.next().and(None),
            Change::Add(text) => Some(format!("{text}{line_end}")),
        };
        self.changes.iter().filter_map(new_line).collect()
    }

    fn changes_something(&self) -> bool {
        let new = self.changes.iter().filter_map(|change| match change {
            Change::Keep(text) | Change::Add(text) => Some(*text),
            Change::Remove(_) => None,
        });
        !self.old().eq(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = "def f(x):\n    y = x\n\n    return y\n\ndef g(x):\n    y = x\n    return y\n";

    #[test]
    fn the_place_whose_text_matches_and_is_nearest_is_changed() {
        let diff = "--- a.py\n+++ b.py\n@@ -6,9 +6,9 @@ def g(x):\n     y = x\n-    return y\n+    return -y\n";
        assert_eq!(apply(PROGRAM, diff).unwrap(), PROGRAM.replace("x\n    return y", "x\n    return -y"));
        let diff =
            "@@ -2 +2 @@\n-    y = x\n+    y = -x\n+\n\n     return y\n@@ -7 +8 @@\n-    y = x\n+    y = 2 * x\n";
        let expected = "def f(x):\n    y = -x\n\n\n    return y\n\ndef g(x):\n    y = 2 * x\n    return y\n";
        assert_eq!(apply(PROGRAM, diff).unwrap(), expected);
    }

    #[test]
    fn lines_are_added_after_the_one_that_is_named() {
        assert_eq!(apply("a\nb\n", "@@ -1,0 +2 @@\n+c\n").unwrap(), "a\nc\nb\n");
        assert_eq!(apply("a\n", "@@ -9,0 +2 @@\n+c\n"), None);
    }

    #[test]
    fn what_is_not_changed_keeps_its_bytes() {
        let program = "def f(x): \r\n\ty = '''a  \r\n b'''\r\n\treturn y";
        let diff = "@@ -1,3 +1,3 @@\n def f(x):\n-\ty = '''a\n+\ty = '''c\n  b'''\n";
        assert_eq!(apply(program, diff).unwrap(), program.replace("a  ", "c"));
        assert_eq!(apply(program, "@@ -4,0 +5 @@\n+# end\n").unwrap(), format!("{program}\r\n# end\r\n"));
        assert_eq!(apply("a\nb", "@@ -1,2 +1,3 @@\n a\n b\n+c\n").unwrap(), "a\nb\nc\n");
    }

    #[test]
    fn a_diff_that_does_not_fit_or_changes_nothing_is_none() {
        for diff in ["", "-a\n+b\n", "@@ -1 +1 @@\n-z\n+b\n", "@@ -1 +1 @@\n a\n", "@@ @@\n-a\n-b\n-c\n"] {
            assert_eq!(apply("a\nb\n", diff), None, "{diff:?}");
        }
    }
}
