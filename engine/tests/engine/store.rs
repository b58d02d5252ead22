//! What the store does when its files are damaged, gone, or can't be written.

use std::path::PathBuf;

use crate::support::{Number, Project, Ran};
use tracetune_engine::cache::{CacheError, Digest, Store};
use tracetune_engine::runs::{self, Keep, RunStatus};
use tracetune_engine::schedule::RunOptions;
use tracetune_engine::table::Record;

const TEXT: &str = "[stages.numbers]\nkind = \"numbers\"\nvalues = [1, 2, 3]\n\
                    [stages.double]\nkind = \"double\"\nrows = \"numbers\"\ntag = \"TAG\"\n\
                    [stages.sum]\nkind = \"sum\"\nrows = \"double\"\n";

fn object(project: &Project, digest: &Digest) -> PathBuf {
    let digest = digest.to_string();
    project.store_folder().join("objects").join(&digest[..2]).join(digest)
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
    let segments = project.store_folder().join("segments");
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
    for path in walk(&project.store_folder().join("actions")) {
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

/// `a` gives a table, `b` a folder with a number, `c` reads `b`'s folder and counts on.
const FOLDERS: &str = "[stages.a]\nkind = \"numbers\"\nvalues = [1, 2]\n[stages.b]\nkind = \"keep\"\nfrom = \"a\"\n\
                       [stages.c]\nkind = \"keep\"\nmodel = \"b\"\n";

/// Damages what is at a path in place: whatever is linked to it is damaged as well.
fn damage_in_place(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let damaged: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
    let time = std::fs::metadata(path).unwrap().modified().unwrap();
    std::fs::write(path, damaged).unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn an_unpacked_folder_whose_object_was_damaged_is_not_used() {
    let project = Project::new();
    let first = project.run(FOLDERS);
    let file = first.node("b").outputs["model"].files.iter().find(|file| file.bytes > 0).unwrap().digest;
    damage_in_place(&object(&project, &file));
    let options = RunOptions { forced: vec![2], ..RunOptions::with_threads(1) };
    let ran = project.run_with(FOLDERS, &options, &Default::default());
    assert_eq!(ran.statuses(), ["a cached", "b computed", "c computed"]);
    assert_eq!(ran.digest("c", "model"), first.digest("c", "model"));
}

#[test]
fn an_unpacked_folder_that_was_changed_is_unpacked_again() {
    let project = Project::new();
    let first = project.run(FOLDERS);
    let folder = project.store_folder().join("models").join(first.digest("b", "model").to_string());
    let path = folder.join("sub/rows.txt");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "3").unwrap();
    let options = RunOptions { forced: vec![2], ..RunOptions::with_threads(1) };
    let ran = project.run_with(FOLDERS, &options, &Default::default());
    assert_eq!(ran.statuses(), ["a cached", "b cached", "c computed"]);
    assert_eq!(ran.digest("c", "model"), first.digest("c", "model"));
    assert_eq!(std::fs::read_to_string(path).unwrap(), "2");
}

#[test]
fn verifying_removes_unpacked_folders_that_are_damaged() {
    let project = Project::new();
    let first = project.run(FOLDERS);
    let folder = project.store_folder().join("models").join(first.digest("b", "model").to_string());
    std::fs::remove_file(folder.join("sub/rows.txt")).unwrap();
    let verified = project.store().verify(|_, _| ()).unwrap();
    assert_eq!((verified.damaged.len(), verified.unpacked, folder.exists()), (0, 1, false));
    assert_eq!(project.store().verify(|_, _| ()).unwrap().unpacked, 0);
}

#[test]
fn a_store_says_that_it_is_no_part_of_a_backup_or_a_repository() {
    let project = Project::new();
    project.store();
    let tag = std::fs::read_to_string(project.store_folder().join("CACHEDIR.TAG")).unwrap();
    assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55"));
    assert_eq!(std::fs::read_to_string(project.store_folder().join(".gitignore")).unwrap(), "*\n");
}

#[test]
fn a_read_only_store_gives_what_it_has_and_stays_as_it_is() {
    let project = Project::new();
    project.run(TEXT);
    let metrics = "[stages.results]\nkind = \"results\"\nmetrics = [[\"loss\", 0.5]]\n";
    project.run(&format!("{TEXT}{metrics}"));
    let entries = || {
        let stamp = |path: &PathBuf| std::fs::metadata(path).unwrap().modified().unwrap();
        walk(&project.store_folder()).into_iter().map(|path| (stamp(&path), path)).collect::<Vec<_>>()
    };
    let before = entries();
    let store = Store::open_read_only(project.store_folder()).unwrap();
    assert!(store.is_read_only());
    let run = |text: &str| project.run_on(&store, text, &RunOptions::with_threads(2), &Default::default()).unwrap();
    let ran = run(&format!("{TEXT}{metrics}"));
    assert_eq!((ran.summary.status, ran.computed), (RunStatus::Done, 0));
    assert!(ran.statuses().iter().all(|status| status.ends_with(" cached")), "{:?}", ran.statuses());
    let folder = &ran.summary.folder;
    assert!(!folder.starts_with(project.folder.path()), "{}", folder.display());
    let kept = runs::load(&store, &folder.to_string_lossy()).unwrap();
    assert_eq!(kept.metric_lines().unwrap()[0].value, 0.5);
    let failed = run(&TEXT.replace("[1, 2, 3]", "[1, 2, 4]"));
    assert_eq!(failed.summary.status, RunStatus::Failed);
    let message = failed.node("numbers").message.clone().unwrap();
    assert_eq!(message, format!("the store `{}` is read-only", project.store_folder().display()));
    assert_eq!(runs::list(&store).unwrap().len(), 2, "runs can be looked at");
    assert!(matches!(store.put_bytes(b"x"), Err(CacheError::ReadOnly(_))));
    assert!(runs::clear(&store, Keep::default(), false).is_err());
    assert_eq!(entries(), before);
    for folder in [folder, &failed.summary.folder] {
        std::fs::remove_dir_all(folder.parent().unwrap()).unwrap();
    }
}

#[test]
fn a_damaged_object_of_a_read_only_store_is_told_and_left_where_it_is() {
    let project = Project::new();
    let ran = project.run(TEXT);
    let digest = ran.digest("double", "rows");
    damage(&project, &digest);
    let store = Store::open_read_only(project.store_folder()).unwrap();
    assert!(matches!(store.table(&digest), Err(CacheError::Lost { damaged: true, .. })));
    assert_eq!(store.verify(|_, _| ()).unwrap().damaged, [digest]);
    assert!(object(&project, &digest).exists());
}

#[test]
fn all_that_is_in_a_store_of_a_group_can_be_written_by_the_group() {
    use std::os::unix::fs::PermissionsExt;
    let project = Project::new();
    let root = project.folder.path().join(".tracetune");
    std::fs::create_dir(&root).unwrap();
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o2775)).unwrap();
    project.run(FOLDERS);
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let is_telemetry = path.starts_with(root.join("runs"));
            if path.is_dir() {
                assert_eq!(mode(&path) & 0o070, 0o070, "{}", path.display());
                folders.push(path);
            } else if !path.starts_with(root.join("objects")) && !path.starts_with(root.join("models")) && !is_telemetry
            {
                let named = path.file_name().is_some_and(|name| name == "CACHEDIR.TAG" || name == ".gitignore");
                assert!(named || mode(&path) & 0o060 == 0o060, "{}", path.display());
            }
        }
    }
}

#[test]
fn runs_with_other_locks_on_the_same_store_keep_out_of_each_others_way() {
    use tracetune_engine::cache::{LockKind, Store};
    for (one, other) in [(LockKind::Flock, LockKind::Lease), (LockKind::Lease, LockKind::Flock)] {
        let project = Project::new();
        let folder = project.folder.path().join(".tracetune");
        let (first, second) =
            (Store::open_with(&folder, Some(one)).unwrap(), Store::open_with(&folder, Some(other)).unwrap());
        let refused = std::sync::Mutex::new(None);
        let observer = |event: tracetune_engine::schedule::Event| {
            if let tracetune_engine::schedule::Event::StageStarted { .. } = event {
                let run = project.run_on(&second, FOLDERS, &RunOptions::with_threads(1), &Default::default());
                refused.lock().unwrap().get_or_insert(run.map(|_| ()).unwrap_err().to_string());
            }
        };
        let pipeline = project.pipeline(FOLDERS);
        let options = RunOptions::with_threads(1);
        let summary =
            tracetune_engine::schedule::run(&pipeline, &first, &options, Default::default(), &observer).unwrap();
        assert_eq!(summary.status, RunStatus::Done);
        let refused = refused.into_inner().unwrap().unwrap();
        assert!(refused.contains(&format!("locks of another kind than `{other}`")), "{refused}");
    }
}

#[test]
fn a_write_that_fails_leaves_nothing_and_names_the_path() {
    let project = Project::new();
    let store = project.store();
    let number = Number { id: "a".to_owned(), value: 1, extra: "b".to_owned() };
    let batch = Number::write(&[number]).unwrap();
    let digest = store.put_table(&batch).unwrap().digest;
    std::fs::remove_dir_all(project.store_folder().join("objects")).unwrap();
    // A file where the folder should be: root may write in read-only folders, but not this.
    std::fs::write(project.store_folder().join("objects"), "in the way").unwrap();
    let error = store.put_table(&batch).unwrap_err();
    assert!(
        matches!(&error, CacheError::Io { path, .. } if path.starts_with(project.store_folder().join("objects"))),
        "{error}"
    );
    assert!(error.to_string().contains(&digest.to_string()[..2]), "{error}");
    assert_eq!(walk(&project.store_folder().join("tmp")), Vec::<PathBuf>::new());
}

#[test]
fn a_full_disk_fails_the_stage_and_the_next_run_goes_on() {
    let project = Project::new();
    project.run(TEXT);
    let actions = project.store_folder().join("actions");
    let aside = project.store_folder().join("aside");
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
    let left = project.store_folder().join("tmp/process-dead");
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
