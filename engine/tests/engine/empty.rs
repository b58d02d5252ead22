//! Stages that lose every row.

use tracetune_engine::runs::{RunStatus, StageStatus};

use crate::support::Project;

const WHY: &str = "it kept none of its 3 rows: the value is negative (3), e.g. `n0`";

fn text(values: &str, double: &str) -> String {
    format!(
        "[stages.numbers]\nkind = \"numbers\"\nvalues = [{values}]\n\
         [stages.double]\nkind = \"double\"\nrows = \"numbers\"\ntag = \"TAG\"\n{double}\n\
         [stages.sum]\nkind = \"sum\"\nrows = \"double\"\n"
    )
}

#[test]
fn a_stage_that_loses_every_row_fails_with_the_reason_and_again_when_it_is_cached() {
    let project = Project::new();
    for computed in [3, 0] {
        let ran = project.run(&text("-1, -2, -3", ""));
        assert_eq!((ran.summary.status, ran.computed), (RunStatus::Failed, computed));
        assert_eq!(ran.node("double").message.as_deref(), Some(WHY));
        assert_eq!(ran.node("sum").status, StageStatus::Skipped);
        // What it gave can be looked at.
        assert_eq!(ran.node("double").outputs["rows"].rows, 0);
    }
}

#[test]
fn rows_that_only_segments_know_are_asked_once_more_for_the_reason() {
    let project = Project::new();
    project.run(&text("-1, -2, -3", ""));
    // Another table of the same rows: they are all in segments, and the stage has no record.
    let ran = project.run(&text("-1, -2", ""));
    let message = ran.node("double").message.as_deref();
    assert_eq!(message, Some("it kept none of its 2 rows: the value is negative (1), e.g. `n0`"));
}

#[test]
fn a_stage_may_lose_every_row_where_it_says_so_and_nothing_is_computed_again_for_it() {
    let project = Project::new();
    project.run(&text("-1, -2, -3", ""));
    let ran = project.run(&text("-1, -2, -3", "allow_empty = true"));
    assert_eq!((ran.summary.status, ran.computed), (RunStatus::Done, 0));
    assert_eq!(ran.node("double").status, StageStatus::Cached);
    // The sum of no rows is a row.
    assert_eq!(ran.node("sum").rows, 1);
}

#[test]
fn a_stage_without_rows_to_work_on_loses_none() {
    let more = "allow_empty = true\n[stages.again]\nkind = \"double\"\nrows = \"double\"\ntag = \"TAG\"";
    let ran = Project::new().run(&text("-1", more));
    assert_eq!((ran.summary.status, ran.node("again").rows), (RunStatus::Done, 0));
}

#[test]
fn a_source_without_rows_fails() {
    let ran = Project::new().run(&text("", ""));
    assert_eq!(ran.node("numbers").message.as_deref(), Some("it has no rows"));
}

#[test]
fn rows_that_all_fail_are_no_result_whatever_bad_rows_allows() {
    let ran = Project::new().run(&text("7", "poison = 7\nbad_rows = \"100%\""));
    let expected =
        "it kept none of its 1 row: the stage fails at the row, as `bad_rows` allows (1), e.g. row 0: 7 is poison";
    assert_eq!(ran.node("double").message.as_deref(), Some(expected));
}
