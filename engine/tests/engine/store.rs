//! What the store does when its files are damaged, gone, or can't be written.

use std::path::PathBuf;

use crate::support::{Number, Project, Ran};
use tracetune_engine::cache::{CacheError, Digest};
use tracetune_engine::runs::{self, Keep, RunStatus};
use tracetune_engine::table::Record;

const TEXT: &str = "[stages.numbers]\nkind = \"numbers\"\nvalues = [1, 2, 3]\n\
                    [stages.double]\nkind = \"double\"\nrows = \"numbers\"\ntag = \"TAG\"\n\
                    [stages.sum]\nkind = \"sum\"\nrows = \"double\"\n";

fn object(project: &Project, digest: &Digest) -> PathBuf {
    let digest = digest.to_string();
    project.store().root().join("objects").join(&digest[..2]).join(digest)
}

fn damage(project: &Project, digest: &Digest) {
    let path = object(project, digest);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
}

fn digests(ran: &Ran) -> Vec<Digest> {
    vec![ran.digest("numbers", "rows"), ran.digest("double", "rows"), ran.digest("sum", "total")]
}

#[test]
fn an_object_has_the_digest_of_its_bytes() {
    let project = Project::new();
    let ran = project.run(TEXT);
    for digest in digests(&ran) {
        let bytes = std::fs::read(object(&project, &digest)).unwrap();
        assert_eq!(Digest::from(blake3::hash(&bytes)), digest);
    }
}

#[test]
fn a_damaged_input_is_noticed_and_computed_again() {
    let project = Project::new();
    let first = project.run(TEXT);
    damage(&project, &first.digest("double", "rows"));
    // Only a stage that runs reads its inputs.
    let changed = TEXT.to_owned() + "divide = 1\n";
    let ran = project.run(&changed);
    assert_eq!(ran.summary.status, RunStatus::Done);
    assert_eq!(ran.statuses(), ["numbers cached", "double computed", "sum computed"]);
    assert_eq!(ran.computed, 0, "the segments still have the rows");
    assert_eq!(ran.digest("double", "rows"), first.digest("double", "rows"));
    assert!(project.store().table(&first.digest("double", "rows")).is_ok());
}

#[test]
fn a_truncated_object_is_a_miss() {
    let project = Project::new();
    let first = project.run(TEXT);
    let path = object(&project, &first.digest("numbers", "rows"));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "PAR1").unwrap();
    let ran = project.run(TEXT);
    assert_eq!(ran.statuses(), ["numbers computed", "double cached", "sum cached"]);
    assert_eq!(digests(&ran), digests(&first));
}

#[test]
fn a_damaged_segment_is_computed_again() {
    let project = Project::new();
    let first = project.run(TEXT);
    let segments = project.store().root().join("segments");
    let record = walk(&segments).into_iter().next().unwrap();
    let segment: Digest = record.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    damage(&project, &segment);
    std::fs::remove_file(object(&project, &first.digest("double", "rows"))).unwrap();
    let ran = project.run(TEXT);
    assert_eq!((ran.summary.status, ran.computed), (RunStatus::Done, 3));
    assert_eq!(digests(&ran), digests(&first));
}

#[test]
fn a_record_that_makes_no_sense_is_a_miss() {
    let project = Project::new();
    let first = project.run(TEXT);
    for path in walk(&project.store().root().join("actions")) {
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "{\"key\"").unwrap();
    }
    let ran = project.run(TEXT);
    assert_eq!(ran.statuses(), ["numbers computed", "double computed", "sum computed"]);
    assert_eq!(digests(&ran), digests(&first));
}

#[test]
fn a_damaged_model_is_computed_again() {
    let project = Project::new();
    let text = "[stages.a]\nkind = \"numbers\"\nvalues = [1, 2]\n[stages.b]\nkind = \"keep\"\nfrom = \"a\"\n";
    let first = project.run(text);
    let file = first.node("b").outputs["model"].files.iter().find(|file| file.bytes > 0).unwrap().digest;
    damage(&project, &file);
    let ran = project.run(&format!("{text}[stages.c]\nkind = \"keep\"\nmodel = \"b\"\n"));
    assert_eq!(ran.summary.status, RunStatus::Done);
    assert_eq!(ran.statuses(), ["a cached", "b computed", "c computed"]);
}

#[test]
fn a_write_that_fails_leaves_nothing_and_names_the_path() {
    let project = Project::new();
    let store = project.store();
    let number = Number { id: "a".to_owned(), value: 1, extra: "b".to_owned() };
    let batch = Number::write(&[number]).unwrap();
    let digest = store.put_table(&batch).unwrap().digest;
    std::fs::remove_dir_all(store.root().join("objects")).unwrap();
    // A file where the folder should be: root may write in read-only folders, but not this.
    std::fs::write(store.root().join("objects"), "in the way").unwrap();
    let error = store.put_table(&batch).unwrap_err();
    assert!(matches!(&error, CacheError::Io { path, .. } if path.starts_with(store.root().join("objects"))), "{error}");
    assert!(error.to_string().contains(&digest.to_string()[..2]), "{error}");
    assert_eq!(walk(&store.root().join("tmp")), Vec::<PathBuf>::new());
}

#[test]
fn a_full_disk_fails_the_stage_and_the_next_run_goes_on() {
    let project = Project::new();
    project.run(TEXT);
    let actions = project.store().root().join("actions");
    let aside = project.store().root().join("aside");
    std::fs::rename(&actions, &aside).unwrap();
    std::fs::write(&actions, "in the way").unwrap();
    let changed = TEXT.replace("[1, 2, 3]", "[1, 2, 3, 4]");
    let ran = project.run(&changed);
    assert_eq!(ran.summary.status, RunStatus::Failed);
    assert!(ran.node("numbers").message.as_ref().unwrap().contains("actions"));
    std::fs::remove_file(&actions).unwrap();
    std::fs::rename(&aside, &actions).unwrap();
    let ran = project.run(&changed);
    assert_eq!((ran.summary.status, ran.computed), (RunStatus::Done, 1));
}

#[test]
fn verifying_finds_what_is_damaged() {
    let project = Project::new();
    let ran = project.run(TEXT);
    let store = project.store();
    assert_eq!(store.verify(|_, _| {}).unwrap().damaged, []);
    let digest = ran.digest("double", "rows");
    damage(&project, &digest);
    let verified = store.verify(|_, _| {}).unwrap();
    // Three outputs and the segment.
    assert_eq!((verified.objects, verified.damaged), (4, vec![digest]));
    assert_eq!(project.run(TEXT).statuses(), ["numbers cached", "double computed", "sum cached"]);
}

#[test]
fn clearing_leaves_what_the_last_runs_need() {
    let project = Project::new();
    project.run(TEXT);
    // Files have times of a kernel tick's width.
    std::thread::sleep(std::time::Duration::from_millis(20));
    let other = TEXT.replace("[1, 2, 3]", "[4, 5]");
    project.run(&other);
    let store = project.store();
    let keep = |runs: usize| Keep { runs, ..Keep::default() };
    let all = runs::clear(&store, keep(2), true).unwrap();
    assert_eq!((all.records, all.objects), (0, 0));
    let would = runs::clear(&store, keep(1), true).unwrap();
    let cleared = runs::clear(&store, keep(1), false).unwrap();
    assert_eq!(would, cleared);
    // Two tables: `sum` gave both runs the same, and the rows have one signature, so their segments stay.
    assert_eq!(cleared.objects, 2);
    assert_eq!(project.run(&other).statuses(), ["numbers cached", "double cached", "sum cached"]);
    let again = project.run(TEXT);
    assert_eq!(
        (again.statuses(), again.computed),
        (["numbers computed", "double computed", "sum computed"].map(String::from).to_vec(), 0)
    );
}

#[test]
fn what_a_dead_process_left_is_swept() {
    let project = Project::new();
    let store = project.store();
    let left = store.root().join("tmp/process-dead");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("new-1"), "half").unwrap();
    store.put_bytes(b"x").unwrap();
    assert!(!left.exists());
    // Another store in use is left alone.
    let other = project.store();
    other.put_bytes(b"y").unwrap();
    store.put_bytes(b"z").unwrap();
}

/// All files below a folder.
fn walk(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}
