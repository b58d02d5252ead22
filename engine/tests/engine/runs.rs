//! A run's folder.

use crate::support::Project;
use tracetune_engine::arrow::datatypes::DataType;
use tracetune_engine::runs::{self, RunStatus};
use tracetune_engine::table::read_column;

const TEXT: &str = "[stages.numbers]\nkind = \"numbers\"\nvalues = []\nallow_empty = true\n\
                    [stages.none]\nkind = \"double\"\nrows = \"numbers\"\ntag = \"TAG\"\n\
                    [stages.zero]\nkind = \"sum\"\nrows = \"none\"\n\
                    [loop.rounds]\ntimes = 2\ncarry.at = { start = \"zero\", next = \"step\" }\n\
                    [loop.rounds.stages.step]\nkind = \"step\"\nfrom = \"at\"\ntag = \"TAG\"\nscores = [0.25, 0.5]\n";

fn columns(batch: &tracetune_engine::arrow::array::RecordBatch) -> Vec<(String, DataType)> {
    batch.schema().fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
}

#[test]
fn a_run_is_a_folder_of_tables() {
    let project = Project::new();
    let ran = project.run(TEXT);
    let store = project.store();
    let run = runs::load(&store, &ran.summary.run_id).unwrap();
    assert_eq!(run.record.status, RunStatus::Done);
    let metrics = run.metrics().unwrap();
    let (text, int, float) = (DataType::Utf8, DataType::Int32, DataType::Float64);
    let expected = [
        ("run", &text),
        ("pipeline", &text),
        ("variant", &text),
        ("round", &int),
        ("split", &text),
        ("metric", &text),
        ("k", &int),
        ("value", &float),
        ("ci_low", &float),
        ("ci_high", &float),
        ("n", &DataType::Int64),
    ];
    assert_eq!(columns(&metrics), expected.map(|(name, kind)| (name.to_owned(), kind.clone())));
    assert_eq!(read_column::<i32>(&metrics, "round").unwrap(), [1, 2]);
    assert_eq!(read_column::<f64>(&metrics, "value").unwrap(), [0.25, 0.5]);
    assert_eq!(read_column::<Option<f64>>(&metrics, "ci_low").unwrap(), [None, None]);
    assert_eq!(read_column::<String>(&metrics, "variant").unwrap(), ["main", "main"]);
    let stages = run.stages().unwrap();
    let names = read_column::<String>(&stages, "stage").unwrap();
    assert_eq!(names, ["numbers", "none", "zero", "step@1", "step@2"]);
    assert!(read_column::<String>(&stages, "status").unwrap().iter().all(|status| status == "computed"));
    let outcomes = run.outcomes().unwrap();
    assert_eq!(read_column::<i32>(&outcomes, "passes").unwrap(), [0, 1]);
    assert!(run.pipeline_text().unwrap().contains("[loop.rounds]"));
    let events = run.events().unwrap();
    assert_eq!(events[0]["event"], "run_started");
    assert_eq!(events.last().unwrap()["event"], "run_finished");
}

#[test]
fn a_cached_run_has_the_same_metrics_and_notes() {
    let project = Project::new();
    project.run(TEXT);
    let ran = project.run(TEXT);
    let run = runs::load(&project.store(), "latest").unwrap();
    assert_eq!(run.record.id, ran.summary.run_id);
    assert_eq!(run.metrics().unwrap().num_rows(), 2);
    let notes = run.events().unwrap().iter().filter(|event| event["text"] == "a step was made").count();
    assert_eq!(notes, 2);
}

#[test]
fn runs_are_listed_oldest_first_and_found_by_a_prefix() {
    let project = Project::new();
    let (first, second) = (project.run(TEXT).summary.run_id, project.run(TEXT).summary.run_id);
    assert_ne!(first, second);
    let store = project.store();
    let ids: Vec<String> = runs::list(&store).unwrap().into_iter().map(|run| run.record.id).collect();
    assert_eq!(ids, [first.as_str(), second.as_str()]);
    assert!(runs::load(&store, "nothing").unwrap_err().to_string().contains("no run `nothing`"));
    assert!(runs::load(&store, "2").is_err(), "two runs begin so");
    assert!(runs::load(&store, "../runs").is_err());
}

#[test]
fn a_node_s_tables_are_found_by_name() {
    let project = Project::new();
    let id = project.run(TEXT).summary.run_id;
    let store = project.store();
    let run = runs::load(&store, &id).unwrap();
    assert_eq!(run.table(&store, "step", None).unwrap(), run.table(&store, "step@2", Some("to")).unwrap());
    assert_eq!(run.table(&store, "step@1", Some("metrics")).unwrap().num_rows(), 1);
    assert!(run.table(&store, "nothing", None).is_err());
    let error = run.table(&store, "step@1", Some("nothing")).unwrap_err();
    assert_eq!(error.to_string(), "`step@1` has no output `nothing`");
}

#[test]
fn a_run_whose_process_died_is_interrupted() {
    let project = Project::new();
    let id = project.run(TEXT).summary.run_id;
    let store = project.store();
    let path = runs::load(&store, &id).unwrap().folder.join("run.json");
    let text = std::fs::read_to_string(&path).unwrap().replace("\"done\"", "\"running\"");
    std::fs::write(&path, text).unwrap();
    assert_eq!(runs::load(&store, &id).unwrap().record.status, RunStatus::Interrupted);
}

#[test]
fn a_failed_run_has_its_tables_too() {
    let project = Project::new();
    let text = format!("{TEXT}[stages.bad]\nkind = \"fail\"\nhow = \"error\"\nfrom = \"rounds.step\"\n");
    let ran = project.run(&text);
    assert_eq!(ran.summary.status, RunStatus::Failed);
    let run = runs::load(&project.store(), "latest").unwrap();
    assert_eq!(run.record.status, RunStatus::Failed);
    assert_eq!(run.metrics().unwrap().num_rows(), 2);
    assert_eq!(run.node("bad").unwrap().message.as_deref(), Some("no interpreter"));
}
