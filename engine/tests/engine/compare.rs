//! Sides, and what of them can be compared.

use crate::support::Project;
use tracetune_engine::compare::{CompareError, Comparison, compare};

/// A task's draws in a pipeline file.
fn drawn(id: &str, problem: &str, bug: &str, samples: i32, passes: i32) -> String {
    format!("{{ id = \"{id}\", problem = \"{problem}\", bug = \"{bug}\", samples = {samples}, passes = {passes} }}, ")
}

fn greedy(id: &str, passes: bool) -> String {
    format!("{{ id = \"{id}\", problem = \"p\", bug = \"b\", greedy = {passes} }}, ")
}

fn stage(name: &str, variant: &str, outcomes: &str, metrics: &str) -> String {
    format!(
        "[stages.{name}]\nkind = \"results\"\nallow_empty = true\nvariant = \"{variant}\"\noutcomes = [{outcomes}]\nmetrics = [{metrics}]\n"
    )
}

/// `main` against `other`.
fn compared(main: &str, other: &str) -> Comparison {
    let project = Project::new();
    project.run(&(stage("one", "main", main, "") + &stage("two", "other", other, "")));
    compare(&project.store(), &["latest:main".to_owned(), "latest:other".to_owned()]).unwrap()
}

fn notes(comparison: &Comparison) -> Vec<&str> {
    comparison.notes.iter().map(|note| note.text.as_str()).collect()
}

#[test]
fn greedy_draws_are_not_compared_with_sampled_ones() {
    let comparison = compared(&drawn("a", "p", "b", 8, 4), &greedy("a", true));
    assert_eq!(comparison.flips, []);
    let text = "pass@1 is not compared: the baseline has sampled draws only, this side greedy draws only";
    assert_eq!(notes(&comparison), [text]);
}

#[test]
fn greedy_draws_are_compared_with_greedy_ones() {
    let comparison = compared(&greedy("a", false), &greedy("a", true));
    let flips = &comparison.flips[0];
    assert_eq!((flips.metric.as_str(), flips.difference.value, flips.won.len()), ("greedy pass@1", 1.0, 1));
}

#[test]
fn another_corpus_with_the_same_ids_is_not_compared() {
    let one = drawn("1", "p", "x", 8, 4) + &drawn("2", "q", "y", 8, 4);
    let comparison = compared(&one, &one.replace("\"p\"", "\"r\"").replace("\"q\"", "\"s\""));
    assert_eq!(comparison.flips, []);
    let text = "not compared: the two have no task in common (4 have the id of another problem)";
    assert_eq!(notes(&comparison), [text]);
}

#[test]
fn another_bug_of_a_problem_is_another_task() {
    let comparison = compared(
        &(drawn("a", "p", "x", 8, 0) + &drawn("a", "p", "y", 8, 8)),
        &(drawn("a", "p", "x", 8, 6) + &drawn("a", "p", "z", 8, 0)),
    );
    let flips = &comparison.flips[0];
    assert_eq!((flips.tasks, flips.problems, flips.difference.value), (1, 1, 0.75));
    let text =
        "1 task is compared; left out: 1 of the baseline, 1 of this side (2 are the same problem with another bug)";
    assert_eq!(notes(&comparison), [text]);
}

#[test]
fn the_difference_is_the_mean_over_tasks_however_many_draws_each_has() {
    let main = drawn("a", "p", "x", 8, 0) + &drawn("b", "p", "x", 2, 0);
    let comparison = compared(&main, &(drawn("a", "p", "x", 4, 4) + &drawn("b", "p", "x", 4, 0)));
    assert_eq!(comparison.flips[0].difference.value, 0.5);
}

#[test]
fn what_two_stages_of_a_side_have_is_compared_stage_by_stage() {
    let project = Project::new();
    let (half, all) = (drawn("a", "p", "b", 8, 4), drawn("a", "p", "b", 8, 8));
    project.run(
        &[
            stage("easy", "main", &half, "[\"loss\", 0.5]"),
            stage("hard", "main", &half, "[\"loss\", 0.25]"),
            stage("easy_too", "other", &all, "[\"loss\", 0.125]"),
        ]
        .concat(),
    );
    let store = project.store();
    let compare = |words: [&str; 2]| compare(&store, &words.map(str::to_owned));
    let whole = compare(["latest:main", "latest:other"]).unwrap();
    assert_eq!(whole.flips, []);
    assert!(notes(&whole)[0].starts_with("not compared: the baseline has results of easy, hard"), "{:?}", whole.notes);
    let losses: Vec<_> = whole
        .metrics
        .iter()
        .map(|line| {
            let value = |place: usize| line.figures[place].as_ref().map(|figure| figure.value);
            (line.stage.as_deref(), value(0), value(1))
        })
        .collect();
    let expected =
        [(Some("easy"), Some(0.5), None), (Some("hard"), Some(0.25), None), (Some("easy_too"), None, Some(0.125))];
    assert_eq!(losses, expected);
    let named = compare(["latest:main:hard", "latest:other"]).unwrap();
    assert_eq!(named.flips[0].difference.value, 0.5);
    assert!(named.sides[0].name().ends_with(":main@0:hard"), "{}", named.sides[0].name());
    let error = compare(["latest:main:easy_too", "latest:other"]).unwrap_err();
    assert!(matches!(&error, CompareError::NoStage { known, .. } if *known == ["easy", "hard"]), "{error}");
}

#[test]
fn the_table_of_a_comparison_has_the_adjusted_p() {
    let outcomes = |passes| ["a", "b", "c", "d", "e", "f"].map(|id| drawn(id, "p", "b", 8, passes)).concat();
    let project = Project::new();
    let metric = "[\"pass@1\", 0.5]";
    let sides = [("one", "main", 0), ("two", "other", 8), ("three", "third", 0)];
    project.run(&sides.map(|(name, variant, passes)| stage(name, variant, &outcomes(passes), metric)).concat());
    let words = ["latest:main", "latest:other", "latest:third"].map(str::to_owned);
    let lines = compare(&project.store(), &words).unwrap().lines();
    let close = |p: Option<f64>, expected: f64| p.is_some_and(|p| (p - expected).abs() < 1e-12);
    assert!(close(lines[0].p_value, 0.03125) && close(lines[0].p_adjusted, 0.0625), "{lines:?}");
    assert_eq!((lines[0].stage.as_deref(), lines[0].difference), (Some("two"), Some(1.0)));
}
