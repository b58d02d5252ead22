//! The tasks of two sides, joined: a task is a problem with one bug, and an id alone does not say which.

use std::collections::{BTreeMap, BTreeSet};

use super::statistics::Tally;
use crate::runs::OutcomeLine;

/// What makes a task the same on both sides. A digest is `None` where a stage does not know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Task {
    pub problem_id: String,
    pub problem: Option<String>,
    pub bug: Option<String>,
}

/// What the draws of a task came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub sampled: Tally,
    pub greedy: Tally,
    pub tests: Option<String>,
}

/// The tasks of a stage.
pub(super) type Tasks = BTreeMap<Task, Outcome>;

/// Adds a line to the tasks of its stage.
pub(super) fn add(tasks: &mut Tasks, line: OutcomeLine) {
    let OutcomeLine { problem_id, problem_digest, bug_digest, tests_digest, samples, passes, greedy, .. } = line;
    let task = Task { problem_id, problem: problem_digest, bug: bug_digest };
    tasks.entry(task).or_default().add(&Outcome {
        sampled: Tally { samples: samples.unsigned_abs().into(), passes: passes.unsigned_abs().into() },
        greedy: Tally { samples: u64::from(greedy.is_some()), passes: u64::from(greedy == Some(true)) },
        tests: tests_digest,
    });
}

impl Outcome {
    fn add(&mut self, other: &Self) {
        self.sampled.add(other.sampled);
        self.greedy.add(other.greedy);
        self.tests.clone_from(&other.tests);
    }

    /// The draws of a kind; `None` if there are none.
    pub(super) fn drawn(&self, draws: Draws) -> Option<Tally> {
        let tally = match draws {
            Draws::Sampled => self.sampled,
            Draws::Greedy => self.greedy,
        };
        (tally.samples > 0).then_some(tally)
    }
}

/// A kind of draws: rates of the two can't be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Draws {
    /// Drawn at random.
    Sampled,
    /// The one that takes the likeliest token each time.
    Greedy,
}

impl Draws {
    /// As in `sampled draws`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sampled => "sampled",
            Self::Greedy => "greedy",
        }
    }

    /// The metric that is the mean of their passes.
    pub fn metric(self) -> &'static str {
        match self {
            Self::Sampled => "pass@1",
            Self::Greedy => "greedy pass@1",
        }
    }

    /// The kinds that a stage has.
    pub(super) fn of(tasks: &Tasks) -> Vec<Self> {
        let has = |draws: &Self| tasks.values().any(|outcome| outcome.drawn(*draws).is_some());
        [Self::Sampled, Self::Greedy].into_iter().filter(has).collect()
    }
}

/// The tasks that two stages share, and why others are left out.
#[derive(Debug, Default)]
pub(super) struct Joined {
    /// The problem's id, and its outcome on both sides.
    pub pairs: Vec<(String, Outcome, Outcome)>,
    /// Tasks of the baseline that the other side does not have.
    pub baseline_only: usize,
    /// Tasks of the other side that the baseline does not have.
    pub side_only: usize,
    /// Of the tasks left out, those whose id stands for another problem on the other side.
    pub other_problem: usize,
    /// Of them, those whose problem is there with other bugs.
    pub other_bug: usize,
    /// Of the pairs, those whose verdicts are by other tests.
    pub other_tests: usize,
    /// Whether a side does not say which problem an id stands for.
    pub by_id: bool,
}

/// Joins by all that both sides know of their tasks.
pub(super) fn join(baseline: &Tasks, side: &Tasks) -> Joined {
    let known = |digest: fn(&Task) -> bool| baseline.keys().chain(side.keys()).all(digest);
    let (problems, bugs) = (known(|task| task.problem.is_some()), known(|task| task.bug.is_some()));
    let (baseline, side) = (projected(baseline, problems, bugs), projected(side, problems, bugs));
    let mut joined = Joined { by_id: !problems, ..Joined::default() };
    for (task, ours) in &baseline {
        match side.get(task) {
            Some(theirs) => {
                let tests = ours.tests.as_ref().zip(theirs.tests.as_ref());
                joined.other_tests += usize::from(tests.is_some_and(|(ours, theirs)| ours != theirs));
                joined.pairs.push((task.problem_id.clone(), ours.clone(), theirs.clone()));
            }
            None => {
                joined.baseline_only += 1;
                joined.explain(task, &side);
            }
        }
    }
    for task in side.keys().filter(|task| !baseline.contains_key(task)) {
        joined.side_only += 1;
        joined.explain(task, &baseline);
    }
    joined
}

/// The tasks, those that can't be told apart put together.
fn projected(tasks: &Tasks, problems: bool, bugs: bool) -> Tasks {
    let mut projected = Tasks::new();
    for (task, outcome) in tasks {
        let task = Task {
            problem_id: task.problem_id.clone(),
            problem: task.problem.clone().filter(|_| problems),
            bug: task.bug.clone().filter(|_| bugs),
        };
        projected.entry(task).or_default().add(outcome);
    }
    projected
}

impl Joined {
    /// Notes why a task is not among the other ones.
    fn explain(&mut self, task: &Task, others: &Tasks) {
        let first = Task { problem_id: task.problem_id.clone(), problem: None, bug: None };
        let of_id =
            || others.range(&first..).map(|(other, _)| other).take_while(|other| other.problem_id == task.problem_id);
        if of_id().any(|other| other.problem == task.problem) {
            self.other_bug += 1;
        } else if of_id().next().is_some() {
            self.other_problem += 1;
        }
    }

    /// The pairs in which both sides have draws of a kind.
    pub(super) fn drawn(&self, draws: Draws) -> Vec<(&str, Tally, Tally)> {
        let drawn = self
            .pairs
            .iter()
            .filter_map(|(problem, ours, theirs)| Some((problem.as_str(), ours.drawn(draws)?, theirs.drawn(draws)?)));
        drawn.collect()
    }
}

/// A stage and its tasks.
pub(super) type Measured<'a> = (&'a str, &'a Tasks);

/// Which stages of two sides are compared: the only one of each, else those of the same name.
pub(super) fn matched<'a>(
    baseline: &'a BTreeMap<String, Tasks>,
    side: &'a BTreeMap<String, Tasks>,
) -> Vec<(Measured<'a>, Measured<'a>)> {
    let all = |stages: &'a BTreeMap<String, Tasks>| {
        stages.iter().map(|(stage, tasks)| (stage.as_str(), tasks)).collect::<Vec<_>>()
    };
    if let ([ours], [theirs]) = (all(baseline).as_slice(), all(side).as_slice()) {
        return vec![(*ours, *theirs)];
    }
    let names: BTreeSet<&String> = baseline.keys().filter(|stage| side.contains_key(*stage)).collect();
    names.into_iter().map(|stage| ((stage.as_str(), &baseline[stage]), (stage.as_str(), &side[stage]))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(lines: &[(&str, &str, &str)]) -> Tasks {
        let mut tasks = Tasks::new();
        for (problem_id, problem, bug) in lines {
            let text = |text: &&str| (!text.is_empty()).then(|| (*text).to_owned());
            let task = Task { problem_id: (*problem_id).to_owned(), problem: text(problem), bug: text(bug) };
            let sampled = Tally { samples: 2, passes: 1 };
            tasks.insert(task, Outcome { sampled, ..Outcome::default() });
        }
        tasks
    }

    fn counts(joined: &Joined) -> [usize; 5] {
        let Joined { pairs, baseline_only, side_only, other_problem, other_bug, .. } = joined;
        [pairs.len(), *baseline_only, *side_only, *other_problem, *other_bug]
    }

    #[test]
    fn the_same_id_with_another_problem_is_no_pair() {
        let joined = join(&tasks(&[("a", "1", "x"), ("b", "2", "x")]), &tasks(&[("a", "1", "x"), ("b", "3", "x")]));
        assert_eq!(counts(&joined), [1, 1, 1, 2, 0]);
    }

    #[test]
    fn the_same_problem_with_another_bug_is_no_pair() {
        let joined = join(&tasks(&[("a", "1", "x"), ("a", "1", "y")]), &tasks(&[("a", "1", "x"), ("a", "1", "z")]));
        assert_eq!(counts(&joined), [1, 1, 1, 0, 2]);
    }

    #[test]
    fn without_digests_tasks_are_joined_by_id_and_that_is_said() {
        let joined = join(&tasks(&[("a", "", "")]), &tasks(&[("a", "1", "x"), ("a", "1", "y")]));
        assert_eq!((counts(&joined), joined.by_id), ([1, 0, 0, 0, 0], true));
        assert_eq!(joined.pairs[0].2.sampled, Tally { samples: 4, passes: 2 });
    }

    #[test]
    fn other_tests_are_noticed_where_both_sides_know_theirs() {
        let by = |tests: Option<&str>| {
            let mut one = tasks(&[("a", "1", "x")]);
            one.values_mut().for_each(|outcome| outcome.tests = tests.map(str::to_owned));
            one
        };
        let other_tests = |ours, theirs| join(&by(ours), &by(theirs)).other_tests;
        assert_eq!((other_tests(Some("s"), Some("t")), other_tests(Some("s"), Some("s"))), (1, 0));
        assert_eq!(other_tests(None, Some("t")), 0);
    }

    #[test]
    fn several_stages_are_matched_by_their_names() {
        let side = |stages: &[&str]| -> BTreeMap<String, Tasks> {
            stages.iter().map(|stage| ((*stage).to_owned(), Tasks::new())).collect()
        };
        let names = |baseline: &[&str], other: &[&str]| {
            let (baseline, other) = (side(baseline), side(other));
            matched(&baseline, &other).iter().map(|(a, b)| format!("{}-{}", a.0, b.0)).collect::<Vec<_>>()
        };
        assert_eq!(names(&["base"], &["last"]), ["base-last"]);
        assert_eq!(names(&["easy", "hard"], &["hard", "other"]), ["hard-hard"]);
        assert_eq!(names(&["easy", "hard"], &["last"]), [""; 0]);
    }
}
