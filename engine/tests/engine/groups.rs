//! What the variants of a run were set to, and figures by these settings.

use crate::support::Project;
use tracetune_engine::compare::{CompareError, Groups, compare, grouped};
use tracetune_engine::runs;

const SWEEP: &str = "[params]\nbase = 0.5\nname = \"x\"\n\
                     [sweep]\nseed = [0, 1]\nbase = [1.0, 2.0]\n\
                     [stages.one]\nkind = \"results\"\nmetrics = [[\"loss\", \"$base\"], [\"$name\", 3.0]]\nallow_empty = true\n";

fn groups(project: &Project, by: &[&str]) -> Result<Groups, CompareError> {
    let by: Vec<String> = by.iter().map(|name| (*name).to_owned()).collect();
    let groups = grouped(&runs::load(&project.store(), "latest").unwrap(), &by)?;
    Ok(groups.expect("there is something to group by"))
}

/// The groups' values, their mean loss and how many variants it is of.
fn losses(groups: &Groups) -> Vec<(String, f64, usize)> {
    let figures = groups.figures.iter().filter(|figure| figure.metric == "loss");
    let words = figures.map(|figure| {
        let values: Vec<&str> = figure.values.iter().map(|value| value.as_deref().unwrap_or("-")).collect();
        (format!("{} {}", values.join(","), figure.variant), figure.figure.value, figure.figure.seeds)
    });
    words.collect()
}

#[test]
fn a_run_says_what_its_variants_were_set_to() {
    let project = Project::new();
    project.run(&(SWEEP.to_owned() + "[ablations.flat]\n\"stages.one.metrics\" = [[\"loss\", 0.0]]\n"));
    let run = runs::load(&project.store(), "latest").unwrap();
    let lines = run.param_lines().unwrap();
    let of = |variant: &str, stage: Option<&str>| -> Vec<String> {
        let own = lines.iter().filter(|line| line.variant == variant && line.stage.as_deref() == stage);
        own.map(|line| format!("{} {} {:?} {}", line.name, line.value, line.number, line.axis)).collect()
    };
    let point = ["seed 1 Some(1.0) true", "base 2.0 Some(2.0) true", "name x None false"];
    assert_eq!(of("seed=1,base=2.0", None), point);
    let ablated = of("seed=1,base=2.0/flat", None);
    assert_eq!(ablated[..3], point);
    assert_eq!(ablated[3..], ["stages.one.metrics [[\"loss\",0.0]] None true"]);
    assert_eq!(
        of("seed=1,base=2.0", Some("one")),
        ["metrics [[\"loss\",2.0],[\"x\",3.0]] None false", "outcomes [] None false", "seed 1 Some(1.0) false"]
    );
    // Every figure finds its settings.
    for line in run.metric_lines().unwrap() {
        assert!(lines.iter().any(|param| param.variant == line.variant && param.name == "base"), "{}", line.variant);
    }
}

#[test]
fn a_plain_run_has_its_params_too() {
    let project = Project::new();
    project.run(&SWEEP.replace("[sweep]\nseed = [0, 1]\nbase = [1.0, 2.0]\n", ""));
    let run = runs::load(&project.store(), "latest").unwrap();
    let lines = run.param_lines().unwrap().into_iter().filter(|line| line.stage.is_none());
    let names: Vec<_> = lines.map(|line| (line.variant, line.name, line.axis)).collect();
    let main = |name: &str| ("main".to_owned(), name.to_owned(), false);
    assert_eq!(names, [main("seed"), main("base"), main("name")]);
}

#[test]
fn figures_are_grouped_by_all_but_seeds_unless_told_otherwise() {
    let project = Project::new();
    project.run(SWEEP);
    let by_base = groups(&project, &[]).unwrap();
    assert_eq!(
        (by_base.by.as_slice(), by_base.over.as_slice()),
        (["base".to_owned()].as_slice(), ["seed".to_owned()].as_slice())
    );
    assert_eq!(losses(&by_base), [("1.0 main".to_owned(), 1.0625, 2), ("2.0 main".to_owned(), 2.0625, 2)]);
    let by_seed = groups(&project, &["seed"]).unwrap();
    assert_eq!(losses(&by_seed), [("0 main".to_owned(), 1.5, 2), ("1 main".to_owned(), 1.625, 2)]);
    let alone = groups(&project, &["seed", "base"]).unwrap();
    assert_eq!(losses(&alone).len(), 4);
    assert!(alone.figures.iter().all(|figure| figure.figure.seeds == 1));
    let loss = by_base.figures.iter().find(|figure| figure.metric == "loss").unwrap();
    let half = 12.706_204_736_174_7 / 16.0;
    assert!((loss.figure.ci_high.unwrap() - 1.0625 - half).abs() < 1e-6, "{loss:?}");
}

#[test]
fn a_stage_s_own_parameter_groups_ablations_too() {
    let project = Project::new();
    project.run(
        "[ablations.more]\n\"one.seed\" = 4\n\
         [stages.one]\nkind = \"results\"\nmetrics = [[\"loss\", 1.0]]\nallow_empty = true\n",
    );
    let grouped = groups(&project, &["one.seed"]).unwrap();
    assert_eq!(losses(&grouped), [("0 main".to_owned(), 1.0, 1), ("4 more".to_owned(), 1.5, 1)]);
}

#[test]
fn a_parameter_that_is_not_there_is_told_with_those_that_are() {
    let project = Project::new();
    project.run(SWEEP);
    let error = groups(&project, &["bass"]).unwrap_err();
    assert!(
        matches!(&error, CompareError::NoParam { name, known, .. } if name == "bass" && *known == ["base", "seed"]),
        "{error}"
    );
}

#[test]
fn runs_with_metrics_alone_are_compared() {
    let project = Project::new();
    project.run("[stages.one]\nkind = \"results\"\nmetrics = [[\"loss\", 1.0]]\nallow_empty = true\n");
    let first = runs::load(&project.store(), "latest").unwrap().record.id;
    project.run("[stages.one]\nkind = \"results\"\nmetrics = [[\"loss\", 2.0]]\nallow_empty = true\n");
    let comparison = compare(&project.store(), &[first, "latest".to_owned()]).unwrap();
    let values: Vec<_> = comparison.metrics[0].figures.iter().map(|figure| figure.as_ref().unwrap().value).collect();
    assert_eq!(values, [1.0, 2.0]);
    assert_eq!(comparison.flips, []);
}
