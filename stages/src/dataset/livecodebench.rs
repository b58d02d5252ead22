//! LiveCodeBench (Jain et al. 2024, arXiv:2403.07974), `code_generation_lite`: problems without a solution.

use serde::Deserialize;
use tracetune_engine::stage::StageError;

use super::ProblemRow;
use super::contest::{Calls, Contest};
use super::layout::Source;
use super::packed;

/// A public or private test case.
#[derive(Deserialize, serde::Serialize)]
struct Case {
    input: String,
    output: String,
    testtype: String,
}

/// Reads a row.
pub(super) fn contest(source: &Source) -> Result<Result<Contest, (String, String)>, StageError> {
    let starter = source.optional("starter_code")?;
    let function = function(source)?;
    let question = source.text("question_content")?;
    let problem = ProblemRow {
        problem_id: format!("livecodebench/{}", source.text("question_id")?),
        split: "test".to_owned(),
        instruction: if starter.trim().is_empty() { question } else { format!("{question}\n\n{starter}") },
        entry_point: function.clone(),
        ..ProblemRow::default()
    };
    let mut contest = Contest { problem, ..Contest::default() };
    let mut called = Vec::new();
    for field in ["public_test_cases", "private_test_cases"] {
        for case in cases(source, field)? {
            match case.testtype.as_str() {
                "stdin" => contest.streams.push((case.input, case.output)),
                "functional" => called.push(case),
                other => {
                    return Err(
                        source.wrong(field, &format!("has a test of type `{other}`, not `stdin` or `functional`"))
                    );
                }
            }
        }
    }
    if !called.is_empty() {
        if function.is_empty() {
            return Err(source.wrong("metadata", "has no `func_name`, which functional tests call"));
        }
        let cases =
            serde_json::to_string(&called).map_err(|error| source.wrong("private_test_cases", &error.to_string()))?;
        contest.calls = Some(Calls { function, starter, cases, field: "private_test_cases" });
    }
    Ok(Ok(contest))
}

/// The function that functional tests call; empty for a problem on standard input and output.
fn function(source: &Source) -> Result<String, StageError> {
    #[derive(Default, Deserialize)]
    struct Metadata {
        #[serde(default)]
        func_name: Option<String>,
    }
    let text = source.optional("metadata")?;
    if text.trim().is_empty() {
        return Ok(String::new());
    }
    let metadata: Metadata =
        serde_json::from_str(&text).map_err(|error| source.wrong("metadata", &format!("is not JSON: {error}")))?;
    Ok(metadata.func_name.unwrap_or_default())
}

fn cases(source: &Source, field: &str) -> Result<Vec<Case>, StageError> {
    let text = source.optional(field)?;
    let text = match text.trim() {
        "" => return Ok(Vec::new()),
        json if json.starts_with('[') => json.to_owned(),
        packed => packed::unpacked(packed).map_err(|message| source.wrong(field, &message))?,
    };
    serde_json::from_str(&text)
        .map_err(|error| source.wrong(field, &format!("is no JSON list of `input`, `output` and `testtype`: {error}")))
}
