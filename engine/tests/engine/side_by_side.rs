//! Stages and rows side by side: with threads of one run, and with other runs.

use std::sync::Barrier;
use std::sync::atomic::AtomicBool;

use tracetune_engine::runs::StageStatus;
use tracetune_engine::schedule::{Machine, RunOptions};

use crate::support::{Project, Ran, int64s};

/// Rows of which some fail, some give two rows and some none, in segments of two.
fn text(rows: usize, double: &str) -> String {
    let values: Vec<String> = (0..rows).map(|row| (row as i64 % 7 - 1 + row as i64).to_string()).collect();
    format!(
        "[stages.numbers]\nkind = \"numbers\"\nvalues = [{}]\n\
         [stages.double]\nkind = \"double\"\nrows = \"numbers\"\ntag = \"TAG\"\nsegment = 2\n{double}\n\
         [stages.sum]\nkind = \"sum\"\nrows = \"double\"\n",
        values.join(", ")
    )
}

fn run(project: &Project, text: &str, options: &RunOptions) -> Ran {
    project.run_with(text, options, &AtomicBool::new(false).into())
}

#[test]
fn any_number_of_threads_gives_the_same_tables() {
    let text = text(60, "n = 3\nbad_rows = 9\npoison = 20");
    let digests = |threads| {
        let project = Project::new();
        let ran = run(&project, &text, &RunOptions::with_threads(threads));
        assert_eq!(ran.node("double").message, None);
        (ran.digest("double", "rows"), ran.digest("double", "bad"))
    };
    let expected = digests(1);
    for threads in [2, 3, 8, 100] {
        assert_eq!(digests(threads), expected, "{threads} threads");
    }
}

#[test]
fn chunks_of_one_stage_are_computed_at_the_same_time() {
    let project = Project::new();
    // Each row waits for a row of another chunk: one after the other they would wait for ever.
    let ran = run(&project, &text(4, "meet = 2"), &RunOptions::with_threads(2));
    assert_eq!(ran.node("double").rows_computed, 4);
}

#[test]
fn runs_of_one_stage_share_its_rows() {
    let project = Project::new();
    let text = text(40, "sleep_ms = 5");
    let barrier = Barrier::new(3);
    let ran: Vec<Ran> = std::thread::scope(|scope| {
        let start = || {
            barrier.wait();
            run(&project, &text, &RunOptions::with_threads(2))
        };
        let runs: Vec<_> = (0..3).map(|_| scope.spawn(start)).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let computed: Vec<u64> = ran.iter().map(|ran| ran.node("double").rows_computed).collect();
    assert_eq!(computed.iter().sum::<u64>(), 40, "{computed:?}: each row once");
    assert!(computed.iter().filter(|&&rows| rows > 0).count() > 1, "{computed:?}: more than one run computes");
    assert!(ran.iter().all(|one| one.digest("double", "rows") == ran[0].digest("double", "rows")));
}

#[test]
fn only_the_stages_that_are_asked_for_run_and_what_they_need() {
    let project = Project::new();
    let options = RunOptions { only: vec![1], ..RunOptions::with_threads(2) };
    let ran = run(&project, &text(4, ""), &options);
    assert_eq!(ran.statuses(), ["numbers computed", "double computed", "sum skipped"]);
    assert_eq!(ran.node("sum").message.as_deref(), Some("it was not asked for"));
    assert_eq!(ran.summary.status, tracetune_engine::runs::RunStatus::Done);
}

#[test]
fn a_forced_stage_computes_all_its_rows_again() {
    let project = Project::new();
    let text = text(6, "needs = \"outside.txt\"").replace("needs = ", "reads = ");
    let path = project.folder.path().join("outside.txt");
    std::fs::write(&path, "100").unwrap();
    let doubles = |ran: &Ran| int64s(&project.store().table(&ran.digest("double", "rows")).unwrap(), "double");
    let first = run(&project, &text, &RunOptions::with_threads(2));
    // What no key covers changes: nobody notices, until the stage is forced.
    std::fs::write(&path, "200").unwrap();
    let cached = run(&project, &text, &RunOptions::with_threads(2));
    assert_eq!((cached.computed, doubles(&cached)), (0, doubles(&first)));
    let forced = run(&project, &text, &RunOptions { forced: vec![1], ..RunOptions::with_threads(2) });
    assert_eq!(forced.node("double").rows_computed, 6);
    let expected: Vec<i64> = doubles(&first).iter().map(|double| double + 100).collect();
    assert_eq!(doubles(&forced), expected);
    assert!(format!("{:?}", forced.events).contains("computed again, it gave other bytes"));
    assert_eq!(forced.node("sum").status, StageStatus::Computed);
    let later = run(&project, &text, &RunOptions::with_threads(2));
    assert_eq!((later.computed, doubles(&later)), (0, expected), "the new rows are in the place of the old ones");
}

#[test]
fn a_stage_that_takes_too_long_is_ended_by_name() {
    let project = Project::new();
    let ran = run(&project, &text(400, "sleep_ms = 20\ntimeout_s = 0.2"), &RunOptions::with_threads(1));
    let message = ran.node("double").message.clone().unwrap();
    assert_eq!(message, "it ran longer than `timeout_s = 0.2`; what it had finished is kept");
    assert_eq!(ran.node("double").status, StageStatus::Failed);
}

#[test]
fn a_stage_that_needs_more_slots_than_there_are_says_how_to_have_them() {
    let project = Project::new();
    let text = text(2, "slots = { gpu = 2 }");
    let ran = run(&project, &text, &RunOptions::with_threads(1));
    assert_eq!(ran.node("double").message.as_deref(), Some("it needs 2 of `gpu`, and the run has 1"));
    let machine = Machine { slots: [("gpu".to_owned(), 2)].into(), ..Machine::default() };
    let ran = run(&project, &text, &RunOptions { machine, ..RunOptions::default() });
    assert_eq!(ran.node("double").status, StageStatus::Computed);
}
