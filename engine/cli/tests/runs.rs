//! What is said while pipelines run, and about runs of the past.

use insta::assert_snapshot;

use crate::support::digests;
use crate::workspace;

#[test]
fn a_run_tells_its_story_and_its_results() {
    assert_snapshot!(workspace().run(["run", "--threads", "1"]), @r"
    exit code: 0
    --- stdout
    test (n = 320)
      variant  round           pass@1 %  guesses
      main         1   6.9 [ 4.1,  9.6]      320
      main         2  19.4 [15.0, 23.7]      320
      main         3  36.2 [31.0, 41.5]      320

    [low, high]: 95 % interval; n: what it is over
    --- stderr
            Plan guess, 14 stages: 14 to compute
         Running numbers (numbers)
        Finished numbers in [time]: 40 rows
         Running start (learn)
            Note start: practice makes perfect
        Finished start in [time]
         Running guess@1 (guess)
        Finished guess@1 in [time]: 320 rows
         Running learn@1 (learn)
            Note learn@1: practice makes perfect
        Finished learn@1 in [time]
         Running check@1 (check)
        Finished check@1 in [time]: 320 rows (249 computed, 71 cached)
         Running guess@2 (guess)
        Finished guess@2 in [time]: 320 rows
         Running score@1 (score)
        Finished score@1 in [time]: 2 rows
         Running check@2 (check)
        Finished check@2 in [time]: 320 rows (88 computed, 232 cached)
         Running learn@2 (learn)
            Note learn@2: practice makes perfect
        Finished learn@2 in [time]
         Running score@2 (score)
        Finished score@2 in [time]: 2 rows
         Running guess@3 (guess)
        Finished guess@3 in [time]: 320 rows
         Running learn@3 (learn)
            Note learn@3: practice makes perfect
        Finished learn@3 in [time]
         Running check@3 (check)
        Finished check@3 in [time]: 320 rows (7 computed, 313 cached)
         Running score@3 (score)
        Finished score@3 in [time]: 2 rows
            Done run [run] in [time]: 14 stages, 14 computed


    Tables of this run (Parquet): .tracetune/runs/[run]/*.parquet
      tracetune show latest                  this run's stages and results
      tracetune show latest check@3          a stage's table
      tracetune show latest check@3 --row 0  one row in full
    ");
}

#[test]
fn a_second_run_is_cached_and_shows_the_same() {
    let workspace = workspace();
    let first = workspace.run(["run", "--threads", "1"]);
    let second = workspace.run(["run", "--threads", "1"]);
    assert_eq!(first.stdout, second.stdout);
    assert_snapshot!(second, @r"
    exit code: 0
    --- stdout
    test (n = 320)
      variant  round           pass@1 %  guesses
      main         1   6.9 [ 4.1,  9.6]      320
      main         2  19.4 [15.0, 23.7]      320
      main         3  36.2 [31.0, 41.5]      320

    [low, high]: 95 % interval; n: what it is over
    --- stderr
            Plan guess, 14 stages: 14 cached
          Cached 14 stages: numbers, start, guess@1, learn@1, check@1, guess@2, learn@2, score@1,…
            Done run [run] in [time]: 14 stages, 14 cached


    Tables of this run (Parquet): .tracetune/runs/[run]/*.parquet
      tracetune show latest                  this run's stages and results
      tracetune show latest check@3          a stage's table
      tracetune show latest check@3 --row 0  one row in full
    ");
}

#[test]
fn a_changed_parameter_runs_what_depends_on_it() {
    let workspace = workspace();
    workspace.run(["run"]);
    assert_snapshot!(workspace.run(["plan", "--set", "guesses=12"]), @r"
    exit code: 0
    --- stdout
    stage    kind     status               rows  why
    numbers  numbers  hit                    40
    start    learn    hit
    guess@1  guess    miss     480 (320 cached)  `n` changed (8 => 12)
    check@1  check    unknown              ~320  `guess@1` (input `rows`) runs
    learn@1  learn    hit
    score@1  score    unknown               ~40  `check@1` (input `rows`) runs
    guess@2  guess    miss     480 (320 cached)  `n` changed (8 => 12)
    check@2  check    unknown              ~320  `guess@2` (input `rows`) runs
    learn@2  learn    hit
    score@2  score    unknown               ~40  `check@2` (input `rows`) runs
    guess@3  guess    miss     480 (320 cached)  `n` changed (8 => 12)
    check@3  check    unknown              ~320  `guess@3` (input `rows`) runs
    learn@3  learn    hit
    score@3  score    unknown               ~40  `check@3` (input `rows`) runs

    14 stages: 5 cached, 3 to compute, 6 unknown until those before them are done
    ");
    assert_snapshot!(workspace.run(["why", "pipeline.toml", "guess@1", "--set", "guesses=12"]), @r"
    exit code: 0
    --- stdout
    guess@1 is stale: `n` changed (8 => 12)
      480 rows, 320 of them cached
    ");
}

#[test]
fn why_names_what_changed_in_a_row() {
    let workspace = workspace();
    workspace.run(["run"]);
    assert_snapshot!(workspace.run(["why", "pipeline.toml", "guess@1", "3", "--set", "guesses=12"]), @r"
    exit code: 0
    --- stdout
    guess@1 row 3: 4 of 12 parts to compute
      `n` changed (8 => 12)
    ");
    assert_snapshot!(workspace.run(["why", "pipeline.toml", "guess@1", "40"]), @r"
    exit code: 2
    --- stderr
    error: `guess@1` has no row 40: it reads 40 rows, from 0
    ");
    assert_snapshot!(workspace.run(["why", "pipeline.toml", "numbers", "0"]), @r"
    exit code: 2
    --- stderr
    error: `numbers` (kind `numbers`) works on whole tables: there is nothing to say of one row
    ");
    let one_more = ["--set", "stages.numbers.count=41"];
    assert_snapshot!(workspace.run(["why", "pipeline.toml", "guess@1", "40"].iter().chain(&one_more)), @r"
    exit code: 2
    --- stderr
    error: the rows of `guess@1` are not known yet: `start` runs before it
    ");
    // The numbers are made, the guesses are not.
    workspace.run(["run", "--set", "rounds.guess.fail_at=80"].iter().chain(&one_more));
    assert_snapshot!(workspace.run(["why", "pipeline.toml", "guess@1", "39"].iter().chain(&one_more)), @r"
    exit code: 0
    --- stdout
    guess@1 row 39: cached
    ");
    assert_snapshot!(workspace.run(["why", "pipeline.toml", "guess@1", "40"].iter().chain(&one_more)), @r"
    exit code: 0
    --- stdout
    guess@1 row 40: 8 of 8 parts to compute
      column `problem_id` changed (n39 => n40)
      column `number` changed (43 => 80)
    ");
}

#[test]
fn a_failing_stage_ends_with_code_1_and_its_help() {
    assert_snapshot!(workspace().run(["run", "--threads", "1", "--set", "rounds.guess.fail_at=74"]), @r"
    exit code: 1
    --- stderr
            Plan guess, 14 stages: 14 to compute
         Running numbers (numbers)
        Finished numbers in [time]: 40 rows
         Running start (learn)
            Note start: practice makes perfect
        Finished start in [time]
         Running guess@1 (guess)
          Failed guess@1: can't think of 74
           help: leave out `fail_at`
         Skipped 11 stages: check@1, learn@1, score@1, guess@2, check@2, learn@2, score@2, guess@…
          Failed run [run] in [time]: 14 stages, 2 computed, 1 failed, 11 skipped

    Tables of this run (Parquet): .tracetune/runs/[run]/*.parquet
      tracetune show latest  this run's stages and results
      tracetune run …        again: what is finished is kept
    ");
}

#[test]
fn a_run_as_json_is_one_object() {
    let ran = workspace().run(["run", "--json"]);
    let json = ran.json();
    assert_eq!(json["status"], "done");
    assert_eq!(json["nodes"].as_array().map(Vec::len), Some(14));
    let metric = &json["metrics"][0];
    assert_eq!((&metric["metric"], &metric["round"]), (&"pass@1".into(), &1.into()));
}

#[test]
fn a_row_is_shown_in_full() {
    let workspace = workspace();
    workspace.run(["run", "-q"]);
    assert_snapshot!(workspace.run(["show", "latest", "check@1", "--row", "3"]), @r"
    exit code: 0
    --- stdout
    problem_id  n0
    split       test
    number      0
    guess       -4
    verdict     fail
    ");
    assert_snapshot!(workspace.run(["show", "latest", "check", "--limit", "3"]), @r"
    exit code: 0
    --- stdout
    row  problem_id  split  number  guess  verdict
      0  n0          test        0     -1  fail
      1  n0          test        0      1  fail
      2  n0          test        0     -1  fail
    --- stderr

    check@3: 3 of 320 rows; --row N prints one in full
    ");
    assert_snapshot!(workspace.run(["show", "latest", "chek"]), @r"
    exit code: 2
    --- stderr
    error: run `[run]` has no stage `chek`
    help: did you mean `check`?
    ");
}

#[test]
fn a_run_is_shown_with_its_stages() {
    let workspace = workspace();
    workspace.run(["run", "-q"]);
    assert_snapshot!(workspace.run(["show"]), @r"
    exit code: 0
    --- stdout
    [run]
    pipeline guess, seed 7, done; started [time], ended [time]
    [folder]/.tracetune/runs/[run]

    stage    kind     status    rows     size  outputs
    numbers  numbers  computed    40    829 B  rows [digest]
    start    learn    computed            1 B  curve [digest], model [digest]
    guess@1  guess    computed   320  1.5 KiB  rows [digest]
    check@1  check    computed   320  1.7 KiB  rows [digest]
    learn@1  learn    computed            1 B  curve [digest], model [digest]
    score@1  score    computed     2  1.3 KiB  metrics [digest], outcomes [digest]
    guess@2  guess    computed   320  1.5 KiB  rows [digest]
    check@2  check    computed   320  1.7 KiB  rows [digest]
    learn@2  learn    computed            2 B  curve [digest], model [digest]
    score@2  score    computed     2  1.3 KiB  metrics [digest], outcomes [digest]
    guess@3  guess    computed   320  1.5 KiB  rows [digest]
    check@3  check    computed   320  1.7 KiB  rows [digest]
    learn@3  learn    computed            2 B  curve [digest], model [digest]
    score@3  score    computed     2  1.3 KiB  metrics [digest], outcomes [digest]

    test (n = 320)
      variant  round           pass@1 %  guesses
      main         1   6.9 [ 4.1,  9.6]      320
      main         2  19.4 [15.0, 23.7]      320
      main         3  36.2 [31.0, 41.5]      320

    [low, high]: 95 % interval; n: what it is over
    ");
    assert_snapshot!(workspace.run(["runs"]), @r"
    exit code: 0
    --- stdout
    run                    pipeline  status  stages  cached  computed  started
    [run]  guess     done        14       0        14  [time]
    ");
}

#[test]
fn without_a_store_show_says_so_and_makes_none() {
    let workspace = workspace();
    let folder = workspace.path().join("elsewhere");
    let ran = workspace.run(["show", "--store", "elsewhere"]);
    assert_eq!(ran.code, Some(2), "{ran}");
    assert!(ran.stderr.contains("there is no store at"), "{ran}");
    assert!(!folder.exists());
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_is_finished() {
    let workspace = workspace();
    let pause = ["run", "--threads", "1", "--set", "rounds.guess.pause_ms=20"];
    let mut child = workspace.command(pause).stderr(std::process::Stdio::piped()).spawn().expect("the binary starts");
    // The first guesses take 32 × 20 ms a segment: there is time for one.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let interrupt = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupt.expect("kill").success());
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    let why = workspace.run(["why", "pipeline.toml", "guess@1", "--json", "--set", "rounds.guess.pause_ms=20"]).json();
    assert!(why["stages"][0]["estimate"]["cached"].as_u64() > Some(0), "{why}");
}

#[cfg(unix)]
#[test]
fn a_second_ctrl_c_ends_at_once() {
    let workspace = workspace();
    let pause = ["run", "--threads", "1", "--set", "rounds.guess.pause_ms=9000"];
    let mut child = workspace.command(pause).stderr(std::process::Stdio::piped()).spawn().expect("the binary starts");
    let start = std::time::Instant::now();
    for _ in 0..2 {
        std::thread::sleep(std::time::Duration::from_millis(1000));
        let interrupt = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(interrupt.expect("kill").success());
    }
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert!(start.elapsed().as_secs() < 9, "it waited for the row in flight");
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_is_no_error() {
    let workspace = workspace();
    workspace.run(["run", "-q"]);
    let mut child =
        workspace.command(["plan", "-q"]).stdout(std::process::Stdio::piped()).spawn().expect("the binary starts");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

/// The toys' pipeline with variants.
fn with_variants() -> crate::support::Workspace {
    let workspace = workspace();
    let path = workspace.path().join("pipeline.toml");
    let text = std::fs::read_to_string(&path).expect("the toys' pipeline");
    let variants = "\n[sweep]\nguesses = [4, 8]\n\n[ablations.lucky]\n\"rounds.guess.seed\" = 99\n";
    std::fs::write(path, text + variants).expect("the pipeline");
    workspace
}

#[test]
fn ablations_share_what_is_the_same_and_are_compared() {
    let workspace = with_variants();
    assert_snapshot!(workspace.run(["run", "--ablations", "--threads", "1"]), @r"
    exit code: 0
    --- stdout
    test (n = 320)
      variant  round           pass@1 %  guesses
      main         1   6.9 [ 4.1,  9.6]      320
      main         2  19.4 [15.0, 23.7]      320
      main         3  36.2 [31.0, 41.5]      320
      lucky        1   7.5 [ 4.6, 10.4]      320
      lucky        2  15.9 [11.9, 19.9]      320
      lucky        3  35.6 [30.4, 40.9]      320

    [low, high]: 95 % interval; n: what it is over
    --- stderr
            Plan guess, 23 stages: 23 to compute
         Running numbers (numbers)
        Finished numbers in [time]: 40 rows
         Running start (learn)
            Note start: practice makes perfect
        Finished start in [time]
         Running guess@1 (guess)
        Finished guess@1 in [time]: 320 rows
         Running learn@1 (learn)
            Note learn@1: practice makes perfect
        Finished learn@1 in [time]
         Running check@1 (check)
        Finished check@1 in [time]: 320 rows (249 computed, 71 cached)
         Running guess@2 (guess)
        Finished guess@2 in [time]: 320 rows
         Running score@1 (score)
        Finished score@1 in [time]: 2 rows
         Running check@2 (check)
        Finished check@2 in [time]: 320 rows (88 computed, 232 cached)
         Running learn@2 (learn)
            Note learn@2: practice makes perfect
        Finished learn@2 in [time]
         Running score@2 (score)
        Finished score@2 in [time]: 2 rows
         Running guess@3 (guess)
        Finished guess@3 in [time]: 320 rows
         Running learn@3 (learn)
            Note learn@3: practice makes perfect
        Finished learn@3 in [time]
         Running check@3 (check)
        Finished check@3 in [time]: 320 rows (7 computed, 313 cached)
         Running lucky/guess@1 (guess)
        Finished lucky/guess@1 in [time]: 320 rows
         Running score@3 (score)
        Finished score@3 in [time]: 2 rows
         Running lucky/check@1 (check)
        Finished lucky/check@1 in [time]: 320 rows (84 computed, 236 cached)
         Running lucky/guess@2 (guess)
        Finished lucky/guess@2 in [time]: 320 rows
         Running lucky/score@1 (score)
        Finished lucky/score@1 in [time]: 2 rows
         Running lucky/check@2 (check)
        Finished lucky/check@2 in [time]: 320 rows (5 computed, 315 cached)
         Running lucky/guess@3 (guess)
        Finished lucky/guess@3 in [time]: 320 rows
         Running lucky/score@2 (score)
        Finished lucky/score@2 in [time]: 2 rows
         Running lucky/check@3 (check)
        Finished lucky/check@3 in [time]: 320 rows (0 computed, 320 cached)
         Running lucky/score@3 (score)
        Finished lucky/score@3 in [time]: 2 rows
            Done run [run] in [time]: 23 stages, 23 computed


    Tables of this run (Parquet): .tracetune/runs/[run]/*.parquet
      tracetune show latest                        this run's stages and results
      tracetune show latest lucky/check@3          a stage's table
      tracetune show latest lucky/check@3 --row 0  one row in full
    ");
    assert_snapshot!(workspace.run(["compare", "latest:main", "latest:lucky"]), @r"
    exit code: 0
    --- stdout
    Sides
    side  run                    variant  round
    A     [run]  main         3
    B     [run]  lucky        3

    Settings that differ
    setting     A  B
    guess.seed  7  99

    test
    metric                    A                  B
    pass@1 %  36.2 [31.0, 41.5]  35.6 [30.4, 40.9]
    guesses                 320                320

    Against A, over the same problems
    side  split  problems      pass@1 points  won  lost  McNemar p  Holm p  e.g.
    B     test         40  -0.6 [-7.9, +6.7]   13     9     0.5235  0.5235  n10 n14 n15 n21 n28
    ");
    assert_snapshot!(workspace.run(["compare", "latest:main@1", "latest:main@3", "--markdown"]), @r"
    exit code: 0
    --- stdout
    **Sides**

    | side | run | variant | round |
    | --- | --- | --- | --: |
    | A | [run] | main | 1 |
    | B | [run] | main | 3 |

    **test**

    | metric | A | B |
    | --- | --: | --: |
    | pass@1 % | 6.9 [4.1, 9.6] | 36.2 [31.0, 41.5] |
    | guesses | 320 | 320 |

    **Against A, over the same problems**

    | side | split | problems | pass@1 points | won | lost | McNemar p | Holm p | e.g. |
    | --- | --- | --: | --: | --: | --: | --: | --: | --- |
    | B | test | 40 | +29.4 [+22.5, +35.9] | 9 | 0 | 0.0039 | 0.0039 | n1 n12 n16 n17 n20 |
    ");
    assert_snapshot!(workspace.run(["compare", "latest:main@1", "latest:main@3", "--problem", "n3"]), @r"
    exit code: 0
    --- stdout
    - [run]:main@1, check@1: 0 of 8 draws pass
    + [run]:main@3, check@3: 3 of 8 draws pass

    problem_id
      n3

    split
      test

    number
      11

    The flip: - draw 0, + draw 2

    guess
    - 9
    + 11

    verdict
    - fail
    + pass

    - draw 1: fail
    guess  14

    - draw 2: fail
    guess  17

    - draw 3: fail
    guess  15

    - draw 4: fail
    guess  10

    - draw 5: fail
    guess  5

    - draw 6: fail
    guess  8

    - draw 7: fail
    guess  13

    + draw 0: fail
    guess  10

    + draw 1: fail
    guess  12

    + draw 3: fail
    guess  10

    + draw 4: pass
    guess  11

    + draw 5: pass
    guess  11

    + draw 6: fail
    guess  12

    + draw 7: fail
    guess  12
    ");
    // The pipeline alone has nothing to do then.
    let alone = workspace.run(["run", "--json"]).json();
    assert!(alone["nodes"].as_array().expect("nodes").iter().all(|node| node["status"] == "cached"), "{alone}");
}

#[test]
fn a_sweep_is_one_graph() {
    let workspace = with_variants();
    assert_snapshot!(workspace.run(["check", "--sweep", "--ablations"]), @r"
    exit code: 0
    --- stdout
    ok: pipeline.toml (41 stages, loop rounds x 3)
    4 variants:
      guesses=4
      guesses=4/lucky
      guesses=8
      guesses=8/lucky
    ");
    assert_snapshot!(workspace.run(["plan", "--where", "guesses<8"]), @r"
    exit code: 0
    --- stdout
    stage    kind     status  rows  why
    numbers  numbers  miss       ?  it never ran here
    start    learn    miss       ?  it never ran here
    guess@1  guess    miss       ?  it never ran here
    check@1  check    miss       ?  it never ran here
    learn@1  learn    miss       ?  it never ran here
    score@1  score    miss       ?  it never ran here
    guess@2  guess    miss       ?  it never ran here
    check@2  check    miss       ?  it never ran here
    learn@2  learn    miss       ?  it never ran here
    score@2  score    miss       ?  it never ran here
    guess@3  guess    miss       ?  it never ran here
    check@3  check    miss       ?  it never ran here
    learn@3  learn    miss       ?  it never ran here
    score@3  score    miss       ?  it never ran here

    14 stages: 14 to compute
    ");
    assert_snapshot!(workspace.run(["run", "--only", "lukcy"]), @r"
    exit code: 2
    --- stderr
    error: there is no variant `lukcy`
    help: did you mean `lucky`?

    error: the pipeline has 1 error
    ");
}

#[test]
fn a_comparison_that_can_not_be_made_says_why() {
    let workspace = workspace();
    workspace.run(["run"]);
    assert_snapshot!(workspace.run(["compare", "latest:mian", "latest"]), @r"
    exit code: 2
    --- stderr
    error: run `[run]` has no variant `mian`
    help: did you mean `main`?
    ");
    assert_snapshot!(workspace.run(["compare", "latest:main@7", "latest"]), @r"
    exit code: 2
    --- stderr
    error: variant `main` of run `[run]` has no results of round 7
    help: its rounds are `1`, `2` and `3`
    ");
    assert_snapshot!(workspace.run(["compare", "latest:main@2"]), @r"
    exit code: 2
    --- stderr
    error: there is nothing to compare `[run]:main@2` with
    help: name a second run, or two of its rounds: `RUN:main@0 RUN:main@3`
    ");
    assert_snapshot!(workspace.run(["compare", "latest", "--problem", "n99"]), @r"
    exit code: 2
    --- stderr
    error: [run]:main@1 has no draws of problem `n99` to compare
    help: one that flipped is `n1`
    ");
}

#[test]
fn the_store_is_looked_after() {
    let workspace = workspace();
    workspace.run(["run"]);
    workspace.run(["run", "--set", "guesses=4"]);
    let first = workspace.run(["runs", "--json"]).json()["runs"][1]["id"].as_str().expect("an id").to_owned();
    assert_eq!(workspace.run(["cache", "verify"]).code, Some(0));
    workspace.run(["pin", &first]);
    let would = workspace.run(["gc", "--keep-runs", "1", "--json"]).json();
    assert_eq!((would["dry_run"].as_bool(), would["objects"].as_u64()), (Some(true), Some(0)), "{would}");
    workspace.run(["pin", "--off", &first]);
    let with_pipeline = workspace.run(["gc", "--keep-runs", "0", "pipeline.toml", "--json"]).json();
    assert!(
        with_pipeline["records"].as_u64()
            < workspace.run(["gc", "--keep-runs", "0", "--json"]).json()["records"].as_u64()
    );
    assert_eq!(workspace.run(["gc", "--keep-runs", "0", "--keep-days", "1", "--json"]).json()["objects"], 0);
    assert_eq!(workspace.run(["rm", &first]).code, Some(0));
    assert_eq!(workspace.run(["gc", "--keep-runs", "1", "--yes"]).code, Some(0));
    // What the run that is left needs is there.
    let again = workspace.run(["run", "--set", "guesses=4", "--json"]).json();
    assert!(again["nodes"].as_array().expect("nodes").iter().all(|node| node["status"] == "cached"), "{again}");
    assert!(workspace.run(["log", "--stage", "check@2"]).stdout.contains("stage cached"), "{}", workspace.run(["log"]));
}

#[test]
fn an_audit_recomputes_a_sample_and_finds_what_is_not_so() {
    let workspace = workspace();
    workspace.run(["run"]);
    let audit = ["audit", "latest", "--stages", "20", "--rows", "7"];
    let sound = workspace.run(audit.iter().chain(&["--json"])).json();
    assert_eq!(sound["same"], true, "{sound}");
    let findings = sound["findings"].as_array().expect("findings");
    assert_eq!(findings.len(), 14);
    let guess = findings.iter().find(|finding| finding["node"] == "guess@2").expect("a sampled stage");
    assert_eq!(guess["rows"], 7, "{guess}");

    // A record that names another round's table.
    let record = std::fs::read_to_string(
        workspace
            .path()
            .join(".tracetune/runs")
            .read_dir()
            .expect("runs")
            .next()
            .expect("a run")
            .expect("a run")
            .path()
            .join("run.json"),
    )
    .expect("run.json");
    let record: serde_json::Value = serde_json::from_str(&record).expect("JSON");
    let node =
        |id: &str| record["nodes"].as_array().expect("nodes").iter().find(|node| node["id"] == id).expect("it").clone();
    let (two, three) = (node("score@2"), node("score@3"));
    let key = three["key"].as_str().expect("a key");
    let path = workspace.path().join(format!(".tracetune/actions/{}/{key}.json", &key[..2]));
    let digest = |node: &serde_json::Value| node["outputs"]["metrics"]["digest"].as_str().expect("a digest").to_owned();
    let text = std::fs::read_to_string(&path).expect("the record").replace(&digest(&three), &digest(&two));
    std::fs::write(&path, text).expect("the record");
    let found = workspace.run(audit.iter().chain(&["--json"]));
    assert_eq!(found.code, Some(1), "{found}");
    let findings = found.json()["findings"].as_array().expect("findings").clone();
    let wrong: Vec<_> = findings.iter().filter(|finding| finding["different"] != serde_json::json!([])).collect();
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert_eq!(wrong[0]["node"], "score@3");
}

#[cfg(feature = "query")]
#[test]
fn sql_sees_all_runs_and_every_table() {
    let workspace = workspace();
    workspace.run(["run"]);
    workspace.run(["run", "--set", "guesses=4"]);
    let query = |sql: &str| workspace.run(["query", sql]);
    assert_snapshot!(query("select round, value from metrics where metric = 'guesses' order by value, round"), @r"
    exit code: 0
    --- stdout
    row  round  value
      0      1  160.0
      1      2  160.0
      2      3  160.0
      3      1  320.0
      4      2  320.0
      5      3  320.0
    ");
    assert_snapshot!(query("select verdict, count(*) as n from \"check@2\" group by verdict order by verdict"), @r"
    exit code: 0
    --- stdout
    row  verdict    n
      0  fail     125
      1  pass      35
    ");
    assert_snapshot!(query("select count(*) as n from \"score@1.outcomes\" o join \"numbers\" n on o.problem_id = n.problem_id"), @r"
    exit code: 0
    --- stdout
    row   n
      0  40
    ");
    assert_snapshot!(query("select * from chekc"), @r#"
    exit code: 2
    --- stderr
    error: run `[run]` has no stage `chekc`
    help: did you mean `"check"`?
    "#);
    assert_snapshot!(query("select count(* from metrics"), @r#"
    exit code: 2
    --- stderr
    error: SQL error: ParserError("Expected: ), found: from at Line: 1, Column: 16")
    "#);
}

#[cfg(not(feature = "query"))]
#[test]
fn without_sql_query_says_what_to_do() {
    let workspace = workspace();
    workspace.run(["run"]);
    assert_snapshot!(workspace.run(["query", "select 1"]), @r"
    exit code: 2
    --- stderr
    error: this tracetune was built without SQL
    help: build it with `--features query`, or ask DuckDB, Polars or pandas: README.md says how
    ");
}

#[cfg(unix)]
#[test]
fn kills_at_any_moment_change_no_byte() {
    let undisturbed = workspace();
    let start = std::time::Instant::now();
    undisturbed.run(["run", "-q"]);
    let whole = start.elapsed();
    let expected = digests(&undisturbed);
    // Ten stores, ten kills each, the moments spread over a run's length.
    for store in 0..10u32 {
        let killed = workspace();
        for kill in 0..10u32 {
            let mut child =
                killed.command(["run", "-q"]).stdout(std::process::Stdio::null()).spawn().expect("it starts");
            std::thread::sleep(whole * ((store * 37 + kill * 61) % 100) / 100);
            // It may have ended already.
            let _ = child.kill();
            child.wait().expect("its end");
        }
        let ran = killed.run(["run", "-q"]);
        assert_eq!(ran.code, Some(0), "{ran}");
        assert_eq!(digests(&killed), expected, "store {store}");
        assert_eq!(killed.run(["cache", "verify"]).code, Some(0));
    }
}

#[test]
fn processes_at_once_share_the_work_and_one_takes_over() {
    for locks in ["flock", "lease"] {
        share_and_take_over(locks);
    }
}

fn share_and_take_over(locks: &str) {
    let workspace = workspace();
    let spawn = || {
        let mut command = workspace.command(["run", "--json", "--set", "rounds.guess.pause_ms=1"]);
        command.env("TRACETUNE_LOCKS", locks);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().expect("it starts")
    };
    let mut doomed = spawn();
    let others = [spawn(), spawn()];
    std::thread::sleep(std::time::Duration::from_millis(400));
    let _ = doomed.kill();
    doomed.wait().expect("its end");
    let answers = others.map(|child| {
        let output = child.wait_with_output().expect("its end");
        assert_eq!(output.status.code(), Some(0));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).expect("JSON")
    });
    let computed = |answer: &serde_json::Value, id: &str| {
        let nodes = answer["nodes"].as_array().expect("nodes");
        nodes.iter().find(|node| node["id"] == id).expect("the node")["rows_computed"].as_u64().expect("a number")
    };
    for id in ["guess@1", "guess@2", "guess@3"] {
        let sum: u64 = answers.iter().map(|answer| computed(answer, id)).sum();
        // What the killed one had finished is not done again; nothing is done twice.
        assert!(sum <= 320, "{locks}, {id}: {sum} of 320 guesses");
    }
    // The killed one may have been the last to start: another makes the newest run a whole one.
    workspace.run(["run", "-q", "--set", "rounds.guess.pause_ms=1"]);
    let undisturbed = crate::workspace();
    undisturbed.run(["run", "-q", "--set", "rounds.guess.pause_ms=1"]);
    assert_eq!(digests(&workspace), digests(&undisturbed));
}
