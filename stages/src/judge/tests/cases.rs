//! Small programs whose verdict plain CPython knows (`cases.jsonl`: id, source, setup, tests, cpython).

use super::*;
use crate::python::Python;

/// Names interpreters beside `python3.10` to `python3.13` on the search path, separated by colons.
const PYTHONS_VARIABLE: &str = "TRACETUNE_TEST_PYTHONS";

/// What we decide otherwise on purpose, or can't offer.
const OTHERWISE: &[(&str, &str)] = &[
    // An object that says it equals everything is no evidence of a right value.
    ("eq-always-true-in-list", "fail"),
    // No packages here, and no processes.
    ("third-party-numpy", "error:ModuleNotFoundError"),
    ("subprocess", "error:PermissionError"),
];
/// Syntax that came or went with a release: the case, and the first release on which the verdict of `cases.jsonl` does not hold.
const NEW_SYNTAX: &[(&str, (u32, u32))] = &[("type-alias", (3, 12))];
const NEEDS: &[(&str, (u32, u32))] = &[("exc-group", (3, 11))];

#[derive(serde::Deserialize)]
struct Case {
    id: String,
    source: String,
    setup: String,
    tests: Vec<String>,
    cpython: String,
}

fn cases() -> Vec<Case> {
    include_str!("cases.jsonl").lines().map(|line| serde_json::from_str(line).expect("a case")).collect()
}

fn interpreters() -> Vec<Python> {
    let named = std::env::var(PYTHONS_VARIABLE).unwrap_or_default();
    let usual = (10..=13).map(|minor| format!("python3.{minor}"));
    let mut found: Vec<Python> = named
        .split(':')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .chain(usual)
        .filter_map(|name| Python::probe(&name).ok())
        .chain(Python::find().ok())
        .collect();
    found.sort_by_key(Python::release);
    found.dedup_by_key(|python| python.release());
    found
}

/// The verdict in the words of `cases.jsonl`: an exception by its class.
fn word(verdict: &Verdict) -> String {
    match verdict.outcome {
        Outcome::Error => {
            let words = verdict.detail.split_once(": ").map_or("", |(_, words)| words);
            let class = words.split([':', ' ']).next().unwrap_or_default();
            format!("error:{class}")
        }
        outcome => outcome.to_string(),
    }
}

#[test]
fn verdicts_are_those_of_plain_cpython() {
    let cases = cases();
    for python in interpreters() {
        let sandbox = Sandbox::start(&python, Limits::default(), 2).expect("the sandbox starts");
        let scratch = sandbox.layers().present.iter().any(|layer| layer.contains("namespaces"));
        let job = |case: &Case, reference: bool| Job {
            source: case.source.clone(),
            setup: case.setup.clone(),
            tests: case.tests.clone(),
            reference: (reference && case.cpython == "pass").then(|| case.source.clone()),
            ..Job::default()
        };
        for with_reference in [false, true] {
            let jobs: Vec<Job> = cases.iter().map(|case| job(case, with_reference)).collect();
            let verdicts = judge(&sandbox, &jobs, &|| false, &|_| {}).expect("the sandbox works");
            let mut wrong = Vec::new();
            for (case, verdict) in cases.iter().zip(&verdicts) {
                let release = python.release();
                let listed =
                    |table: &[(&str, (u32, u32))]| table.iter().find(|(id, _)| *id == case.id).map(|(_, at)| *at);
                if listed(NEW_SYNTAX).is_some_and(|at| release >= at) || listed(NEEDS).is_some_and(|at| release < at) {
                    continue;
                }
                let otherwise = OTHERWISE.iter().find(|(id, _)| *id == case.id).map(|(_, word)| *word);
                // A reference that equals everything takes the comparison inside, where it does.
                let expected = otherwise.filter(|word| *word != "fail" || !with_reference).unwrap_or(&case.cpython);
                let files = case.id == "tempfile" && !scratch;
                if word(verdict) != expected && !files {
                    wrong.push(format!("{}: {}, not {expected}: {}", case.id, word(verdict), verdict.detail));
                }
            }
            assert!(wrong.is_empty(), "{}:\n{}", python.version, wrong.join("\n"));
        }
    }
}

#[test]
fn most_comparisons_are_made_outside() {
    let Some(sandbox) = sandbox() else { return };
    let jobs: Vec<Job> = cases()
        .into_iter()
        .flat_map(|case| {
            let job = move |test: String| Job {
                source: case.source.clone(),
                setup: case.setup.clone(),
                tests: vec![test],
                ..Job::default()
            };
            case.tests.clone().into_iter().map(job)
        })
        .collect();
    let suites = prepare(sandbox, &jobs, &|| false).expect("the sandbox works");
    let outside = jobs.iter().filter(|job| {
        suites
            .get(job)
            .is_some_and(|suite| suite.as_ref().as_ref().is_ok_and(|suite| suite.judged() == Judged::Outside))
    });
    assert_eq!((outside.count(), jobs.len()), (OUTSIDE, ALL));
}

/// The tests of all cases, and those that are judged outside without a reference.
const ALL: usize = 141;
const OUTSIDE: usize = 111;
