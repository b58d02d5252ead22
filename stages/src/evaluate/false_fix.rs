//! False fixes: programs that pass the tests they were checked with and fail more of them.

use std::collections::{BTreeMap, BTreeSet};

use tracetune_engine::stage::StageError;

use super::{Params, VerifiedRow, row};
use crate::metrics::{Bounds, MetricRow};

/// Of the samples that pass, the share that fail `full` (`false fix rate`); of those of `full` that fail, the share that
/// pass here (`wrong accepted rate`; what `rows` lacks was not accepted). Each is a mean over samples, its interval
/// clustered by problem.
///
/// # Errors
/// A sample is not among those of `full`.
pub(super) fn rates(
    params: &Params,
    split: &str,
    rows: &[VerifiedRow],
    full: &[VerifiedRow],
) -> Result<Vec<MetricRow>, StageError> {
    let right: BTreeMap<_, bool> = full.iter().map(|row| (key(row), row.verdict == "pass")).collect();
    let here = |row: &&VerifiedRow| row.split == split && !row.fix.is_empty();
    let accepted: Vec<&VerifiedRow> = rows.iter().filter(here).filter(|row| row.verdict == "pass").collect();
    let known: BTreeSet<_> = accepted.iter().map(|row| key(row)).collect();
    let mut passes = (Vec::new(), Vec::new());
    for row in accepted {
        let Some(&right) = right.get(&key(row)) else {
            return Err(StageError::input(format!(
                "sample {} of `{}` is not among those of the port `full`: connect the same samples, verified against more tests",
                row.sample, row.problem_id
            )));
        };
        passes.0.push(f64::from(!right));
        passes.1.push(row.problem_id.as_str());
    }
    let wrong = full.iter().filter(here).filter(|row| row.verdict != "pass");
    let wrong = wrong.map(|row| (f64::from(known.contains(&key(row))), row.problem_id.as_str())).unzip();
    let rate = |metric, (values, problems): &(Vec<f64>, Vec<&str>)| {
        self::row(params, split, (metric, None), Bounds::SHARE, values, problems)
    };
    Ok([rate("false fix rate", &passes), rate("wrong accepted rate", &wrong)].into_iter().flatten().collect())
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
        assert_eq!(found, [("false fix rate", 1.0 / 3.0, 3), ("wrong accepted rate", 0.5, 2)]);
        let error = super::rates(&Params::default(), "test", &kept, &full[..2]).unwrap_err().to_string();
        assert!(error.contains("sample 2 of `a`"), "{error}");
    }
}
