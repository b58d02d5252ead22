//! Loops that stop early, and references to their rounds.

use crate::support::{Project, int64s};
use tracetune_engine::runs::RunStatus;

fn text(scores: &str, outer: &str) -> String {
    format!(
        "[stages.numbers]\nkind = \"numbers\"\nvalues = []\nallow_empty = true\n\
         [stages.none]\nkind = \"double\"\nrows = \"numbers\"\ntag = \"TAG\"\n\
         [stages.zero]\nkind = \"sum\"\nrows = \"none\"\n\
         [loop.rounds]\ntimes = 5\ncarry.at = {{ start = \"zero\", next = \"step\" }}\n{outer}\n\
         [loop.rounds.stages.step]\nkind = \"step\"\nfrom = \"at\"\ntag = \"TAG\"\nscores = {scores}\n\
         [stages.last]\nkind = \"keep\"\nfrom = \"rounds.step\"\n\
         [stages.after]\nkind = \"step\"\nfrom = \"rounds.REF\"\ntag = \"TAG\"\nscores = [0, 1, 2, 3, 4, 5, 6]\n"
    )
}

const STOP: &str = "stop = { metric = \"dev.score\", patience = 2 }\nselect = \"dev.score\"";

#[test]
fn a_loop_stops_after_patience_rounds_without_a_new_maximum() {
    let project = Project::new();
    let text = text("[0.1, 0.3, 0.2, 0.3, 0.9]", STOP).replace("REF", "step");
    let ran = project.run(&text);
    assert_eq!(ran.summary.status, RunStatus::Done);
    let rounds: Vec<&str> = (1..=5).map(|round| ran.node(&format!("step@{round}")).status.name()).collect();
    assert_eq!(rounds, ["computed", "computed", "computed", "computed", "skipped"]);
    let reason = "loop `rounds` stopped after round 4: `dev.score` has no new maximum in 2 rounds";
    assert_eq!(ran.node("step@5").message.as_deref(), Some(reason));
    let after = project.store().table(&ran.digest("after", "to")).unwrap();
    assert_eq!(int64s(&after, "total"), [5], "the last round that ran is the fourth");
    assert_eq!(project.run(&text).computed, 0);
}

#[test]
fn the_best_round_is_the_earliest_with_the_highest_metric() {
    let project = Project::new();
    let ran = project.run(&text("[0.1, 0.3, 0.2, 0.3, 0.9]", STOP).replace("REF", "best.step"));
    let after = project.store().table(&ran.digest("after", "to")).unwrap();
    assert_eq!(int64s(&after, "total"), [3], "the second round gives 2");
}

#[test]
fn a_loop_without_a_stop_runs_all_rounds() {
    let project = Project::new();
    let ran = project.run(&text("[0.5, 0.4, 0.3, 0.2, 0.1]", "").replace("REF", "step"));
    let after = project.store().table(&ran.digest("after", "to")).unwrap();
    assert_eq!((ran.summary.status, int64s(&after, "total")), (RunStatus::Done, vec![6]));
}

#[test]
fn a_longer_loop_computes_only_the_new_rounds() {
    let project = Project::new();
    let text = text("[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]", "").replace("REF", "step");
    project.run(&text);
    let ran = project.run(&text.replace("times = 5", "times = 6"));
    // The new round, and the stage after the loop.
    assert_eq!(ran.computed, 2);
}
