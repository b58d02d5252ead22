//! Sweeps and ablations: which variants there are, and what they share.

use super::*;
use crate::pipeline::Choice;

const SHARED: &str = r#"

[sweep]
samples = [4, 16]
"rounds.samples.timeout_s" = [0, 5]

[ablations.cold]
"rounds.samples.timeout_s" = 9
[ablations.short]
"rounds.times" = 2
"#;

fn choose(text: &str, choice: Choice) -> Result<Pipeline, Vec<Diagnostic>> {
    let overrides = Overrides { set: Vec::new(), variants: choice };
    Pipeline::from_text(text, "test.toml", Path::new("/project"), &toys::registry(), &overrides)
}

fn sweep() -> Choice {
    Choice { sweep: true, ..Choice::default() }
}

/// The file of the other tests with variants.
fn text(variants: &str) -> String {
    format!("{LOOP}{variants}")
}

fn ids(pipeline: &Pipeline) -> Vec<&str> {
    pipeline.nodes.iter().map(|node| node.id.as_str()).collect()
}

fn labels(pipeline: &Pipeline) -> Vec<String> {
    let mut labels: Vec<String> = pipeline.nodes.iter().flat_map(|node| node.variant.clone()).collect();
    labels.sort();
    labels.dedup();
    labels
}

#[test]
fn a_grid_has_every_combination() {
    let pipeline = choose(&text(SHARED), sweep()).unwrap();
    for name in ["samples=4,timeout_s=0", "samples=4,timeout_s=5", "samples=16,timeout_s=0", "samples=16,timeout_s=5"] {
        assert!(labels(&pipeline).iter().any(|label| label == name), "{name} in {:?}", labels(&pipeline));
    }
    assert!(!labels(&pipeline).iter().any(|label| label == "main"));
}

#[test]
fn what_is_the_same_is_there_once() {
    let plain = choose(&text(SHARED), Choice::default()).unwrap();
    let pipeline = choose(&text(SHARED), Choice { ablations: true, ..Choice::default() }).unwrap();
    // Everything of the pipeline itself keeps its name.
    let all = ids(&pipeline);
    assert!(ids(&plain).iter().all(|id| all.contains(id)), "{all:?}");
    let problems = node(&pipeline, "problems");
    assert!(problems.variant.iter().any(|label| label == "cold"), "{:?}", problems.variant);
    assert_eq!(all.iter().filter(|id| id.ends_with("problems")).count(), 1);
    // Edges stay within a variant or go to what it shares.
    let cold = pipeline.nodes.iter().find(|node| node.id == "cold/samples@1").expect("`cold` samples for itself");
    assert_eq!(cold.variant, ["cold"]);
    assert_eq!(source(&pipeline, "cold/samples@1", "rows"), source(&pipeline, "samples@1", "rows"));
    assert!(pipeline.nodes.iter().all(|node| node.inputs.iter().all(|binding| match &binding.source {
        Source::Node { node, .. } => *node < pipeline.nodes.len(),
        Source::Loop { nodes, in_loop, .. } => *in_loop < pipeline.loops.len() && !nodes.is_empty(),
    })));
}

#[test]
fn a_loop_decides_only_for_its_own_variant() {
    let pipeline = choose(&text(SHARED), Choice { ablations: true, ..Choice::default() }).unwrap();
    let mut seen = std::collections::HashMap::new();
    for (index, one) in pipeline.loops.iter().enumerate().filter(|(_, one)| one.stop.is_some() || one.select.is_some())
    {
        for member in one.rounds.iter().flatten() {
            assert_eq!(seen.insert(*member, index), None, "{} is in two loops that decide", pipeline.nodes[*member].id);
            assert!(pipeline.nodes[*member].variant.iter().any(|label| label.starts_with(&one.label)));
        }
    }
    assert!(!seen.is_empty());
}

#[test]
fn variants_are_chosen_by_name_and_by_condition() {
    let only =
        |names: &[&str]| Choice { only: names.iter().map(|name| (*name).to_owned()).collect(), ..Choice::default() };
    assert_eq!(labels_of(only(&["cold"])), ["cold"]);
    assert_eq!(labels_of(only(&["main", "cold"])), ["cold", "main"]);
    let warm = Choice { conditions: vec!["timeout_s > 0".to_owned()], ..Choice::default() };
    assert_eq!(labels_of(warm), ["samples=16,timeout_s=5", "samples=4,timeout_s=5"]);
    let both = Choice { ablations: true, conditions: vec!["samples=16".into(), "timeout_s<=0".into()], ..sweep() };
    let main = "samples=16,timeout_s=0";
    assert_eq!(labels_of(both), [main.to_owned(), format!("{main}/cold"), format!("{main}/short")]);
}

/// The labels of the stages that are labelled `main` in the file.
fn labels_of(choice: Choice) -> Vec<String> {
    let pipeline = choose(&text(SHARED), choice).unwrap();
    labels(&pipeline).into_iter().filter(|label| !label.ends_with("best")).collect()
}

#[test]
fn random_draws_are_the_same_every_time() {
    let variants = r#"
        [sweep]
        draws = { count = 6, seed = 3 }
        "rounds.samples.temperature" = { from = 0.1, to = 1.0, scale = "log" }
        samples = { from = 2, to = 9 }
    "#;
    let first = labels(&choose(&text(variants), sweep()).unwrap());
    assert_eq!(first, labels(&choose(&text(variants), sweep()).unwrap()));
    let points = first.iter().filter(|label| label.starts_with("temperature=") && !label.contains('/')).count();
    assert_eq!(points, 6, "{first:?}");
    let other = variants.replace("seed = 3", "seed = 4");
    assert_ne!(first, labels(&choose(&text(&other), sweep()).unwrap()));
}

#[test]
fn a_range_may_be_all_integers() {
    let range = |from: i64, to: i64| format!("[sweep]\ndraws = 3\nseed = {{ from = {from}, to = {to} }}");
    assert!(choose(&text(&range(0, i64::MAX)), sweep()).is_ok());
    // Some seeds are below 0 here, which is an error of theirs.
    assert!(problems(&text(&range(i64::MIN, i64::MAX))).iter().all(|problem| problem.contains("`seed`")));
}

#[test]
fn types_are_named_in_words() {
    let told = problems(&text("[ablations.much]\nsamples = 7910813644027688751"));
    assert!(
        told[0].contains("`n`: invalid value: integer `7910813644027688751`, expected an integer from 0 to"),
        "{told:?}"
    );
}

#[test]
fn mistakes_in_variants_are_found_without_running_them() {
    let told = |variants: &str| problems(&text(&format!("\n{variants}\n")));
    assert_eq!(
        told("[ablations.cold]\n\"rounds.smaples.temperature\" = 0.0"),
        [
            "67: a loop has no key `smaples` | the keys are `times`, `carry`, `stop`, `select`, `stages` and `first` | this is so in variant `cold`"
        ],
    );
    assert_eq!(
        told("[ablations.cold]\n\"rounds.samples.temperature\" = \"low\""),
        ["67: `temperature` must be a number, found the string \"low\" | this is so in variant `cold`"]
    );
    assert_eq!(
        told("[sweep]\ndraws = 4.5"),
        ["67: `draws` must be a list of values, found the number 4.5 | write `draws = [4, 16, 32]`"]
    );
    assert_eq!(
        told("[sweep]\nx = { from = 1, to = 2 }"),
        [
            "67: `x` is a range, which only random draws can use | add `draws = { count = 20 }` to [sweep], or list the values"
        ]
    );
    assert_eq!(
        told("[sweep]\ndrws = [1, 2]"),
        [
            "67: there is nothing called `drws` to set | the file's parameters are `samples` | this is so in variant `drws=1`"
        ]
    );
    assert_eq!(
        told("[ablations]\nmain = {}"),
        [
            "67: `main` can't be the name of an ablation | use letters, digits, `-`, `_` and `.`; `main` is the pipeline without ablation"
        ]
    );
}

#[test]
fn a_choice_that_fits_nothing_says_what_there_is() {
    let told = |choice| choose(&text(SHARED), choice).err().unwrap().iter().map(super::told).collect::<Vec<_>>();
    let only = |name: &str| Choice { only: vec![name.to_owned()], ..Choice::default() };
    let condition = |text: &str| Choice { conditions: vec![text.to_owned()], ..Choice::default() };
    assert_eq!(told(only("clod")), ["0: there is no variant `clod` | did you mean `cold`?"]);
    assert_eq!(
        told(condition("timeout<1")),
        ["0: the sweep has no axis `timeout` | the axes are `rounds.samples.timeout_s` and `samples`"]
    );
    assert_eq!(
        told(condition("timeout_s")),
        ["0: `timeout_s` is not a condition | write an axis, a comparison and a value: `--where 'temperature<1'`"]
    );
    assert_eq!(
        told(condition("timeout_s>7")),
        ["0: `timeout_s>7` is true of no variant | `tracetune check --sweep` lists them"]
    );
}

#[test]
fn a_variant_called_like_a_label_of_the_file_is_refused() {
    let label = "\n[stages.control]\nkind = \"evaluate\"\nrows = \"rounds.verdicts\"\nvariant = [\"main\", \"cold\"]\n";
    let text = text(&format!("{label}{SHARED}"));
    let problems = choose(&text, Choice { ablations: true, ..Choice::default() }).err().expect("a problem");
    assert!(problems[0].message.ends_with("would both be called `cold`"), "{problems:?}");
    assert!(choose(&text, Choice::default()).is_ok());
}
