//! Files that change while the stage that reads them runs.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use tracetune_engine::runs::StageStatus;
use tracetune_engine::schedule::{Event, RunOptions, RunSummary, run};

use crate::support::{Project, int64s};

const TEXT: &str = "[stages.numbers]\nkind = \"numbers\"\nvalues = [1, 2, 3, 4, 6, 7]\n\
    [stages.double]\nkind = \"double\"\nrows = \"numbers\"\ntag = \"TAG\"\nneeds = \"f.txt\"\nsegment = 2\n";

/// Runs, and calls `edit` with the number of rows that `double` has done each time it says so.
fn run_with_edits(project: &Project, edit: &(dyn Fn(u64) + Sync)) -> (RunSummary, Vec<String>) {
    let notes = Mutex::new(Vec::new());
    let observer = |event: Event| match event {
        Event::StageProgress { done, .. } => edit(done),
        Event::StageNote { text, .. } => notes.lock().unwrap().push(text),
        _ => {}
    };
    let options = RunOptions::with_threads(1);
    let pipeline = project.pipeline(TEXT);
    let cancel = AtomicBool::new(false).into();
    let summary = run(&pipeline, &project.store(), &options, cancel, &observer).unwrap();
    (summary, notes.into_inner().unwrap())
}

fn doubles(project: &Project, summary: &RunSummary) -> Vec<i64> {
    let double = summary.nodes.iter().find(|node| node.id == "double").unwrap();
    assert_eq!(double.message, None);
    int64s(&project.store().table(&double.outputs["rows"].digest).unwrap(), "double")
}

#[test]
fn what_is_computed_while_a_file_changes_is_never_found_under_the_old_key() {
    let project = Project::new();
    let path = project.folder.path().join("f.txt");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write("100");
    let edited = AtomicBool::new(false);
    let (summary, notes) = run_with_edits(&project, &|done| {
        if done == 1 && !edited.swap(true, std::sync::atomic::Ordering::Relaxed) {
            write("200");
        }
    });
    assert_eq!(doubles(&project, &summary), [202, 204, 206, 208, 212, 214], "all rows are of the new bytes");
    assert!(notes[0].starts_with("`f.txt` changed since the stage's key was made"), "{notes:?}");
    write("100");
    let (summary, _) = run_with_edits(&project, &|_| ());
    assert_eq!(doubles(&project, &summary), [102, 104, 106, 108, 112, 114], "no row is taken for one of the old bytes");
}

#[test]
fn a_file_that_has_its_old_bytes_again_at_the_end_was_changed_all_the_same() {
    let project = Project::new();
    let path = project.folder.path().join("f.txt");
    let write = |text: &str, age_s: u64| {
        std::fs::write(&path, text).unwrap();
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(age_s);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    };
    write("100", 100);
    let edits = AtomicBool::new(false);
    let (summary, notes) = run_with_edits(&project, &|done| {
        if done == 1 && !edits.swap(true, std::sync::atomic::Ordering::Relaxed) {
            write("200", 50);
            write("100", 40);
        }
    });
    assert_eq!(doubles(&project, &summary), [102, 104, 106, 108, 112, 114]);
    assert_eq!(notes.len(), 1, "{notes:?}");
}

#[test]
fn a_file_that_never_rests_fails_the_stage_by_name() {
    let project = Project::new();
    let path = project.folder.path().join("f.txt");
    std::fs::write(&path, "0").unwrap();
    let edits = std::sync::atomic::AtomicU64::new(0);
    let (summary, _) = run_with_edits(&project, &|_| {
        let edit = edits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        std::fs::write(&path, edit.to_string()).unwrap();
    });
    let double = summary.nodes.iter().find(|node| node.id == "double").unwrap();
    assert_eq!(double.status, StageStatus::Failed);
    assert!(double.message.as_ref().unwrap().ends_with("f.txt` changed while the stage ran"), "{:?}", double.message);
}
