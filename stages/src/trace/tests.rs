use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::OnceLock;

use super::*;
use crate::python::Python;
use crate::sandbox::{CpuSeconds, Limits};

fn row(buggy: &str, tests: &[&str]) -> ProgramRow {
    ProgramRow {
        reference: String::new(),
        buggy: Some(buggy.to_owned()),
        tests: tests.iter().map(|&test| test.to_owned()).collect(),
        setup: String::new(),
    }
}

/// A session of two workers that all tests share; `None` where there is no Python.
fn session() -> Option<&'static Session> {
    static SESSION: OnceLock<Option<Session>> = OnceLock::new();
    SESSION.get_or_init(|| Some(start(&Python::find().ok()?))).as_ref()
}

/// A session for the usual Python, and one for each further interpreter that the environment variable
/// `TRACETUNE_TEST_PYTHONS` names, with colons between.
fn sessions() -> Vec<Session> {
    let others = std::env::var("TRACETUNE_TEST_PYTHONS").unwrap_or_default();
    let others = others.split(':').filter(|path| !path.is_empty()).map(|path| Python::probe(path).expect(path));
    Python::find().into_iter().chain(others).map(|python| start(&python)).collect()
}

fn start(python: &Python) -> Session {
    let limits = Limits { cpu_s: CpuSeconds(1.0), memory_bytes: 128 << 20, ..Limits::default() };
    Session { sandbox: Sandbox::start(python, limits, 2).expect("the sandbox starts"), tokenizer: None }
}

/// Nothing where there is no Python.
fn traces(params: &Params, rows: &[ProgramRow]) -> Vec<TraceRow> {
    let Some(session) = session() else { return Vec::new() };
    trace(session, params, &rows.iter().collect::<Vec<_>>(), &|| false, &|_| {}).expect("the sandbox works")
}

/// A golden file is a traced program under a head of `# test:`, `# got:` and `# status:`; what was traced is the same
/// without the trace.
#[test]
fn traces_are_as_written_down() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/trace/golden");
    let mut files: Vec<PathBuf> = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let texts: Vec<String> = files.iter().map(|path| fs_err::read_to_string(path).unwrap()).collect();
    let heads_and_bodies: Vec<(Vec<&str>, String)> = texts
        .iter()
        .map(|text| {
            let mut parts: Vec<&str> = text.splitn(4, '\n').collect();
            let body = parts.pop().unwrap().to_owned();
            (parts, body)
        })
        .collect();
    // A note stands for no line of the program.
    let plain = |line: &str| line.rfind("  # (").map_or(line.to_owned(), |at| line[..at].to_owned());
    let rows: Vec<ProgramRow> = heads_and_bodies
        .iter()
        .map(|(head, body)| {
            let source: Vec<String> = body.split('\n').filter(|line| !line.starts_with("# ... ")).map(plain).collect();
            row(&source.join("\n"), &[head[0].strip_prefix("# test: ").unwrap()])
        })
        .collect();
    let params = Params::default();
    let reference = Params { settrace: true, ..Params::default() };
    for session in sessions() {
        for params in [&params, &reference] {
            let rows: Vec<&ProgramRow> = rows.iter().collect();
            let traced = trace(&session, params, &rows, &|| false, &|_| {}).expect("the sandbox works");
            for ((path, text), traced) in files.iter().zip(&texts).zip(traced) {
                let TraceRow { test, got, trace_status, trace, .. } = traced;
                let found = format!("# test: {test}\n# got: {got}\n# status: {trace_status}\n{trace}");
                assert!(found == *text, "{} differs, settrace: {}:\n{found}", path.display(), params.settrace);
            }
        }
    }
}

#[test]
fn the_first_failing_test_is_traced() {
    let tests = ["assert f(1) == 1", "assert f(-2) == 2", "assert f(-3) == 3"];
    for traced in traces(&Params::default(), &[row("def f(x):\n    return x\n", &tests)]) {
        assert_eq!((traced.test.as_str(), traced.got.as_str(), traced.steps), (tests[1], "-2", 2));
    }
}

/// What was traced of a program: its test's number, the value that decided, the status, and the lines with a change.
fn traced(buggy: &str, tests: &[&str]) -> Option<(usize, String, String, Vec<String>)> {
    let found = traces(&Params::default(), &[row(buggy, tests)]).pop()?;
    let test = tests.iter().position(|test| *test == found.test).expect("one of the tests");
    let changes = found.trace.lines().filter_map(|line| Some(line.split_once("  # ")?.1.to_owned())).collect();
    Some((test, found.got, found.trace_status, changes))
}

#[test]
fn what_is_traced_is_what_failed() {
    let grid = "def grid(n):\n    row = [0] * n\n    return [row] * n";
    let Some(found) = traced(grid, &["g = grid(2)\ng[0][0] = 1\nassert g == [[1, 0], [0, 0]]"]) else { return };
    assert_eq!((found.1.as_str(), found.2.as_str(), found.3.len()), ("[[1, 0], [1, 0]]", "ok", 3));
    // Of several comparisons the one that is false: the calls before and after it are not shown.
    let f = "def f(x):\n    return x + (x == 5)";
    let tests = ["assert f(1) == 1", "assert f(2) == 2\nassert f(5) == 5\nassert f(7) == 7"];
    let found = traced(f, &tests).expect("a trace");
    assert_eq!(
        (found.0, found.1.as_str(), found.3),
        (1, "6", vec!["(0) x=5;".to_owned(), "(1) __return__=6;".to_owned()])
    );
    // Nothing ran between the comparisons: then the whole test is shown.
    let found = traced(f, &["r = f(5)\nassert r > 0\nassert r == 5"]).expect("a trace");
    assert_eq!((found.1.as_str(), found.3.len()), ("6", 2));
}

#[test]
fn a_script_is_traced_with_its_input() {
    let double = "n = int(input())\nm = n * 3\nprint(m)";
    let Some(found) = traced(double, &[r#"{"stdin": "3\n", "stdout": "6\n"}"#]) else { return };
    assert_eq!((found.1.as_str(), found.2.as_str()), (r"'9\n'", "ok"));
    assert_eq!(found.3, ["(0) n=3;", "(1) m=9;", r"(2) __out__='9\n';"]);
}

#[test]
fn programs_that_can_not_be_traced_have_a_status() {
    let tests = &["assert f(1) == 2"];
    let cases = [
        ("def f(x): return 2\n", "no_failing_test", ""),
        ("def f(x: return 2\n", "invalid", ""),
        ("def f(x):\n    while True:\n        x += 1\n", "truncated", ""),
        ("def f(x): return f(x + 1) + f(x + 2)\n", "ok", "RecursionError("),
        ("def f(x):\n    return sum(range(10 ** 12))\n", "timeout", ""),
        ("import os\ndef f(x):\n    y = x\n    os._exit(0)\n", "crash", ""),
        ("def f(x):\n    raise SystemExit(0)\n", "crash", "SystemExit(0)"),
        ("def f(x):\n    y = [x] * 10 ** 10\n", "ok", "MemoryError()"),
        ("x = 1\ny = x / 0\n", "ok", "ZeroDivisionError('division by zero')"),
        ("import sys\nsys.settrace(None)\ndef f(x):\n    sys.settrace(None)\n    return x\n", "ok", "1"),
        ("def f(x):\n    for i in range(9):\n        print('x' * 10 ** 6)\n", "truncated", ""),
        (
            "class E(Exception):\n    def __repr__(self):\n        while True: pass\n    __str__ = __repr__\ndef f(x):\n    raise E('oh')\n",
            "ok",
            "E('oh')",
        ),
        (
            "class V:\n    def __init__(self): self.v = self\n    def __repr__(self): return self.v\n    def __eq__(self, o): 1 / 0\ndef f(x):\n    v = V()\n    return v\n",
            "ok",
            "V(v=<cycle>)",
        ),
    ];
    let rows: Vec<ProgramRow> = cases.iter().map(|(source, ..)| row(source, tests)).collect();
    let first = traces(&Params::default(), &rows);
    for ((source, status, got), traced) in cases.iter().zip(&first) {
        assert_eq!(traced.trace_status, *status, "{source}{}", traced.trace);
        // The words of a RecursionError are the interpreter's.
        let same = if got.ends_with('(') { traced.got.starts_with(got) } else { traced.got == *got };
        assert!(same, "{source}{}: {}", traced.trace, traced.got);
    }
    assert_eq!(first, traces(&Params::default(), &rows));
}

#[test]
fn what_ran_before_a_crash_is_shown() {
    let rows = [row("import os\ndef f(x):\n    y = x + 1\n    os._exit(0)\n", &["assert f(1) == 2"])];
    for traced in traces(&Params::default(), &rows) {
        assert_eq!(traced.trace, "import os\ndef f(x):  # (0) x=1;\n    y = x + 1  # (1) y=2;\n    os._exit(0)\n");
    }
}

#[test]
fn an_error_while_loading_is_traced() {
    for traced in traces(&Params::default(), &[row("x = 1\ny = [x][x]\n", &["assert y == 2"])]) {
        let expected = "x = 1  # (0) x=1;\ny = [x][x]  # (1) __exception__=IndexError('list index out of range');\n";
        assert_eq!((traced.trace.as_str(), traced.test.as_str()), (expected, "assert y == 2"));
    }
}

#[test]
fn a_full_stack_shows_the_first_frames_and_the_call_that_failed() {
    let rows = [row("def f(n):\n    return f(n + 1)\n", &["assert f(1) == 2"])];
    for traced in traces(&Params::default(), &rows) {
        let start = "def f(n):  # (0) n=1; (1) n=2; ...; (199) n=200;\n    return f(n + 1)  # (200) __exception__=RecursionError(";
        assert!(traced.trace.starts_with(start), "{}", traced.trace);
    }
}

#[test]
fn a_trace_that_the_program_switches_off_says_so() {
    let off = "def f(n):\n    import sys\n    sys.settrace(None)\n    m = getattr(sys, 'monitoring', None)\n    if m: m.free_tool_id(m.DEBUGGER_ID)\n    n = 2\n    return n\n";
    for traced in traces(&Params::default(), &[row(off, &["assert f(1) == 1"])]) {
        assert!(traced.trace.ends_with("# ... tracing was switched off by the program\n"), "{}", traced.trace);
        assert_eq!((traced.trace_status.as_str(), traced.got.as_str()), ("ok", "2"));
    }
}

#[test]
fn other_forms_show_the_same_run() {
    let rows = [row("def f(x):\n    y = [x]\n    if y:\n        del x\n    return y\n", &["assert f(1) == 2"])];
    let form = |form| Params { form, ..Params::default() };
    for traced in traces(&form(Form::Scratchpad), &rows) {
        insta::assert_snapshot!(traced.trace, @r#"
        line: def f(x):
        state: {"x": 1}
        line:     y = [x]
        state: {"x": 1, "y": [1]}
        line:     if y:
        state: {"x": 1, "y": [1]}
        line:         del x
        state: {"y": [1]}
        line:     return y
        state: {"y": [1]}
        line:     return y
        state: {"y": [1], "__return__": [1]}
        "#);
    }
    for traced in traces(&form(Form::Jsonl), &rows) {
        insta::assert_snapshot!(traced.trace, @r#"
        {"step":0,"line":1,"frame":0,"function":"f","changes":[["x","1"]]}
        {"step":1,"line":2,"frame":0,"function":"f","changes":[["y","[1]"]]}
        {"step":2,"line":4,"frame":0,"function":"f","changes":[["x",null]]}
        {"step":3,"line":5,"frame":0,"function":"f","changes":[["__return__","[1]"]]}
        "#);
    }
    for traced in traces(&Params { budget_chars: 110, ..form(Form::Jsonl) }, &rows) {
        let last = "{\"note\":\"3 left out\"}\n{\"step\":3,";
        assert!(traced.trace.starts_with(last) && traced.trace_status == "truncated", "{}", traced.trace);
    }
}

/// What `check.py` says of correct programs traced on their first tests.
fn complaints(rows: &[ProgramRow]) -> Option<String> {
    let python = Python::find().ok()?;
    let params = Params { program: Program::Reference, budget_chars: 1_000_000, ..Params::default() };
    let traced = traces(&params, rows);
    let line = |(row, traced): (&ProgramRow, &TraceRow)| {
        serde_json::json!({"source": row.reference, "trace": traced.trace, "test": traced.test, "got": traced.got,
            "steps": traced.steps})
        .to_string()
    };
    let lines: Vec<String> = rows.iter().zip(&traced).map(line).collect();
    let mut command = python.command();
    command.args(["-W", "ignore", "-c", include_str!("check.py")]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(lines.join("\n").as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn correct(reference: &str, setup: &str, tests: Vec<String>) -> ProgramRow {
    ProgramRow { reference: reference.replace("\r\n", "\n"), buggy: None, tests, setup: setup.to_owned() }
}

#[test]
fn the_traced_call_is_the_test_s_call() {
    let fixtures = [
        (
            "def f(xs, n=2):\n    \"\"\"Text\n    # (0) xs=9;\n    \"\"\"\n    return xs[:n]\n",
            "assert f([3, 1, 2], 1) == [3]",
        ),
        (
            "def g(s):\n    return s[::-1]\n\n\ndef f(s, t):\n    return g(s) + \\\n        t\n",
            "assert f('ab', \"it's\") == \"bait's\"",
        ),
        ("def f(d):\n    return {v: k for k, v in d.items()}\n", "assert f({'a': (1, 2)}) == {(1, 2): 'a'}"),
        ("def f(x,\n      y):\n    return x is None and [[y]]\n", "assert f(None, -1.5) == [[-1.5]]"),
    ];
    let mut rows: Vec<ProgramRow> =
        fixtures.iter().map(|(source, test)| correct(source, "", vec![(*test).to_owned()])).collect();
    if let Some(found) = complaints(&rows) {
        assert_eq!(found, "checked 4 rows, 4 calls");
    }
    rows[0].tests = vec!["assert f([3, 1, 2], 1) == [1]".to_owned()];
    if let Some(found) = complaints(&rows) {
        assert!(found.contains("got [3], the test expects [1]"), "{found}");
    }
}

/// Over all of MBPP and HumanEval, where the environment variable `TRACETUNE_TEST_DATA` names a folder with
/// `mbpp.jsonl` and `HumanEval.jsonl`.
#[test]
#[expect(clippy::print_stderr, reason = "says why it is skipped")]
fn the_traced_call_is_the_test_s_call_in_every_published_problem() {
    let Some(folder) = std::env::var_os("TRACETUNE_TEST_DATA").map(PathBuf::from) else {
        return eprintln!("skipped: TRACETUNE_TEST_DATA names no folder with mbpp.jsonl and HumanEval.jsonl");
    };
    let Some(session) = session() else { return };
    let values = |name: &str| -> Vec<serde_json::Value> {
        let text = fs_err::read_to_string(folder.join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let mbpp = values("mbpp.jsonl");
    let mbpp = mbpp.iter().map(|value| {
        let tests = value["test_list"].as_array().unwrap().iter().map(text).collect();
        correct(&text(&value["code"]), &text(&value["test_setup_code"]), tests)
    });
    // The other calls take sets or expressions, or values too long to be shown whole.
    assert_eq!(complaints(&mbpp.collect::<Vec<_>>()).unwrap(), "checked 974 rows, 956 calls");

    let human_eval = values("HumanEval.jsonl");
    let fields = |value: &serde_json::Value| [text(&value["test"]), text(&value["entry_point"])];
    let tests: Vec<[String; 2]> = human_eval.iter().map(fields).collect();
    let taken_apart = session.sandbox.map(&tests, &|| false, &|_| {}, |worker, [test, entry_point]| {
        worker.call("humaneval", &[test.as_bytes(), entry_point.as_bytes()])
    });
    let rows = human_eval.iter().zip(taken_apart.unwrap()).map(|(value, reply)| {
        let fields: Vec<String> =
            reply.frames[0].iter().map(|field| String::from_utf8(field.clone()).unwrap()).collect();
        let program = text(&value["prompt"]) + &text(&value["canonical_solution"]);
        correct(&program, &fields[1], fields[2..].to_vec())
    });
    assert_eq!(complaints(&rows.collect::<Vec<_>>()).unwrap(), "checked 164 rows, 149 calls");
}
