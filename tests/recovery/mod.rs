//! What is left when a run is killed, and what the next run makes of it.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::purity::{LOOP, run};
use crate::support::{Workspace, digests};
use crate::workspace;

#[test]
fn killed_runs_go_on_and_end_with_the_same_bytes() {
    let undisturbed = workspace();
    undisturbed.write("loop.toml", LOOP);
    run(&undisturbed, &[]);

    let killed = workspace();
    killed.write("loop.toml", LOOP);
    for after_ms in [150, 400, 700, 1100, 1600] {
        let mut child = killed
            .command(["run", "loop.toml", "-q"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the binary starts");
        std::thread::sleep(Duration::from_millis(after_ms));
        // SIGKILL: no handler runs. The run may have ended already.
        let _ = child.kill();
        child.wait().expect("the process ends");
    }
    run(&killed, &[]);
    assert_eq!(digests(&undisturbed), digests(&killed));
}

#[test]
fn a_damaged_object_is_noticed_and_computed_again() {
    let workspace = workspace();
    workspace.write("loop.toml", LOOP);
    run(&workspace, &[]);
    let before = digests(&workspace);

    let largest = files(&workspace.path().join(".tracetune/objects"))
        .into_iter()
        .filter(|path| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"PAR1")))
        .max_by_key(|path| std::fs::metadata(path).map(|meta| meta.len()).unwrap_or_default())
        .expect("a table");
    let mut bytes = std::fs::read(&largest).expect("an object");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    make_writable(&largest);
    std::fs::write(&largest, &bytes[..bytes.len() - 1]).expect("a torn object");

    run(&workspace, &[]);
    assert_eq!(before, digests(&workspace));
}

#[test]
fn damaged_models_are_computed_again_before_anything_uses_them() {
    let undisturbed = workspace();
    undisturbed.write("loop.toml", LOOP);
    run(&undisturbed, &["--set", "samples=3"]);
    for damage in [flip_the_middle, tear] {
        let damaged = workspace();
        damaged.write("loop.toml", LOOP);
        run(&damaged, &[]);
        let models = files(&damaged.path().join(".tracetune/models"));
        let weights: Vec<_> =
            models.iter().filter(|path| path.extension().is_some_and(|ending| ending == "safetensors")).collect();
        assert!(!weights.is_empty(), "models were unpacked");
        for path in weights {
            // In place: the unpacked file and the object are one file with two names.
            make_writable(path);
            damage(path);
        }
        run(&damaged, &["--set", "samples=3"]);
        assert_eq!(digests(&undisturbed), digests(&damaged));
        // What this run had no use for is found by looking at everything.
        damaged.run(["cache", "verify"]);
        let verified = damaged.run(["cache", "verify"]);
        assert_eq!(verified.code, Some(0), "{verified}");
    }
}

fn flip_the_middle(path: &Path) {
    let mut bytes = std::fs::read(path).expect("a model");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).expect("a flipped bit");
}

fn tear(path: &Path) {
    let file = std::fs::File::options().write(true).open(path).expect("a model");
    file.set_len(file.metadata().expect("its size").len() / 2).expect("a torn file");
}

#[test]
fn an_interrupt_ends_the_run_cleanly() {
    let workspace = workspace();
    workspace.write("loop.toml", LOOP);
    let mut child = workspace
        .command(["run", "loop.toml"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the binary starts");
    let runs = workspace.path().join(".tracetune/runs");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !runs.is_dir() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let interrupted = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupted.is_ok_and(|status| status.success()));
    let status = child.wait().expect("the process ends");
    // A fast machine may be done before the signal arrives.
    assert!(matches!(status.code(), Some(130 | 0)), "{status:?}");
    run(&workspace, &[]);
}

const TRAINING: &str = "[pipeline]\nname = \"training\"\nseed = 3\n\
    [stages.problems]\nkind = \"dataset\"\nsource = \"builtin:mini-python\"\nsizes = { seed = 20 }\n\
    [stages.traces]\nkind = \"trace\"\nrows = \"problems\"\n\
    [stages.tiny]\nkind = \"model\"\nsource = \"builtin:tiny\"\n\
    [stages.train]\nkind = \"train\"\nmodel = \"tiny\"\nrows = \"traces\"\nepochs = 12\n";

/// A name, what the next run says, and what is done to the bytes of a checkpoint.
type Damage<'a> = (&'a str, &'a str, &'a dyn Fn(&mut Vec<u8>));

#[test]
fn a_training_goes_on_from_a_checkpoint_that_is_sound_and_begins_anew_from_any_other() {
    let undisturbed = workspace();
    undisturbed.write("training.toml", TRAINING);
    assert_eq!(undisturbed.run(["run", "training.toml"]).code, Some(0));
    let damages: [Damage; 4] = [
        ("sound", "goes on from step ", &|_| ()),
        ("flipped", "it is damaged; training begins anew", &|bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }),
        ("torn", "it is damaged; training begins anew", &|bytes| bytes.truncate(bytes.len() / 2)),
        ("empty", "it is damaged; training begins anew", &|bytes| bytes.clear()),
    ];
    for (name, note, damage) in damages {
        let workspace = workspace();
        workspace.write("training.toml", TRAINING);
        interrupt_training(&workspace);
        let checkpoints = files(&workspace.path().join(".tracetune/checkpoints"));
        assert!(!checkpoints.is_empty(), "{name}");
        for path in checkpoints {
            let mut bytes = std::fs::read(&path).expect("a checkpoint");
            damage(&mut bytes);
            std::fs::write(&path, bytes).expect("a damaged checkpoint");
        }
        let ran = workspace.run(["run", "training.toml"]);
        assert!(ran.code == Some(0) && ran.stderr.contains(note), "{name}: {ran}");
        assert_eq!(digests(&undisturbed), digests(&workspace), "{name}");
        assert!(
            !workspace.path().join(".tracetune/checkpoints").read_dir().is_ok_and(|mut left| left.next().is_some())
        );
    }
}

/// Interrupts a run while it trains, and waits for its end.
fn interrupt_training(workspace: &Workspace) {
    let mut child = workspace
        .command(["run", "training.toml"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let lines = std::io::BufReader::new(child.stderr.take().expect("a pipe"));
    let mut lines = std::io::BufRead::lines(lines);
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains("Running train"))));
    std::thread::sleep(Duration::from_millis(200));
    let interrupted = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupted.is_ok_and(|status| status.success()));
    lines.for_each(drop);
    assert_eq!(child.wait().expect("the process ends").code(), Some(130));
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() { folders.push(entry) } else { found.push(entry) }
        }
    }
    found
}

fn make_writable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644));
}

#[test]
fn a_failure_that_goes_away_is_tried_again() {
    let workspace = workspace();
    // Asks once to be tried again (exit status 75), then works.
    let script = r#"
n=$(cat tries 2>/dev/null || echo 0)
echo $((n + 1)) > tries
[ "$n" -ge 1 ] || exit 75
cp rows.parquet "$TRACETUNE_OUT"
"#;
    workspace.write("busy.sh", script);
    std::fs::write(workspace.path().join("rows.parquet"), include_bytes!("../golden/traced.parquet")).expect("rows");
    workspace.write(
        "busy.toml",
        "[stages.busy]\nkind = \"command\"\nrun = [\"sh\", \"busy.sh\"]\nfiles = [\"busy.sh\", \"rows.parquet\"]\n",
    );
    let ran = workspace.run(["run", "busy.toml"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.stderr.contains("busy: `sh busy.sh` ended with exit status: 75"), "{ran}");
    assert_eq!(std::fs::read_to_string(workspace.path().join("tries")).expect("tries").trim(), "2");
}
