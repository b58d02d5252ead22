//! What each built-in kind makes of a small fixture, as a digest written down beside the kind's version.
//!
//! The same key must never lead to other bytes. If this fails, the kind named in the message gives other bytes than
//! it did: raise its `VERSION`, so that nobody's cache mixes the two, and write the new line into `digests.txt`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::support::{copy_folder, digests};
use crate::workspace;

const WRITTEN: &str = include_str!("digests.txt");

#[test]
fn no_kind_changes_its_bytes_unless_its_version_goes_up() {
    let workspace = workspace();
    copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden"), workspace.path());
    let ran = workspace.run(["run", "golden.toml", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let versions: BTreeMap<String, u64> = kinds(&workspace.run(["kinds", "--json"]).json());

    let mut found = String::new();
    for (output, digest) in digests(&workspace) {
        // Stages that are named after their kinds; the others bring the fixtures.
        let (stage, output) = output.split_once('.').expect("stage.output");
        if let Some(version) = versions.get(stage) {
            writeln!(found, "{stage} {version} {output} {digest}").expect("text");
        }
    }
    let without: Vec<_> = versions.keys().filter(|kind| !found.contains(&format!("{kind} "))).collect();
    assert_eq!(without, ["command"], "each kind but `command`, which runs the user's program, has a stage");

    let changed: Vec<&str> = found.lines().filter(|line| !WRITTEN.lines().any(|written| written == *line)).collect();
    assert!(changed.is_empty(), "these outputs are not as written in digests.txt:\n{}", changed.join("\n"));
    assert_eq!(found.lines().count(), WRITTEN.lines().count(), "digests.txt has a line of an output that is gone");
}

fn kinds(answer: &serde_json::Value) -> BTreeMap<String, u64> {
    let kinds = answer["kinds"].as_array().expect("kinds");
    let entry = |kind: &serde_json::Value| Some((kind["name"].as_str()?.to_owned(), kind["version"].as_u64()?));
    kinds.iter().map(|kind| entry(kind).expect("a name and a version")).collect()
}
