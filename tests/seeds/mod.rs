//! What a pipeline's seed moves.

use std::collections::BTreeSet;

use crate::support::Workspace;
use crate::workspace;

const PROBLEMS: &str = "[pipeline]\nname = \"seeds\"\nseed = 1\n[params]\ncorpus = \"$seed\"\n\
                        [stages.problems]\nkind = \"dataset\"\nsource = \"builtin:mini-python\"\n\
                        sizes = { test = 60 }\ncorpus = \"$corpus\"\n\
                        [stages.traces]\nkind = \"trace\"\nrows = \"problems\"\n\
                        [stages.kept]\nkind = \"mutate\"\nrows = \"problems\"\n";

/// The programs of a run with these flags, and what the run said.
fn programs(workspace: &Workspace, sets: &[&str]) -> (BTreeSet<String>, String) {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let ran = workspace.run(["run", "seeds.toml"].into_iter().chain(sets));
    assert_eq!(ran.code, Some(0), "{ran}");
    let shown = workspace.run(["show", "latest", "problems", "--limit", "100", "--json"]).json();
    let rows = shown["rows"].as_array().expect("rows").iter();
    (rows.map(|row| row["reference"].as_str().expect("a program").to_owned()).collect(), ran.stderr)
}

#[test]
fn a_seed_moves_the_problems_unless_they_are_held_fixed_and_the_run_says_which() {
    let workspace = workspace();
    workspace.write("seeds.toml", PROBLEMS);
    let (first, said) = programs(&workspace, &[]);
    assert!(
        first.len() == 60 && said.contains("Plan seeds, seed 1, 3 stages") && !said.contains("Note seed"),
        "{said}"
    );

    // Not one program is in both.
    let (second, said) = programs(&workspace, &["seed=11"]);
    assert!(first.is_disjoint(&second) && said.contains("Plan seeds, seed 11, "), "{said}");

    let (held, said) = programs(&workspace, &["seed=11", "corpus=1"]);
    assert_eq!(held, first);
    assert!(said.contains("Note seed 1 for problems\n"), "{said}");
    let shown = workspace.run(["show"]);
    assert!(shown.stdout.contains("seed 11 (seed 1 for problems), done"), "{shown}");
}

#[test]
fn problems_of_a_file_do_not_depend_on_the_seed() {
    let workspace = workspace();
    workspace.write(
        "own.jsonl",
        "{\"problem_id\": \"a\", \"split\": \"test\", \"instruction\": \"i\", \"reference\": \"x = 1\", \
         \"entry_point\": \"x\", \"tests\": [\"assert x\"], \"setup\": \"\"}\n",
    );
    workspace.write("own.toml", "[stages.problems]\nkind = \"dataset\"\nsource = \"own.jsonl\"\n");
    let first = workspace.run(["run", "own.toml", "--json"]).json();
    let second = workspace.run(["run", "own.toml", "--json", "--set", "seed=2"]).json();
    assert_eq!((&first["nodes"][0]["status"], &second["nodes"][0]["status"]), (&"computed".into(), &"cached".into()));
}
