//! Runs that differ in their seed, taken together.

use crate::support::{Project, Ran};
use tracetune_engine::compare::{CompareError, Pooled, compare_over};
use tracetune_engine::statistics::{Bounds, Cluster, mean_interval};

/// Passes of eight draws on six problems; with seed n, n more of each.
const MAIN: [i32; 6] = [0, 1, 2, 4, 5, 6];

fn stage(name: &str, variant: &str, passes: [i32; 6], loss: f64) -> String {
    let drawn = |(place, passes)| {
        format!("{{ id = \"{place}\", problem = \"p{place}\", bug = \"b\", samples = 8, passes = {passes} }}")
    };
    let outcomes: Vec<String> = passes.into_iter().enumerate().map(drawn).collect();
    let rate = f64::from(passes.iter().sum::<i32>()) / 48.0;
    format!(
        "[stages.{name}]\nkind = \"results\"\nvariant = \"{variant}\"\noutcomes = [{}]\nmetrics = [[\"pass@1\", {rate}], [\"loss\", {loss}]]\n",
        outcomes.join(", ")
    )
}

/// A pipeline whose variant `other` solves `more` of the draws of the first problem.
fn seeded(seed: u8, more: i32) -> String {
    let [first, rest @ ..] = MAIN;
    let other = [[first + more].as_slice(), &rest].concat().try_into().unwrap();
    format!("seed = {seed}\n{}{}", stage("one", "main", MAIN, 2.0), stage("two", "other", other, 1.0))
}

fn pooled(project: &Project, runs: &[Ran]) -> Result<Pooled, CompareError> {
    let words: Vec<String> = runs.iter().map(|ran| ran.summary.run_id.clone()).collect();
    compare_over(&project.store(), &words, "seed")
}

/// Student's t of two degrees of freedom, over three figures of standard deviation 1/8.
const SCATTER: f64 = 4.302_652_729_749_462 / 8.0 / 1.732_050_807_568_877_2;

#[test]
fn a_figure_has_the_variance_of_problems_and_of_seeds() {
    let project = Project::new();
    let runs = [0, 1, 2].map(|seed| project.run(&seeded(seed, 1)));
    let pooled = pooled(&project, &runs).unwrap();
    let metric = pooled.metrics.iter().find(|line| line.metric == "pass@1").unwrap();
    let figure = metric.figures[0].as_ref().unwrap();
    // The mean seed has one more pass of each problem; every problem moves alike, so all of their variance is shared.
    let clusters = MAIN.map(|passes| Cluster { sum: f64::from(passes + 1) / 8.0, size: 1.0 });
    let over_problems = mean_interval(&clusters, Bounds::SHARE).unwrap();
    let low = over_problems.value - ((over_problems.value - over_problems.low).powi(2) + SCATTER.powi(2)).sqrt();
    assert!((figure.value - 0.5).abs() < 1e-12 && (figure.ci_low.unwrap() - low.max(0.0)).abs() < 1e-9, "{figure:?}");
    assert_eq!((figure.seeds, figure.n), (3, 1));
}

#[test]
fn a_figure_without_an_interval_has_that_of_its_seeds() {
    let project = Project::new();
    let runs = [0, 1, 2].map(|seed| project.run(&seeded(seed, 1)));
    let pooled = pooled(&project, &runs).unwrap();
    let loss = pooled.metrics.iter().find(|line| line.metric == "loss").unwrap();
    let figure = loss.figures[1].as_ref().unwrap();
    let [low, high] = [figure.ci_low, figure.ci_high].map(Option::unwrap);
    assert!((low - (1.125 - SCATTER)).abs() < 1e-9 && (high - (1.125 + SCATTER)).abs() < 1e-9, "{figure:?}");
}

#[test]
fn differences_are_paired_with_the_baseline_of_the_same_seed() {
    let project = Project::new();
    let runs = [0, 1, 2].map(|seed| project.run(&seeded(seed, 3)));
    let pooled = pooled(&project, &runs).unwrap();
    assert_eq!(pooled.sides[1].labels, ["0", "1", "2"]);
    let [one] = pooled.differences.as_slice() else { panic!("{:?}", pooled.differences) };
    assert_eq!((one.side, one.seeds, one.problems, one.by_seed.len()), (1, 3, 6, 3));
    assert!(one.by_seed.iter().chain([&one.difference.value]).all(|value| (value - 1.0 / 16.0).abs() < 1e-12));
    // Seeds that agree add nothing to what is not known of further problems.
    let clusters = [3.0, 0.0, 0.0, 0.0, 0.0, 0.0].map(|passes| Cluster { sum: passes / 8.0, size: 1.0 });
    let over_problems = mean_interval(&clusters, Bounds::DIFFERENCE).unwrap();
    assert!((one.difference.high - over_problems.high).abs() < 1e-9, "{one:?}");
}

#[test]
fn runs_that_differ_in_more_are_not_pooled() {
    let project = Project::new();
    let runs = [project.run(&seeded(0, 1)), project.run(&seeded(1, 2))];
    let error = pooled(&project, &runs).unwrap_err();
    assert!(
        matches!(&error, CompareError::NotOver { names, .. } if *names == ["two.metrics", "two.outcomes"]),
        "{error}"
    );
}

#[test]
fn one_seed_is_not_pooled_nor_one_twice() {
    let project = Project::new();
    let run = project.run(&seeded(4, 1));
    let error = pooled(&project, std::slice::from_ref(&run)).unwrap_err();
    assert!(matches!(&error, CompareError::OneValue { side, .. } if side.ends_with(":main@0")), "{error}");
    let again = project.run(&seeded(4, 1));
    let error = pooled(&project, &[run, again]).unwrap_err();
    assert!(matches!(error, CompareError::SameValue { .. }), "{error}");
}

#[test]
fn the_table_of_a_pooled_comparison_has_a_line_per_side_and_metric() {
    let project = Project::new();
    let runs = [0, 1].map(|seed| project.run(&seeded(seed, 1)));
    let lines = pooled(&project, &runs).unwrap().lines();
    let names: Vec<_> = lines.iter().map(|line| format!("{} {} {}", line.variant, line.metric, line.seeds)).collect();
    let expected = [
        "main pass@1 2",
        "main loss 2",
        "other pass@1 2",
        "other loss 2",
        "other pass@1 difference 2",
        "other loss difference 2",
    ];
    assert_eq!(names, expected);
}

#[test]
fn any_metric_has_a_difference_paired_by_seed() {
    let project = Project::new();
    let stages = |seed: u8, loss: f64| {
        format!(
            "seed = {seed}\n[stages.one]\nkind = \"results\"\nmetrics = [[\"loss\", 2.0]]\nallow_empty = true\n\
             [stages.two]\nkind = \"results\"\nvariant = \"other\"\nmetrics = [[\"loss\", {loss}]]\nseed = 0\nallow_empty = true\n"
        )
    };
    // The baseline is 2 and 2.125, the other side 1 both times.
    let runs = [project.run(&stages(0, 1.0)), project.run(&stages(1, 1.0))];
    let pooled = pooled(&project, &runs).unwrap();
    let [one] = pooled.metric_differences.as_slice() else { panic!("{:?}", pooled.metric_differences) };
    assert_eq!((one.metric.as_str(), one.seeds, one.by_seed.as_slice()), ("loss", 2, [-1.0, -1.125].as_slice()));
    // Student's t of one degree of freedom, over two differences of standard deviation 1/8/√2.
    let half = 12.706_204_736_174_7 / 16.0;
    let [low, high] = [one.ci_low, one.ci_high].map(Option::unwrap);
    assert!((one.value + 1.0625).abs() < 1e-12 && (low + 1.0625 + half).abs() < 1e-6, "{one:?}");
    assert!((high + 1.0625 - half).abs() < 1e-6, "{one:?}");
}
