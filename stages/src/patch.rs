//! Applies a unified diff that a model wrote: line numbers are hints, counts are not read, the text must match.

/// A run of lines to find, and what to put there.
#[derive(Default)]
struct Hunk<'a> {
    /// The 1-based line at which the diff says it begins; 0 if it does not say.
    line: usize,
    old: Vec<&'a str>,
    new: Vec<&'a str>,
}

/// The changed program; `None` if the diff has no hunk, or one whose lines are not in the program.
pub(crate) fn apply(program: &str, diff: &str) -> Option<String> {
    let hunks = hunks(diff);
    let mut lines: Vec<&str> = program.lines().collect();
    let mut shift = 0_isize;
    if hunks.iter().all(|hunk| hunk.old == hunk.new) {
        return None;
    }
    for hunk in hunks {
        let said = hunk.line.checked_add_signed(shift).unwrap_or(0);
        let at = if hunk.old.is_empty() {
            // Nothing to find: what is added goes after the line that is named.
            if said > lines.len() {
                return None;
            }
            said
        } else {
            let said = said.saturating_sub(1);
            let fits =
                |at: &usize| hunk.old.iter().zip(&lines[*at..]).all(|(old, line)| old.trim_end() == line.trim_end());
            let places = 0..(lines.len() + 1).saturating_sub(hunk.old.len());
            places.filter(fits).min_by_key(|at| at.abs_diff(said))?
        };
        shift += hunk.new.len() as isize - hunk.old.len() as isize;
        lines.splice(at..at + hunk.old.len(), hunk.new);
    }
    let mut program = lines.join("\n");
    program.push('\n');
    Some(program)
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
        match line.split_at_checked(1) {
            Some(("-", old)) => hunk.old.push(old),
            Some(("+", new)) => hunk.new.push(new),
            Some(("\\", _)) => {}
            Some((" ", both)) => hunk.both(both),
            // Models leave out the space before an empty line.
            None => hunk.both(""),
            Some(_) => hunk.both(line),
        }
    }
    hunks
}

impl<'a> Hunk<'a> {
    fn both(&mut self, line: &'a str) {
        self.old.push(line);
        self.new.push(line);
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
    fn a_diff_that_does_not_fit_or_changes_nothing_is_none() {
        for diff in ["", "-a\n+b\n", "@@ -1 +1 @@\n-z\n+b\n", "@@ -1 +1 @@\n a\n", "@@ @@\n-a\n-b\n-c\n"] {
            assert_eq!(apply("a\nb\n", diff), None, "{diff:?}");
        }
    }
}
