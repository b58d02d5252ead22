//! What `compare` needs of each task: which one it is, and what its draws came to.

use arrow::array::RecordBatch;
use tracetune_engine::table::read_column;

use super::{Params, Task};
use crate::metrics::OutcomeRow;

/// The columns that say what a problem is, beside its id.
pub(super) struct Problems {
    reference: Vec<String>,
    instruction: Vec<String>,
    entry_point: Vec<String>,
    setup: Vec<String>,
    tests: Vec<Vec<String>>,
}

impl Problems {
    /// Of a table that may lack some: an own table may have none of the standard columns.
    pub(super) fn read(table: &RecordBatch) -> Self {
        let text = |name: &str| match read_column::<Option<String>>(table, name) {
            Ok(texts) => texts.into_iter().map(Option::unwrap_or_default).collect(),
            Err(_) => vec![String::new(); table.num_rows()],
        };
        let tests = read_column(table, "tests").unwrap_or_else(|_| vec![Vec::new(); table.num_rows()]);
        Self {
            reference: text("reference"),
            instruction: text("instruction"),
            entry_point: text("entry_point"),
            setup: text("setup"),
            tests,
        }
    }

    /// What makes a row's problem another one than one of the same id: the correct program; without one, what is asked for.
    fn problem(&self, row: usize) -> Option<String> {
        let tests = || self.tests[row].iter().map(String::as_str);
        match (self.reference[row].as_str(), self.instruction[row].as_str()) {
            ("", "") if self.tests[row].is_empty() => None,
            ("", "") => Some(digest(tests().chain([self.setup[row].as_str()]))),
            ("", instruction) => Some(digest([instruction, &self.entry_point[row]])),
            (reference, _) => Some(digest([reference])),
        }
    }

    fn tests(&self, row: usize) -> Option<String> {
        let tests = self.tests[row].iter().map(String::as_str);
        (!self.tests[row].is_empty()).then(|| digest(tests.chain([self.setup[row].as_str()])))
    }

    /// The outcomes of tasks found in this table.
    pub(super) fn outcomes(&self, params: &Params, tasks: &[Task]) -> Vec<OutcomeRow> {
        let outcome = |task: &Task| OutcomeRow {
            split: params.named(&task.split),
            problem_id: task.problem_id.clone(),
            problem_digest: self.problem(task.row),
            bug_digest: Some(digest([task.buggy.as_str()])),
            tests_digest: self.tests(task.row),
            samples: task.samples as i32,
            passes: task.passes as i32,
            greedy: task.greedy,
        };
        tasks.iter().map(outcome).collect()
    }
}

/// Sixteen digits of a hash: enough to tell a corpus's problems apart.
fn digest<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hasher = blake3::Hasher::new();
    for text in texts {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(reference: &str, instruction: &str, tests: &[&str]) -> Problems {
        Problems {
            reference: vec![reference.to_owned()],
            instruction: vec![instruction.to_owned()],
            entry_point: vec!["f".to_owned()],
            setup: vec![String::new()],
            tests: vec![tests.iter().map(|test| (*test).to_owned()).collect()],
        }
    }

    #[test]
    fn fewer_tests_do_not_make_another_problem() {
        let (all, fewer) = (problems("r", "i", &["a", "b"]), problems("r", "i", &["a"]));
        assert_eq!(all.problem(0), fewer.problem(0));
        assert_ne!(all.tests(0), fewer.tests(0));
    }

    #[test]
    fn another_reference_makes_another_problem() {
        assert_ne!(problems("r", "i", &["a"]).problem(0), problems("s", "i", &["a"]).problem(0));
        assert_ne!(problems("", "i", &["a"]).problem(0), problems("", "j", &["a"]).problem(0));
        assert_ne!(problems("", "", &["a"]).problem(0), problems("", "", &["b"]).problem(0));
        assert_eq!(problems("", "", &[]).problem(0), None);
    }
}
