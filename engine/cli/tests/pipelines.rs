//! What is said about pipelines before anything runs.

use insta::assert_snapshot;

use crate::workspace;

#[test]
fn a_good_pipeline_is_ok() {
    assert_snapshot!(workspace().run(["check"]), @r"
    exit code: 0
    --- stdout
    ok: pipeline.toml (14 stages, loop rounds x 3)
    ");
}

#[test]
fn more_slots_than_a_run_has_are_told_before_anything_runs() {
    let workspace = workspace();
    let stage =
        "extends = \"pipeline.toml\"\n[loop.rounds.stages.learn]\nslots = { gpu = 2 }\nmemory_bytes = \"8GiB\"\n";
    workspace.write("large.toml", stage);
    assert_snapshot!(workspace.run(["check", "large.toml"]), @r"
    exit code: 0
    --- stdout
    ok: large.toml (14 stages, loop rounds x 3)
    --- stderr
            Note `learn` takes 2 of `gpu`: run it with `--slots gpu=2`
    ");
    assert_snapshot!(workspace.run(["run", "large.toml", "-q"]), @r"
    exit code: 2
    --- stderr
    error: `learn` takes 2 of `gpu`, and the run has 1
    help: say how many there are: `--slots gpu=2`
    ");
    assert_eq!(workspace.run(["run", "large.toml", "-q", "--slots", "gpu=2"]).code, Some(0));
    // What is cached takes nothing.
    assert_eq!(workspace.run(["run", "large.toml", "-q"]).code, Some(0));
}

#[test]
fn mistakes_are_shown_in_the_file_with_help() {
    let workspace = workspace();
    workspace.write(
        "bad.toml",
        r#"extends = "pipeline.toml"

[stages.late]
kind = "check"
rows = "numbers"

[loop.rounds.stages.guess]
n = "four"
pause = 5
pause_ms = "2s"
"#,
    );
    assert_snapshot!(workspace.run(["check", "bad.toml"]), @r#"
    exit code: 2
    --- stderr
    warning: parameter `guesses` is not used
     --> pipeline.toml:8:1
      |
    8 | guesses = 8
      | ^^^^^^^
      |
    help: write `"$guesses"` where it should stand, or leave it out

    error: `late` reads column `guess`, which `numbers` does not have
      --> bad.toml:5:8
       |
     5 | rows = "numbers"
       |        ^^^^^^^^^ has `problem_id`, `split` and `number`
       |
      ::: pipeline.toml:10:9
       |
    10 | [stages.numbers]
       |         ------- a `numbers` stage
       |
    help: no stage has it; kind `guess` would add `guess`

    error: `n` must be an integer of at least 1, found the string "four"
     --> bad.toml:8:5
      |
    8 | n = "four"
      |     ^^^^^^

    error: kind `guess` has no key `pause`
     --> bad.toml:9:1
      |
    9 | pause = 5
      | ^^^^^
      |
    help: did you mean `pause_ms`?

    error: `pause_ms` must be an integer of at least 0, in milliseconds, found the string "2s"
      --> bad.toml:10:12
       |
    10 | pause_ms = "2s"
       |            ^^^^
       |
    help: write `pause_ms = 2000`

    error: the pipeline has 4 errors
    "#);
}

#[test]
fn a_value_on_the_command_line_is_shown_where_it_stands() {
    assert_snapshot!(workspace().run(["check", "--set", "guesses=many"]), @r#"
    exit code: 2
    --- stderr
    error: `n` must be an integer of at least 1, found the string "many"
      --> pipeline.toml:26:5
       |
    26 | n = "$guesses"
       |     ^^^^^^^^^^
       |
      ::: --set:1:9
       |
     1 | guesses=many
       |         ---- `guesses` is given here

    error: the pipeline has 1 error
    "#);
}

#[test]
fn a_file_that_is_not_there_is_an_error_with_help() {
    assert_snapshot!(workspace().run(["run", "lost.toml"]), @r"
    exit code: 2
    --- stderr
    error: can't read `lost.toml`: no such file
    help: `tracetune init` writes a pipeline to start from

    error: the pipeline has 1 error
    ");
}

#[test]
fn json_has_the_place_of_every_problem() {
    let workspace = workspace();
    workspace.write("bad.toml", "stages.a.kind = \"chek\"");
    let ran = workspace.run(["check", "bad.toml", "--json"]);
    assert_eq!(ran.code, Some(2));
    let json = ran.json();
    let problem = &json["diagnostics"][0];
    assert_eq!((&problem["line"], &problem["column"], &problem["end"]["column"]), (&1.into(), &17.into(), &23.into()));
    assert_eq!(problem["help"][0], "did you mean `check`?");
    assert_eq!(json["ok"], false);
}

#[test]
fn the_schema_accepts_what_the_kinds_take() {
    let json = workspace().run(["schema"]).json();
    assert_eq!(json["$defs"]["guess.stage"]["required"], serde_json::json!(["kind", "rows", "model", "n"]));
}

#[test]
fn a_kind_is_shown_with_ports_and_parameters() {
    assert_snapshot!(workspace().run(["kinds", "guess"]), @r#"
    exit code: 0
    --- stdout
    guess (version 1)
    guesses each number n times

    inputs
      rows (table): the rows it works on; their other columns are carried along
          problem_id  string
          split       string
          number      int32   what is to be guessed
      model (model): how well it guesses

    parameters
      n (must be given): an integer of at least 1
          Guesses a number.
      seed = the pipeline's: an integer of at least 0
          What the guesses are drawn from.
      fail_at (optional): an integer
          Fails at this number, to see what that looks like.
      pause_ms = 0: an integer of at least 0, in milliseconds
          Milliseconds a guess takes.

    keys of every stage
      allow_empty
          Whether the stage may lose every row. Unless it may, a stage that is given rows and returns none fails,
          and so does a source without rows.
      bad_rows
          How many rows may fail (a number, or a share as in "1%") before the stage does: they stand in the
          stage's output `bad`.
      memory_bytes
          Memory that the stage needs: a number of bytes, or e.g. "8GiB". Stages start side by side as far as the
          run's (`--memory`) goes.
      slots
          Other things that the stage takes while it runs, e.g. `{ gpu = 1 }`, of those that the run has (`--slots
          gpu=2`; one of each by default).
      threads
          The most threads that the stage takes; of the run's (`-j`).
      timeout_s
          Seconds after which the stage is ended and counts as failed.
      variant
          The label of the stage's metrics, or a list of labels; `main` by default.

    adds
      guess  int32
    "#);
    assert_snapshot!(workspace().run(["kinds", "gues"]), @r"
    exit code: 2
    --- stderr
    error: there is no kind `gues`
    help: did you mean `guess`?
    ");
}

#[test]
fn init_overwrites_nothing() {
    assert_snapshot!(workspace().run(["init"]), @r"
    exit code: 2
    --- stderr
    error: `./pipeline.toml` is already there
    help: remove it, or name another folder: `tracetune init FOLDER`
    ");
}
