//! Kind `thin`: takes tests away, to study what sparse tests do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracetune_engine::record;
use tracetune_engine::stage::{self, Context, Inputs, Item, ParamError, RowStage, StageError};
use tracetune_engine::statistics::splitmix64;

/// Which tests stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Thinning {
    /// Tests kept a problem, at least 1.
    #[schemars(range(min = 1))]
    keep: usize,
    /// Whether the seed chooses them; without it the first ones stay. What is kept with fewer is kept with more.
    #[serde(default)]
    shuffle: bool,
    /// Seed of the choice.
    #[serde(default)]
    seed: u64,
}

impl Thinning {
    /// Checks the ranges; `param` is what the user wrote it under.
    pub(crate) fn check(&self, param: &'static str) -> Result<(), ParamError> {
        if self.keep > 0 {
            return Ok(());
        }
        let help = Some("a problem without tests can't be verified: keep at least 1".to_owned());
        Err(ParamError { param, message: "keeps no test".to_owned(), help })
    }

    /// The tests that stay, in their order.
    pub(crate) fn kept(&self, tests: &[String]) -> Vec<String> {
        let mut order: Vec<usize> = (0..tests.len()).collect();
        if self.shuffle {
            order.sort_by_cached_key(|&place| {
                let digest = blake3::hash(tests[place].as_bytes());
                let hash = u64::from_le_bytes(std::array::from_fn(|byte| digest.as_bytes()[byte]));
                splitmix64(hash ^ splitmix64(self.seed))
            });
        }
        order.truncate(self.keep);
        order.sort_unstable();
        order.into_iter().map(|place| tests[place].clone()).collect()
    }
}

impl stage::Params for Thinning {
    fn validate(&self) -> Result<(), ParamError> {
        self.check("keep")
    }
}

record! {
    /// A row's tests.
    pub struct TestsRow {
        /// One `assert` statement each.
        pub tests: Vec<String>,
    }
}

/// Keeps some of each row's tests.
pub struct Thin;

impl RowStage for Thin {
    const KIND: &'static str = "thin";
    const VERSION: u32 = 1;
    const ABOUT: &'static str = "keeps some of each row's tests";
    type Params = Thinning;
    type In = TestsRow;
    type Out = TestsRow;
    type Session = ();

    fn open(_: &Thinning, _: &Inputs, _: &Context) -> Result<(), StageError> {
        Ok(())
    }

    fn rows(
        (): &mut (),
        params: &Thinning,
        items: &[Item<TestsRow>],
        _: &Context,
    ) -> Result<Vec<Vec<TestsRow>>, StageError> {
        Ok(items.iter().map(|item| vec![TestsRow { tests: params.kept(&item.row.tests) }]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_tests_are_a_part_of_more() {
        let tests: Vec<String> = (0..9).map(|i| format!("assert f({i}) == {i}")).collect();
        let kept = |keep, shuffle, seed| Thinning { keep, shuffle, seed }.kept(&tests);
        assert_eq!(kept(2, false, 0), tests[..2]);
        for keep in 1..9 {
            let (few, more) = (kept(keep, true, 3), kept(keep + 1, true, 3));
            assert!(few.len() == keep && few.iter().all(|test| more.contains(test)));
        }
        assert_ne!(kept(3, true, 3), kept(3, true, 4));
        assert_eq!(kept(99, true, 3), tests);
    }
}
