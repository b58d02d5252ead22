//! False fixes: programs that pass the tests they were checked with and fail more of them.

use std::collections::BTreeMap;

use tracetune_engine::stage::StageError;

use super::{Params, VerifiedRow, row};
use crate::metrics::MetricRow;

/// Of the samples that pass, the share that fail `full` (`false fix rate`); of those that fail `full`, the share that
/// pass (`wrong accepted`). Each is a mean over samples with an interval clustered by problem.
///
/// # Errors
/// A sample is not among those of `full`.
pub(super) fn rates(
    params: &Params,
    split: &str,
    rows: &[VerifiedRow],
    full: &[VerifiedRow],
) -> Result<Vec<MetricRow>, StageError> {
    let passed: BTreeMap<_, bool> = full.iter().map(|row| (key(row), row.verdict == "pass")).collect();
    let mut accepted = (Vec::new(), Vec::new());
    let mut wrong = (Vec::new(), Vec::new());
    for row in rows.iter().filter(|row| row.split == split && !row.fix.is_empty()) {
        let Some(&right) = passed.get(&key(row)) else {
            return Err(StageError::input(format!(
                "sample {} of `{}` is not among those of the port `full`: connect the same samples, verified against more tests",
                row.sample, row.problem_id
            )));
        };
        let accept = row.verdict == "pass";
        for (keep, value, side) in [(accept, !right, &mut accepted), (!right, accept, &mut wrong)] {
            if keep {
                side.0.push(f64::from(value));
                side.1.push(row.problem_id.as_str());
            }
        }
    }
    let rate =
        |metric, (values, problems): &(Vec<f64>, Vec<&str>)| self::row(params, split, metric, None, values, problems);
    Ok([rate("false fix rate", &accepted), rate("wrong accepted", &wrong)].into_iter().flatten().collect())
}

/// What makes a sample the same one.
fn key(row: &VerifiedRow) -> (&str, &str, i32, &str) {
    (&row.problem_id, &row.buggy, row.sample, &row.fix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::tests::verified;

    #[test]
    fn a_false_fix_passes_the_kept_tests_and_fails_the_full_ones() {
        let verdicts = |verdicts: [&str; 4]| -> Vec<VerifiedRow> {
            verdicts.iter().zip(0..).map(|(verdict, sample)| verified("a", sample, verdict)).collect()
        };
        let (kept, full) = (verdicts(["pass", "pass", "pass", "fail"]), verdicts(["pass", "error", "pass", "fail"]));
        let rates = rates(&Params::default(), "test", &kept, &full).unwrap();
        let found: Vec<_> = rates.iter().map(|row| (row.metric.as_str(), row.value, row.n)).collect();
        assert_eq!(found, [("false fix rate", 1.0 / 3.0, 3), ("wrong accepted", 0.5, 2)]);
        let error = super::rates(&Params::default(), "test", &kept, &full[..2]).unwrap_err().to_string();
        assert!(error.contains("sample 2 of `a`"), "{error}");
    }
}
