//! Whatever fails at whatever moment: the next run ends with the same bytes.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Project, Ran};
use tracetune_engine::cache::Digest;
use tracetune_engine::runs::{self, RunStatus};
use tracetune_engine::schedule::RunOptions;

const TEXT: &str = "[stages.numbers]\nkind = \"numbers\"\nvalues = [1, 2, 3, 4, 6, 7, 8, 9]\n\
                    [stages.double]\nkind = \"double\"\nrows = \"numbers\"\ntag = \"TAG\"\nsegment = 2\nSLEEP\n\
                    [stages.sum]\nkind = \"sum\"\nrows = \"double\"\n\
                    [stages.keep]\nkind = \"keep\"\nfrom = \"double\"\n";

fn digests(ran: &Ran) -> Vec<Digest> {
    ran.summary.nodes.iter().flat_map(|node| node.outputs.values().map(|output| output.digest)).collect()
}

#[test]
fn a_disk_that_fails_at_any_write_loses_no_truth() {
    let text = TEXT.replace("SLEEP", "");
    let expected = digests(&Project::new().run(&text));
    let mut failures = 0;
    for write in 1.. {
        let project = Project::new();
        let store = project.store();
        store.fail_write(write);
        let options = RunOptions::with_threads(1);
        match project.run_on(&store, &text, &options, &Default::default()) {
            // The run went through before that many writes.
            Ok(ran) if ran.summary.status == RunStatus::Done => break,
            Ok(ran) => {
                let failed = ran.summary.nodes.iter().find_map(|node| node.message.as_ref()).unwrap();
                assert!(failed.contains("can't write in"), "write {write}: {failed}");
            }
            Err(error) => assert!(error.to_string().contains("can't write in"), "write {write}: {error}"),
        }
        failures += 1;
        drop(store);
        let again = project.run(&text);
        assert_eq!((again.summary.status, digests(&again)), (RunStatus::Done, expected.clone()), "write {write}");
    }
    assert!(failures > 20, "only {failures} writes were seen");
}

#[test]
fn a_disk_that_fails_at_any_read_loses_no_truth() {
    let text = TEXT.replace("SLEEP", "") + "[stages.again]\nkind = \"keep\"\nmodel = \"keep\"\n";
    let expected = digests(&Project::new().run(&text));
    let mut failures = 0;
    for read in 1.. {
        let project = Project::new();
        // Half of it is cached, so that records and segments are read, too.
        project.run(&TEXT.replace("SLEEP", "").replace(", 8, 9]", "]"));
        let store = project.store();
        store.fail_read(read);
        let ran = project.run_on(&store, &text, &RunOptions::with_threads(1), &Default::default());
        match ran {
            Ok(ran) if ran.summary.status == RunStatus::Done => {
                assert_eq!(digests(&ran), expected, "read {read}");
                if store.reads_left() > 0 {
                    break;
                }
            }
            Ok(ran) => {
                let failed = ran.summary.nodes.iter().find_map(|node| node.message.as_ref()).unwrap();
                assert!(failed.contains("can't read"), "read {read}: {failed}");
                failures += 1;
            }
            Err(error) => assert!(error.to_string().contains("can't read"), "read {read}: {error}"),
        }
        drop(store);
        let again = project.run(&text);
        assert_eq!((again.summary.status, digests(&again)), (RunStatus::Done, expected.clone()), "read {read}");
    }
    assert!(failures > 5, "only {failures} reads were seen");
}

/// The folder in which the child works.
const FOLDER: &str = "TRACETUNE_TEST_FOLDER";

/// Not a test of its own: what [`a_killed_process_loses_the_segment_in_flight`] starts and kills.
#[test]
fn child_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let project = Project::new();
    let store = tracetune_engine::cache::Store::open(std::path::Path::new(&folder).join(".tracetune")).unwrap();
    let text = TEXT.replace("SLEEP", "sleep_ms = 40").replace("TAG", &folder.to_string_lossy());
    project.run_on(&store, &text, &RunOptions::default(), &Default::default()).unwrap();
}

#[test]
fn a_killed_process_loses_the_segment_in_flight() {
    let text = TEXT.replace("SLEEP", "");
    let undisturbed = digests(&Project::new().run(&text));
    for segments in [1, 3] {
        let project = Project::new();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "recovery::child_that_is_killed"])
            .env(FOLDER, project.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while written_segments(&project) < segments {
            assert!(started.elapsed() < Duration::from_secs(60), "the child writes no segments");
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let written = written_segments(&project);
        let killed = runs::load(&project.store(), "latest").unwrap();
        assert_eq!(killed.record.status, RunStatus::Interrupted);

        let again = project.run(&text);
        assert_eq!((again.summary.status, digests(&again)), (RunStatus::Done, undisturbed.clone()));
        assert_eq!(again.node("double").rows_computed, 8 - 2 * written as u64, "{written} segments were written");
        let left: Vec<_> = std::fs::read_dir(project.store_folder().join("tmp")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// The text of the table that several processes compute, given to a child.
const SHARED: &str = "TRACETUNE_TEST_SHARED";

fn shared_text() -> String {
    let values: Vec<String> = (0..90).map(|value| value.to_string()).collect();
    let values = format!("values = [{}]", values.join(", "));
    TEXT.replace("values = [1, 2, 3, 4, 6, 7, 8, 9]", &values)
}

/// Not a test of its own: one of those that [`processes_that_share_a_stage_and_are_killed_compute_each_row_once`] starts.
#[test]
fn child_that_shares_a_stage() {
    let Some(folder) = std::env::var_os(SHARED) else { return };
    let project = Project::new();
    let store = tracetune_engine::cache::Store::open(std::path::Path::new(&folder).join(".tracetune")).unwrap();
    let text = shared_text().replace("SLEEP", "sleep_ms = 5").replace("TAG", &folder.to_string_lossy());
    project.run_on(&store, &text, &RunOptions::with_threads(2), &Default::default()).unwrap();
}

/// Three processes at one stage, killed again and again. `TRACETUNE_TEST_KILLS` sets how many are killed.
#[test]
fn processes_that_share_a_stage_and_are_killed_compute_each_row_once() {
    let kills: usize = std::env::var("TRACETUNE_TEST_KILLS").map_or(6, |kills| kills.parse().unwrap());
    let text = shared_text().replace("SLEEP", "");
    let undisturbed = digests(&Project::new().run(&text));
    let mut killed = 0;
    while killed < kills {
        let project = Project::new();
        let start = || {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "recovery::child_that_shares_a_stage"])
                .env(SHARED, project.folder.path())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        let mut children: Vec<_> = (0..3).map(|_| start()).collect();
        for round in 0..6 {
            // Moments all over the stage, other ones in each round.
            std::thread::sleep(Duration::from_millis(20 + (killed as u64 * 37 + round * 23) % 90));
            let victim = (killed + round as usize) % children.len();
            children[victim].kill().unwrap();
            children[victim].wait().unwrap();
            children[victim] = start();
            killed += 1;
        }
        children.iter_mut().for_each(|child| _ = child.wait().unwrap());
        let last = project.run(&text);
        assert_eq!((last.summary.status, digests(&last)), (RunStatus::Done, undisturbed.clone()));
        let store = project.store();
        let run = runs::load(&store, "latest").unwrap();
        let double = run.record.nodes.iter().find(|node| node.id == "double").unwrap();
        let segments = store.segment_records(&double.signature.unwrap()).unwrap();
        let recorded: u64 = segments.iter().map(|segment| segment.items).sum();
        assert_eq!(recorded, 90, "a row that is recorded is computed by nobody else");
    }
}

fn written_segments(project: &Project) -> usize {
    let folders = |path: std::path::PathBuf| {
        std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let signatures = folders(project.folder.path().join(".tracetune/segments")).into_iter().flat_map(folders);
    signatures.flat_map(folders).count()
}
