//! The JSON Schema that editors read beside the shipped pipelines.

use std::path::Path;

use crate::workspace;

#[test]
fn the_schema_beside_the_pipelines_is_up_to_date() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/schema.json");
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    let again = "cargo run -- schema > pipelines/schema.json";
    assert!(kept == workspace().run(["schema"]).stdout, "the kinds changed: `{again}`");
}
