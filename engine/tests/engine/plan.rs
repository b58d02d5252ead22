//! What the plan says before anything runs, and why.

use crate::support::Project;
use tracetune_engine::plan::{Estimate, Forecast, plan};

const TEXT: &str = "[stages.numbers]\nkind = \"numbers\"\nvalues = [1, 2, 3]\n\
                    [stages.double]\nkind = \"double\"\nrows = \"numbers\"\ntag = \"TAG\"\nn = 2\n\
                    [stages.sum]\nkind = \"sum\"\nrows = \"double\"\n";

fn whys(project: &Project, text: &str) -> Vec<String> {
    let plan = plan(&project.pipeline(text), &project.store()).unwrap();
    plan.nodes.iter().map(|node| node.why.to_string()).collect()
}

#[test]
fn a_new_pipeline_is_new() {
    let project = Project::new();
    assert_eq!(whys(&project, TEXT), ["numbers is new", "double is new", "sum is new"]);
}

#[test]
fn what_was_run_is_cached() {
    let project = Project::new();
    project.run(TEXT);
    let plan = plan(&project.pipeline(TEXT), &project.store()).unwrap();
    assert!(plan.nodes.iter().all(|node| matches!(node.forecast, Forecast::Hit(_))));
    assert_eq!(plan.why("sum").unwrap().to_string(), "sum is cached: nothing that it depends on changed");
}

#[test]
fn a_changed_parameter_is_named_with_both_values() {
    let project = Project::new();
    project.run(TEXT);
    let changed = TEXT.replace("n = 2", "n = 5");
    assert_eq!(
        whys(&project, &changed),
        [
            "numbers is cached: nothing that it depends on changed",
            "double is stale: `n` changed (2 => 5)",
            "sum runs unless its input stays the same: `double` (input `rows`) runs",
        ]
    );
    let back_to_the_default = TEXT.replace("n = 2", "");
    assert_eq!(whys(&project, &back_to_the_default)[1], "double is stale: `n` changed (2 => 1)");
}

#[test]
fn the_work_of_a_row_stage_is_counted() {
    let project = Project::new();
    project.run(TEXT);
    let plan = plan(&project.pipeline(&TEXT.replace("n = 2", "n = 5")), &project.store()).unwrap();
    assert_eq!(plan.nodes[1].estimate, Some(Estimate { items: 15, cached: 6, exact: true }));
    assert_eq!(plan.nodes[2].estimate, Some(Estimate { items: 1, cached: 0, exact: false }));
}

#[test]
fn a_changed_input_is_named() {
    let project = Project::new();
    project.run(TEXT);
    let other = TEXT.replace("[1, 2, 3]", "[1, 2, 4]");
    assert_eq!(whys(&project, &other)[0], "numbers is stale: `values` changed ([1,2,3] => [1,2,4])");
    let mut partly = project.pipeline(&other);
    partly.nodes.truncate(1);
    // `numbers` is there under its new parameters; the pipeline's `double` has not seen them.
    let numbers_only = other.split("[stages.double]").next().unwrap();
    project.run(numbers_only);
    let why = whys(&project, &other)[1].clone();
    assert!(why.starts_with("double is stale: input `rows` changed (numbers: "), "{why}");
}

#[test]
fn what_is_gone_from_the_cache_is_said_to_be() {
    let project = Project::new();
    let ran = project.run(TEXT);
    let digest = ran.digest("double", "rows").to_string();
    let object = project.store_folder().join("objects").join(&digest[..2]).join(&digest);
    std::fs::remove_file(object).unwrap();
    let whys = whys(&project, TEXT);
    assert_eq!(whys[1], "double is stale: its output `rows` is gone from the cache");
    assert_eq!(whys[2], "sum runs unless its input stays the same: `double` (input `rows`) runs");
}

#[test]
fn a_file_that_changes_is_named() {
    let project = Project::new();
    let path = project.folder.path().join("f.txt");
    let text = TEXT.replace("n = 2", "needs = \"f.txt\"");
    assert!(whys(&project, &text)[1].starts_with("double can't be cached: can't read"));
    std::fs::write(&path, "1").unwrap();
    project.run(&text);
    std::fs::write(&path, "2").unwrap();
    let why = whys(&project, &text)[1].clone();
    assert!(why.starts_with("double is stale: file f.txt changed ("), "{why}");
}

#[test]
fn a_loop_that_had_stopped_is_planned_to_stop() {
    let project = Project::new();
    let text = "[stages.numbers]\nkind = \"numbers\"\nvalues = []\nallow_empty = true\n\
                [stages.none]\nkind = \"double\"\nrows = \"numbers\"\ntag = \"TAG\"\n\
                [stages.zero]\nkind = \"sum\"\nrows = \"none\"\n\
                [loop.rounds]\ntimes = 4\ncarry.at = { start = \"zero\", next = \"step\" }\n\
                stop = { metric = \"dev.score\", patience = 1 }\nselect = \"dev.score\"\n\
                [loop.rounds.stages.step]\nkind = \"step\"\nfrom = \"at\"\ntag = \"TAG\"\nscores = [0.2, 0.1, 0, 0]\n\
                [stages.best]\nkind = \"keep\"\nfrom = \"rounds.best.step\"\n";
    project.run(text);
    let plan = plan(&project.pipeline(text), &project.store()).unwrap();
    let skipped: Vec<&str> = plan
        .nodes
        .iter()
        .filter(|node| matches!(node.forecast, Forecast::Skipped))
        .map(|node| node.id.as_str())
        .collect();
    assert_eq!(skipped, ["step@3", "step@4"]);
    assert!(matches!(plan.nodes.last().unwrap().forecast, Forecast::Hit(_)));
}
