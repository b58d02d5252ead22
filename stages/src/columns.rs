//! The standard columns: one name, one type, one meaning, for every kind.

/// One standard column.
pub struct StandardColumn {
    /// Its name in every table.
    pub name: &'static str,
    /// Its Arrow type.
    pub data_type: &'static str,
    /// What it holds, with its unit.
    pub about: &'static str,
}

const fn column(name: &'static str, data_type: &'static str, about: &'static str) -> StandardColumn {
    StandardColumn { name, data_type, about }
}

/// All standard columns, in the order in which a pipeline adds them.
pub const STANDARD: &[StandardColumn] = &[
    column("problem_id", "string", "names the problem; results are clustered by it"),
    column("split", "string", "train, dev, test, …: disjoint by problem"),
    column("instruction", "string", "what the program should do, in words"),
    column("reference", "string", "a correct program"),
    column("entry_point", "string", "the function that the tests call"),
    column("setup", "string", "code that runs before the tests; may be empty"),
    // A test is the text of Python statements that run after the program and `setup`: mostly one `assert`; a class of
    // `unittest.TestCase`, whose methods a runner runs; or definitions with a call of a test function. Or it is a JSON
    // object on one line, `{"stdin": "3\n1 2 3\n", "stdout": "6\n"}`: the program runs as `__main__` with that standard
    // input, and its output is compared word by word; with `"tolerance": 1e-6` numbers may differ by so much.
    column(
        "tests",
        "list<string>",
        "the tests: an `assert`, other statements, a `unittest` class, or `{\"stdin\": …, \"stdout\": …}` each",
    ),
    column("buggy", "string", "the program to repair"),
    column("mutation", "string", "the kind of bug, e.g. `comparison`"),
    column("test", "string", "the first failing test, which is the one traced"),
    column("trace", "string", "the program with its execution as inline comments (NExT, arXiv 2404.14662, Fig. 2)"),
    column("got", "string", "what the failing call returned or raised"),
    column("trace_status", "string", "ok, truncated, timeout, crash, invalid or no_failing_test"),
    column("steps", "int32", "state-changing steps in the trace"),
    column("sample", "int32", "number of the draw, from 0; -1 is the greedy one"),
    column("prompt", "string", "what the model read"),
    column("completion", "string", "what the model wrote"),
    column("rationale", "string", "its explanation, parsed from the completion"),
    column("fix", "string", "the whole repaired program; empty if the completion holds none"),
    column("finish", "string", "why decoding ended: stop or length"),
    column("tokens", "int32", "tokens in the completion"),
    column("logprob", "float32", "sum of the tokens' log-probabilities, natural log, at temperature 1"),
    column("added", "int32", "tests that `differential` added to `tests`"),
    column("mutants", "int32", "mutants of the reference that were held against the tests"),
    column("killed", "int32", "of them, those that some test notices"),
    column("lines", "int32", "lines of the reference's functions that can run"),
    column("covered", "int32", "of them, those that the tests run"),
    column("verdict", "string", "pass, fail, error, timeout, limit, crash or invalid"),
    column("judged", "string", "outside: no comparison was made in the program's process; inside: some were"),
    column("passed", "int32", "tests passed"),
    column("total", "int32", "tests there are"),
    column(
        "results",
        "string",
        "a letter a test: `.` passed, F false, E exception, T timeout, L limit, C crash, - not reached",
    ),
    column("detail", "string", "the first failing test or the error, cut short"),
];
