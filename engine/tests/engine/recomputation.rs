//! What changes is computed again, and nothing else.

use crate::support::{Project, int64s};
use tracetune_engine::runs::RunStatus;

fn numbers(values: &str, extra: &str, double: &str) -> String {
    format!(
        "[stages.numbers]\nkind = \"numbers\"\nvalues = {values}\nextra = \"{extra}\"\n\
         [stages.double]\nkind = \"double\"\nrows = \"numbers\"\ntag = \"TAG\"\n{double}\n\
         [stages.sum]\nkind = \"sum\"\nrows = \"double\"\n"
    )
}

#[test]
fn a_second_run_computes_nothing() {
    let project = Project::new();
    let text = numbers("[1, 2, 3, 5, -1]", "", "");
    let first = project.run(&text);
    assert_eq!((first.summary.status, first.computed), (RunStatus::Done, 5));
    let second = project.run(&text);
    assert_eq!(second.statuses(), ["numbers cached", "double cached", "sum cached"]);
    assert_eq!(second.node("double").rows, 5);
    assert_eq!(second.computed, 0);
    assert_eq!(first.digest("double", "rows"), second.digest("double", "rows"));
}

#[test]
fn rows_stand_in_the_inputs_order_with_their_columns() {
    let project = Project::new();
    let ran = project.run(&numbers("[5, -1, 2]", "x", "n = 2"));
    let table = project.store().table(&ran.digest("double", "rows")).unwrap();
    let names: Vec<String> = table.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["id", "value", "extra", "part", "double", "words"]);
    assert_eq!(int64s(&table, "value"), [5, 5, 5, 5, 2, 2]);
    assert_eq!(int64s(&table, "double"), [10, 10, 11, 11, 4, 5]);
}

#[test]
fn a_changed_row_recomputes_one_row() {
    let project = Project::new();
    project.run(&numbers("[1, 2, 3, 4]", "", ""));
    let ran = project.run(&numbers("[1, 2, 7, 4]", "", ""));
    assert_eq!(ran.computed, 1);
    let node = ran.node("double");
    assert_eq!((node.rows_cached, node.rows_computed), (3, 1));
}

#[test]
fn growing_parts_computes_only_the_new_ones() {
    let project = Project::new();
    project.run(&numbers("[1, 2, 3]", "", "n = 4"));
    let ran = project.run(&numbers("[1, 2, 3]", "", "n = 6"));
    assert_eq!(ran.computed, 2 * 3);
    let fresh = Project::new();
    let at_once = fresh.run(&numbers("[1, 2, 3]", "", "n = 6"));
    assert_eq!(ran.digest("double", "rows"), at_once.digest("double", "rows"));
    assert_eq!(project.run(&numbers("[1, 2, 3]", "", "n = 5")).computed, 0);
}

#[test]
fn identical_rows_are_computed_once() {
    let project = Project::new();
    let text = "[stages.a]\nkind = \"numbers\"\nvalues = [1, 2]\n[stages.b]\nkind = \"double\"\nrows = \"a\"\n\
                tag = \"TAG\"\nn = 2\n[stages.c]\nkind = \"double\"\nrows = \"b\"\ntag = \"TAG\"\n";
    // `c` reads `id` and `value`, which are the same in both parts of each row of `b`.
    let ran = project.run(text);
    assert_eq!(ran.node("c").rows, 4);
    assert_eq!(ran.node("c").rows_computed, 0, "the rows were computed in `b` under the same signature");
}

#[test]
fn a_column_that_is_not_read_recomputes_nothing_and_is_carried() {
    let project = Project::new();
    project.run(&numbers("[1, 2, 3]", "old", ""));
    let ran = project.run(&numbers("[1, 2, 3]", "new", ""));
    assert_eq!(ran.computed, 0);
    let table = project.store().table(&ran.digest("double", "rows")).unwrap();
    let extra = tracetune_engine::table::read_column::<String>(&table, "extra").unwrap();
    assert_eq!(extra, ["new0", "new1", "new2"]);
}

#[test]
fn equal_bytes_cut_the_recomputation_off() {
    let project = Project::new();
    let text = |offset: i32| {
        numbers("[1, 2, 3]", "", &format!("offset = {offset}"))
            + "[stages.step]\nkind = \"step\"\nfrom = \"sum\"\ntag = \"TAG\"\nscores = [0.5]\n"
    };
    project.run(&text(0));
    let ran = project.run(&text(7));
    assert_eq!(ran.statuses(), ["numbers cached", "double computed", "sum computed", "step cached"]);
}

#[test]
fn a_change_and_back_is_a_hit() {
    let project = Project::new();
    project.run(&numbers("[1, 2, 3]", "", ""));
    project.run(&numbers("[1, 2, 3]", "", "offset = 1"));
    let ran = project.run(&numbers("[1, 2, 3]", "", ""));
    assert_eq!(ran.statuses(), ["numbers cached", "double cached", "sum cached"]);
}

#[test]
fn segments_and_threads_do_not_show_in_the_bytes() {
    let mut digests = Vec::new();
    for (segment, threads) in [(1, 1), (2, 8), (3, 2), (100, 1)] {
        let project = Project::new();
        let options = tracetune_engine::schedule::RunOptions::with_threads(threads);
        let text = numbers("[1, 2, 3, 5, -1, 10, 7]", "x", &format!("n = 3\nsegment = {segment}"));
        digests.push(project.run_with(&text, &options, &Default::default()).digest("double", "rows"));
    }
    digests.dedup();
    assert_eq!(digests.len(), 1);
}

#[test]
fn an_empty_table_goes_all_the_way() {
    let project = Project::new();
    let ran = project.run(&numbers("[]\nallow_empty = true", "", ""));
    assert_eq!((ran.summary.status, ran.node("double").rows, ran.node("sum").rows), (RunStatus::Done, 0, 1));
    let nothing = project.run(&numbers("[-1, -2]", "", "allow_empty = true"));
    assert_eq!(nothing.node("double").rows, 0);
    assert_eq!(ran.digest("double", "rows"), nothing.digest("double", "rows"));
}

#[test]
fn a_directory_is_kept_file_by_file() {
    let project = Project::new();
    let text = "[stages.a]\nkind = \"numbers\"\nvalues = [1, 2]\n[stages.b]\nkind = \"keep\"\nfrom = \"a\"\n\
                [stages.c]\nkind = \"keep\"\nmodel = \"b\"\n";
    let ran = project.run(text);
    let folder = project.store().directory(&ran.digest("c", "model")).unwrap();
    assert_eq!(std::fs::read_to_string(folder.join("sub/rows.txt")).unwrap(), "2+");
    assert_eq!(std::fs::read_to_string(folder.join("empty")).unwrap(), "");
    assert!(std::fs::metadata(folder.join("empty")).unwrap().permissions().readonly());
    assert_eq!(project.run(text).statuses(), ["a cached", "b cached", "c cached"]);
}
