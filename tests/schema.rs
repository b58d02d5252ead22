//! The shipped pipelines, and the JSON Schema that editors read beside them.

use std::path::Path;

use crate::workspace;

#[test]
fn the_schema_beside_the_pipelines_is_up_to_date() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/schema.json");
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    let again = "cargo run -- schema > pipelines/schema.json";
    assert!(kept == workspace().run(["schema"]).stdout, "the kinds changed: `{again}`");
}

#[test]
fn every_shipped_pipeline_checks() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines");
    let files = std::fs::read_dir(folder).expect("the pipelines").map(|entry| entry.expect("an entry").path());
    for file in files.filter(|file| file.extension().is_some_and(|ending| ending == "toml")) {
        let checked = workspace().run(["check", file.to_str().expect("UTF-8")]);
        assert_eq!(checked.code, Some(0), "{checked}");
    }
}
