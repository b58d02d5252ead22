//! Interrupted, failed, killed and concurrent runs.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Barrier};

use crate::support::Project;
use tracetune_engine::runs::{RunStatus, StageStatus};
use tracetune_engine::schedule::{Event, RunOptions};

fn text(double: &str) -> String {
    format!(
        "[stages.numbers]\nkind = \"numbers\"\nvalues = [1, 2, 3, 4, 6, 7, 8]\n\
         [stages.double]\nkind = \"double\"\nrows = \"numbers\"\ntag = \"TAG\"\nsegment = 2\n{double}\n\
         [stages.sum]\nkind = \"sum\"\nrows = \"double\"\n"
    )
}

#[test]
fn after_a_failure_only_the_unfinished_segments_are_computed() {
    let undisturbed = Project::new().run(&text("")).digest("double", "rows");
    for (poison, finished) in [(1, 0), (3, 2), (4, 2), (8, 6)] {
        let project = Project::new();
        let failed = project.run_with(
            &text(&format!("poison = {poison}")),
            &RunOptions::with_threads(1),
            &AtomicBool::new(false).into(),
        );
        assert_eq!(failed.summary.status, RunStatus::Failed);
        assert_eq!(failed.statuses(), ["numbers computed", "double failed", "sum skipped"]);
        let resumed = project.run(&text(""));
        assert_eq!(resumed.node("double").rows_computed, 7 - finished, "poison at {poison}");
        assert_eq!(resumed.digest("double", "rows"), undisturbed);
    }
}

#[test]
fn an_interrupted_run_keeps_its_segments() {
    let undisturbed = Project::new().run(&text("")).digest("double", "rows");
    let project = Project::new();
    let interrupted =
        project.run_with(&text("interrupt = 6"), &RunOptions::with_threads(1), &AtomicBool::new(false).into());
    assert_eq!(interrupted.summary.status, RunStatus::Interrupted);
    assert_eq!(interrupted.statuses(), ["numbers computed", "double interrupted", "sum interrupted"]);
    let resumed = project.run(&text(""));
    assert_eq!((resumed.summary.status, resumed.node("double").rows_computed), (RunStatus::Done, 3));
    assert_eq!(resumed.digest("double", "rows"), undisturbed);
}

#[test]
fn a_run_that_is_cancelled_at_once_starts_nothing() {
    let project = Project::new();
    let ran = project.run_with(&text(""), &RunOptions::default(), &Arc::new(AtomicBool::new(true)));
    assert_eq!(ran.summary.status, RunStatus::Interrupted);
    assert!(ran.summary.nodes.iter().all(|node| node.status == StageStatus::Interrupted));
}

#[test]
fn two_runs_at_once_compute_each_item_once() {
    let project = Project::new();
    // The tables differ, so the actions differ; most rows are the same.
    let texts = [text("sleep_ms = 5"), text("sleep_ms = 5").replace("[1, ", "[9, ")];
    let barrier = Barrier::new(texts.len());
    std::thread::scope(|scope| {
        let runs: Vec<_> = texts
            .iter()
            .map(|text| {
                scope.spawn(|| {
                    barrier.wait();
                    project.run(text)
                })
            })
            .collect();
        let ran: Vec<_> = runs.into_iter().map(|run| run.join().unwrap()).collect();
        assert!(ran.iter().all(|ran| ran.summary.status == RunStatus::Done));
        let computed: u64 = ran.iter().map(|ran| ran.node("double").rows_computed).sum();
        assert_eq!(computed, 7 + 1);
    });
}

#[test]
fn the_same_pipeline_twice_at_once_computes_each_stage_and_row_once() {
    let project = Project::new();
    let barrier = Barrier::new(2);
    std::thread::scope(|scope| {
        let start = || {
            barrier.wait();
            project.run(&text("sleep_ms = 5"))
        };
        let (first, second) = (scope.spawn(start), scope.spawn(start));
        let (first, second) = (first.join().unwrap(), second.join().unwrap());
        for node in ["numbers", "sum"] {
            let computed =
                [&first, &second].iter().filter(|ran| ran.node(node).status == StageStatus::Computed).count();
            assert_eq!(computed, 1, "{node}");
        }
        let rows = first.node("double").rows_computed + second.node("double").rows_computed;
        assert_eq!(rows, 7);
        assert_eq!(first.digest("double", "rows"), second.digest("double", "rows"));
        assert_ne!(first.summary.run_id, second.summary.run_id);
    });
}

const FAILING: &str = "[stages.bad]\nkind = \"fail\"\nhow = \"HOW\"\n\
                       [stages.after]\nkind = \"keep\"\nfrom = \"bad\"\n\
                       [stages.other]\nkind = \"numbers\"\nvalues = [1]\n\
                       [stages.later]\nkind = \"keep\"\nfrom = \"other\"\n";

#[test]
fn what_needs_a_failed_stage_is_skipped() {
    let options = RunOptions { keep_going: true, ..RunOptions::with_threads(1) };
    let ran = Project::new().run_with(&FAILING.replace("HOW", "error"), &options, &Arc::default());
    assert_eq!(ran.summary.status, RunStatus::Failed);
    assert_eq!(ran.statuses(), ["bad failed", "after skipped", "other computed", "later computed"]);
    assert_eq!(ran.node("after").message.as_deref(), Some("it needs `bad`, which failed"));
    let help = ran.events.iter().find_map(|event| match event {
        Event::StageFailed { error, help, .. } => Some((error.as_str(), help.as_deref())),
        _ => None,
    });
    assert_eq!(help, Some(("no interpreter", Some("install one"))));
}

#[test]
fn a_failure_ends_the_run_unless_it_is_told_to_keep_going() {
    let options = RunOptions::with_threads(1);
    let ran = Project::new().run_with(&FAILING.replace("HOW", "error"), &options, &Arc::default());
    assert_eq!(ran.statuses()[..2], ["bad failed", "after skipped"]);
    assert_eq!(ran.node("later").message.as_deref(), Some("`bad` failed"));
}

#[test]
fn a_kind_that_breaks_its_word_is_named() {
    for (how, message) in [
        ("panic", "kind `fail` panicked: a kind's bug"),
        ("no output", "kind `fail` did not give its output `total`"),
        ("wrong output", "kind `fail` gave an output `total` with a column `id` that it does not declare"),
        ("directory", "kind `fail` gave an output `total` that is a directory, not a table"),
    ] {
        let ran = Project::new().run(&FAILING.replace("HOW", how));
        assert_eq!(ran.node("bad").message.as_deref(), Some(message));
    }
}

#[test]
fn a_key_that_can_not_be_made_is_an_error_and_nothing_is_cached() {
    let project = Project::new();
    let ran = project.run(&text("needs = \"there.txt\""));
    assert_eq!(ran.statuses(), ["numbers computed", "double failed", "sum skipped"]);
    assert!(ran.node("double").message.as_ref().unwrap().contains("there.txt"));
    std::fs::write(project.folder.path().join("there.txt"), "1").unwrap();
    assert_eq!(project.run(&text("needs = \"there.txt\"")).computed, 7);
    std::fs::write(project.folder.path().join("there.txt"), "2").unwrap();
    assert_eq!(project.run(&text("needs = \"there.txt\"")).computed, 7);
}
