//! The command line over toy kinds: `examples/toy.rs`, which cargo builds before it runs these tests.

mod pipelines;
mod pooled;
mod runs;
#[allow(dead_code, reason = "each test binary uses its part of it")]
#[path = "../../../tests/support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A project with the toys' own pipeline.
fn workspace() -> support::Workspace {
    let workspace = support::Workspace::new(toy());
    let ran = workspace.run(["init"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    workspace
}

/// `target/debug/examples/toy`, from `target/debug/deps/main-…`. Cargo builds it for `cargo test`, but not for
/// `cargo test --test main`: an old one would test what is gone.
fn toy() -> PathBuf {
    let test = std::env::current_exe().expect("this test's file");
    let profile = test.ancestors().nth(2).expect("the profile's folder");
    let toy = profile.join("examples").join(format!("toy{}", std::env::consts::EXE_SUFFIX));
    let built = std::fs::metadata(&toy).and_then(|metadata| metadata.modified()).ok();
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let newest = newest(&package.join("src")).max(newest(&package.join("examples")));
    assert!(built >= newest, "the toys are older than their source: `cargo build -p tracetune-cli --example toy`");
    toy
}

fn newest(folder: &Path) -> Option<SystemTime> {
    let entries =
        std::fs::read_dir(folder).expect("a folder of this package").map(|entry| entry.expect("an entry").path());
    entries
        .map(|path| if path.is_dir() { newest(&path) } else { path.metadata().and_then(|file| file.modified()).ok() })
        .max()
        .flatten()
}
