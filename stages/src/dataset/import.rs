//! What came of a source: its problems, and what was left out and why.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use tracetune_engine::record;
use tracetune_engine::stage::{Context, Dropped, StageError};

use super::ProblemRow;

record! {
    /// Something of the source that gave nothing.
    pub struct SkippedRow {
        /// The problem, as far as it has a name.
        pub problem_id: String,
        /// `problem` if all of it was left out, `test` if tests of it were, `reference` if it has none that can be used.
        pub part: String,
        /// Why.
        pub reason: String,
        /// How many.
        pub count: i32,
    }
}

/// Problems, and what was left out.
#[derive(Default)]
pub(super) struct Import {
    pub(super) problems: Vec<ProblemRow>,
    pub(super) skipped: Vec<SkippedRow>,
    /// Where in `skipped` a problem, a part of it and a reason stand.
    known: HashMap<[String; 3], usize>,
    skip_broken: bool,
}

impl Import {
    /// Nothing yet. `skip_broken`: whether a broken row is left out instead of ending the import.
    pub(super) fn new(skip_broken: bool) -> Self {
        Self { skip_broken, ..Self::default() }
    }

    /// Nothing but problems.
    pub(super) fn of(problems: Vec<ProblemRow>) -> Self {
        Self { problems, ..Self::default() }
    }

    /// Counts something that is left out.
    pub(super) fn skip(&mut self, problem_id: &str, part: &str, reason: &str) {
        match self.known.entry([problem_id, part, reason].map(str::to_owned)) {
            Entry::Occupied(place) => self.skipped[*place.get()].count += 1,
            Entry::Vacant(place) => {
                place.insert(self.skipped.len());
                self.skipped.push(SkippedRow {
                    problem_id: problem_id.to_owned(),
                    part: part.to_owned(),
                    reason: reason.to_owned(),
                    count: 1,
                });
            }
        }
    }

    /// A result that must be right, or may be left out if broken rows may.
    pub(super) fn sound<T>(&mut self, result: Result<T, StageError>) -> Result<Option<T>, StageError> {
        match result {
            Err(StageError::Input(message)) if self.skip_broken => {
                self.skip("", "problem", &message);
                Ok(None)
            }
            result => result.map(Some),
        }
    }

    /// Adds the problem that `read` makes of each source.
    pub(super) fn extend<T>(
        &mut self,
        sources: &[T],
        read: impl Fn(&T) -> Result<ProblemRow, StageError>,
    ) -> Result<(), StageError> {
        for source in sources {
            let problem = self.sound(read(source))?;
            self.problems.extend(problem);
        }
        Ok(())
    }

    /// Tells the user how much was left out: a line per reason, whatever rows it is true of.
    pub(super) fn tell(&self, cx: &Context) {
        const SHOWN: usize = 10;
        for row in self.skipped.iter().filter(|row| row.part == "problem") {
            let dropped = Dropped::new(row.count.unsigned_abs().into(), "the row is broken");
            cx.dropped(&dropped.example(&row.reason).help("the output `skipped` lists them"));
        }
        let mut reasons: BTreeMap<(&str, &str), (i32, String)> = BTreeMap::new();
        for row in &self.skipped {
            let (place, reason) = place_and_reason(&row.reason);
            let example = || match (place, row.part.as_str()) {
                (Some(place), _) => place.to_owned(),
                (None, "problem") => format!("`{}`", row.problem_id),
                (None, _) => format!("of `{}`", row.problem_id),
            };
            reasons.entry((&row.part, reason)).or_insert_with(|| (0, example())).0 += row.count;
        }
        let mut reasons: Vec<_> = reasons.into_iter().collect();
        reasons.sort_by_key(|(_, (count, _))| Reverse(*count));
        for ((part, reason), (count, example)) in reasons.iter().take(SHOWN) {
            cx.note(&format!(
                "left out {count} {part}{}: {reason}, e.g. {example}",
                if *count == 1 { "" } else { "s" }
            ));
        }
        if let Some((_, others @ [_, ..])) = reasons.split_at_checked(SHOWN) {
            let count: i32 = others.iter().map(|(_, (count, _))| count).sum();
            let reasons = if others.len() == 1 { "another reason" } else { "other reasons" };
            cx.note(&format!("left out {count} more for {reasons}: see the output `skipped`"));
        }
    }
}

/// The place that an error names, and the error in words that other rows share. "`a.jsonl`, row 3, field `x`: is not a text"
/// is "field `x`: is not a text" at "row 3".
fn place_and_reason(message: &str) -> (Option<&str>, &str) {
    let after_path = ["`, row ", "`, line ", "`, program "].iter().filter_map(|mark| message.find(mark)).min();
    let Some(rest) = after_path.map(|at| &message[at + "`, ".len()..]).filter(|_| message.starts_with('`')) else {
        return (None, message);
    };
    let end = [rest.find(", field "), rest.find(": ")].into_iter().flatten().min();
    let Some(end) = end else { return (None, message) };
    let reason = rest[end..].trim_start_matches([',', ':', ' ']);
    // What a row has instead, and where in its text JSON ends, are its own.
    let own = [reason.find("; the row has "), reason.find(" at line ")].into_iter().flatten().min();
    (Some(&rest[..end]), &reason[..own.unwrap_or(reason.len())])
}

#[cfg(test)]
mod tests {
    use super::place_and_reason;

    #[test]
    fn reasons_do_not_name_the_row() {
        for (message, place, reason) in [
            (
                "`a.jsonl`, line 2: not JSON: expected value at line 1 column 1",
                Some("line 2"),
                "not JSON: expected value",
            ),
            ("`a.jsonl`, row 5: not a JSON object", Some("row 5"), "not a JSON object"),
            ("`a.jsonl`, row 1, field `x`: is missing; the row has a, b", Some("row 1"), "field `x`: is missing"),
            ("`a: b`, row 1, field `x`: is not a text", Some("row 1"), "field `x`: is not a text"),
            ("`q`, program `gcd`: has no tests", Some("program `gcd`"), "has no tests"),
            ("not in Python", None, "not in Python"),
        ] {
            assert_eq!(place_and_reason(message), (place, reason), "{message}");
        }
    }
}
