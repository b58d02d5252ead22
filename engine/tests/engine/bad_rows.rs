//! Rows that can't be worked on, and tables longer than what is in memory at a time.

use tracetune_engine::arrow::array::AsArray;
use tracetune_engine::runs::{RunStatus, StageStatus};

use crate::support::{Project, int64s};

fn text(double: &str) -> String {
    format!(
        "[stages.numbers]\nkind = \"numbers\"\nvalues = [1, 2, 3, 4, 3, 6, 7, 8]\n\
         [stages.double]\nkind = \"double\"\nrows = \"numbers\"\ntag = \"TAG\"\nsegment = 4\n{double}\n\
         [stages.sum]\nkind = \"sum\"\nrows = \"double\"\n"
    )
}

#[test]
fn a_bad_row_is_left_out_and_stands_in_an_output_of_its_own() {
    let project = Project::new();
    let ran = project.run(&text("poison = 3\nn = 2\nbad_rows = \"50%\""));
    assert_eq!(ran.summary.status, RunStatus::Done);
    let store = project.store();
    let rows = store.table(&ran.digest("double", "rows")).unwrap();
    assert_eq!(int64s(&rows, "value"), [1, 1, 2, 2, 4, 4, 6, 6, 7, 7, 8, 8]);
    let bad = store.table(&ran.digest("double", "bad")).unwrap();
    assert_eq!(int64s(&bad, "value"), [3, 3, 3, 3]);
    let errors: Vec<_> = bad.column_by_name("_error").unwrap().as_string::<i32>().iter().flatten().collect();
    assert_eq!(errors, ["3 is poison"; 4]);
    assert_eq!((ran.node("double").rows_computed, ran.node("double").rows_cached), (12, 0));

    assert_eq!(project.run(&text("poison = 3\nn = 2\nbad_rows = \"50%\"")).node("double").status, StageStatus::Cached);
    // Less may fail now: what is in the cache is too much.
    assert_eq!(project.run(&text("poison = 3\nn = 2\nbad_rows = 3")).node("double").status, StageStatus::Failed);
    // What is wrong with a row does not cost the others.
    assert_eq!(project.run(&text("n = 2")).node("double").rows_computed, 4);
}

#[test]
fn more_bad_rows_than_may_be_end_the_stage() {
    for (bad_rows, expected) in [
        ("", "3 is poison"),
        ("bad_rows = 1", "more than 1 failed, as `bad_rows` allows\nrow 2: 3 is poison\nrow 4: 3 is poison"),
        ("bad_rows = 2", ""),
    ] {
        let ran = Project::new().run(&text(&format!("poison = 3\n{bad_rows}")));
        let status = if expected.is_empty() { StageStatus::Computed } else { StageStatus::Failed };
        assert_eq!(ran.node("double").status, status);
        assert_eq!(ran.node("double").message.as_deref().unwrap_or_default(), expected);
    }
}

#[test]
fn a_table_of_many_pieces_is_the_same_however_it_was_computed() {
    let text = |change: fn(&mut Vec<i64>)| {
        let mut values: Vec<i64> = (0..20_000).collect();
        change(&mut values);
        format!(
            "[stages.numbers]\nkind = \"numbers\"\nvalues = {values:?}\n\
             [stages.double]\nkind = \"double\"\nrows = \"numbers\"\ntag = \"TAG\"\n"
        )
    };
    let changed = text(|values| {
        values[17_000] = -7;
        values[19_999] = 123_456;
        values[3] = 1;
    });
    let project = Project::new();
    assert_eq!(project.run(&text(|_| {})).node("double").rows_computed, 20_000);
    let again = project.run(&changed);
    assert_eq!(again.node("double").rows_computed, 3);
    assert_eq!(again.digest("double", "rows"), Project::new().run(&changed).digest("double", "rows"));
}
