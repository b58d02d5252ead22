//! `tracetune trace`: one call of a program, traced by the same code as the kind `trace`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tracetune_cli::tool::{Output, error};
use tracetune_cli::{Tool, exit};

use super::{interpreter, with_help};
use crate::sandbox::{CpuSeconds, Sandbox};
use crate::trace::{Form, Params, records, tokenizer, trace_call};

/// Run a call of a Python program and print the program with its execution trace
///
/// The program runs in the sandbox, under limits. TRACETUNE_PYTHON names the interpreter.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tracetune trace f.py --call 'f([3, 1])'        the program with each line's changes beside it
  tracetune trace f.py --call 'assert f(2) == 4' --form scratchpad
  tracetune trace f.py --call 'f(9)' --json | jq .steps
  tracetune trace f.py                           what happens while the program is loaded")]
pub(super) struct Trace {
    /// The program
    file: PathBuf,
    /// The call: an expression or an `assert`, evaluated in the program; without it the program's loading is traced
    #[arg(long)]
    call: Option<String>,
    /// `next`: inline; `scratchpad`: each executed line with the whole state; `jsonl`: a JSON object a step
    #[arg(long, value_enum, default_value = "next")]
    form: Form,
    /// Statements that are traced before the trace ends
    #[arg(long, value_name = "N", default_value_t = Params::default().max_steps, value_parser = clap::value_parser!(u32).range(1..))]
    max_steps: u32,
    /// Characters of one value
    #[arg(long, value_name = "N", default_value_t = Params::default().value_chars, value_parser = clap::value_parser!(u32).range(8..))]
    value_chars: u32,
    /// Items shown of one list, dict or set
    #[arg(long, value_name = "N", default_value_t = Params::default().value_items, value_parser = clap::value_parser!(u32).range(1..))]
    value_items: u32,
    /// Visits of a line that are kept from the start
    #[arg(long, value_name = "N", default_value_t = Params::default().first)]
    first: u32,
    /// Visits of a line that are kept at the end
    #[arg(long, value_name = "N", default_value_t = Params::default().last)]
    last: u32,
    /// Characters of the whole output; no limit unless given
    #[arg(long, value_name = "N")]
    budget_chars: Option<u32>,
    /// Tokens of the whole output, counted by the tokenizer of `--model`
    #[arg(long, value_name = "N", requires = "model")]
    budget_tokens: Option<u32>,
    /// A model's directory, with its `tokenizer.json`
    #[arg(long, value_name = "DIR", requires = "budget_tokens")]
    model: Option<PathBuf>,
    /// Packages that the program may import: a virtual environment, or a folder that `pip install --target` filled
    #[arg(long, value_name = "DIR")]
    packages: Option<String>,
    /// CPU time, in seconds
    #[arg(long, value_name = "S", default_value_t = Params::default().cpu_limit_s)]
    cpu_limit_s: CpuSeconds,
}

pub(super) fn tool() -> Tool {
    Tool::new("trace", run)
}

fn run(trace: &Trace, output: &Output) -> anyhow::Result<u8> {
    let params = Params {
        form: trace.form,
        max_steps: trace.max_steps,
        value_chars: trace.value_chars,
        value_items: trace.value_items,
        first: trace.first,
        last: trace.last,
        budget_chars: trace.budget_chars.unwrap_or(u32::MAX),
        budget_tokens: trace.budget_tokens,
        cpu_limit_s: trace.cpu_limit_s,
        ..Params::default()
    };
    let source = fs_err::read_to_string(&trace.file)?.replace("\r\n", "\n");
    let tokenizer = trace.model.as_deref().map(tokenizer).transpose()?;
    let sandbox =
        Sandbox::start(&interpreter(trace.packages.as_deref(), &[])?, params.limits(), 1).map_err(with_help)?;
    let call = trace.call.as_deref().map(str::trim);
    let call = call.map(|call| (if call.starts_with("assert") { "exec" } else { "value" }, call));
    let traced = sandbox.map(&[()], &|| false, &|_| {}, |worker, ()| trace_call(worker, &params, &source, call))?;
    let Some((run, _)) = traced.into_iter().next() else { anyhow::bail!("the sandbox gave no answer") };
    if let Some(invalid) = &run.invalid {
        return Err(refused(trace, invalid));
    }
    let (text, cut) = params.write(&source, &run, tokenizer.as_ref());
    let status = if cut && run.status == "ok" { "truncated" } else { run.status };
    if output.json() {
        output.answer_json(&json!({
            "trace": text, "status": status, "got": run.got, "steps": records(&run), "notes": run.marks,
        }));
    } else {
        output.answer(text.trim_end_matches('\n'));
        if !run.got.is_empty() {
            output.story(format!("{:>12} {}", "Got", run.got));
        }
        if status != "ok" {
            output.story(format!("{:>12} {status}", "Status"));
        }
    }
    Ok(exit::DONE)
}

fn refused(trace: &Trace, (call, words, line): &(bool, String, usize)) -> anyhow::Error {
    if *call {
        let given = trace.call.as_deref().unwrap_or_default();
        return error(format!("`{given}` is no call: {words}"), "write an expression, e.g. `--call 'f([3, 1])'`");
    }
    let place = if *line > 0 { format!("{}:{line}", trace.file.display()) } else { trace.file.display().to_string() };
    error(format!("`{place}` does not compile: {words}"), "the program must be Python that the interpreter accepts")
}
