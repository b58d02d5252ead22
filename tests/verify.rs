//! `tracetune verify` as a user meets it.

use serde_json::{Value, json};

use crate::workspace;

/// The lines of an answer.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn each_program_gets_a_line_and_the_exit_code_is_0_whatever_the_verdicts() {
    let workspace = workspace();
    let tests = json!(["assert f(1) == 2", "assert f(2) == 3"]);
    let program = |id: &str, source: &str| json!({"id": id, "source": source, "tests": tests}).to_string();
    let text = [
        program("right", "def f(x): return x + 1"),
        program("half", "def f(x): return 2"),
        program("forger", "class E:\n    def __eq__(self, other): return True\ndef f(x): return E()"),
        program("hangs", "def f(x):\n    while True: pass"),
        program("leaves", "import os\ndef f(x): os._exit(0)"),
        program("no Python", "def f(x:"),
        // Invalid UTF-8 in a comment, which an interpreter that reads bytes lets pass.
        json!({"id": 7, "source_base64": "ZGVmIGYoeCk6IHJldHVybiB4ICsgMSAjIP8=", "tests": tests}).to_string(),
        json!({"id": 8, "source_base64": "ZGVmIGYoeCk6IHJldHVybiB4ICsgMQ==", "tests": ["assert f(1) < 3"]}).to_string(),
        // A broken test is its own program's alone.
        json!({"id": 9, "source": "x = 1", "tests": ["assert f("]}).to_string(),
    ];
    workspace.write("programs.jsonl", &text.join("\n"));
    let ran = workspace.run(["verify", "programs.jsonl", "--workers", "2", "--cpu-limit-s", "1", "-q"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let line = |id: Value, verdict: &str, tests: [&str; 2], detail: &str| {
        let judged = if id == 7 { "inside" } else { "outside" };
        json!({"id": id, "verdict": verdict, "tests": tests, "detail": detail, "judged": judged})
    };
    let expected = [
        line("right".into(), "pass", ["pass", "pass"], ""),
        line("half".into(), "fail", ["pass", "fail"], "test 2: 2 is not 3"),
        line("forger".into(), "fail", ["fail", "fail"], "test 1: <E> is not 2"),
        line("hangs".into(), "timeout", ["timeout", "not run"], "cpu"),
        line("leaves".into(), "crash", ["crash", "not run"], "ended early with status 0"),
        line("no Python".into(), "invalid", ["not run", "not run"], "SyntaxError"),
        line(7.into(), "invalid", ["not run", "not run"], "it is no UTF-8"),
        json!({"id": 8, "verdict": "pass", "tests": ["pass"], "detail": "", "judged": "outside"}),
        json!({
            "id": 9, "verdict": "invalid", "tests": ["not run"], "judged": "inside",
            "detail": "test 1 does not parse: '(' was never closed (<unknown>, line 1)",
        }),
    ];
    assert_eq!(lines(&ran.stdout), expected, "{ran}");
}

#[test]
#[expect(clippy::print_stderr, reason = "says why it is skipped")]
fn the_walls_need_no_root() {
    use std::os::unix::{fs::PermissionsExt, process::CommandExt};
    const SOMEBODY: u32 = 4321;
    let python = "/usr/bin/python3";
    if !rustix::process::geteuid().is_root() || !std::path::Path::new(python).exists() {
        eprintln!("skipped: needs to be root, to be another user, and a {python} that every user may start");
        return;
    }
    let workspace = workspace();
    let source = format!("import os\ndef f(): return os.path.exists({:?})", workspace.path());
    let sees = json!({"id": "sees", "source": source, "tests": ["assert f()"]}).to_string();
    let forks = json!({"id": "forks", "source": "import os\ndef f(): os.fork()", "tests": ["assert f()"]}).to_string();
    workspace.write("programs.jsonl", &[sees, forks].join("\n"));
    for folder in [workspace.path().to_owned(), workspace.path().join(".tracetune")] {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).expect("a folder for everybody");
    }
    let mut command = workspace.command(["verify", "programs.jsonl"]);
    let output = match command.env("TRACETUNE_PYTHON", python).uid(SOMEBODY).gid(SOMEBODY).output() {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            eprintln!("skipped: another user can't start the binary: {error}");
            return;
        }
        output => output.expect("the binary starts"),
    };
    let ran = workspace.ran(&output);
    if ran.stderr.contains("CPython 3.10 or newer is needed") {
        eprintln!("skipped: {}", ran.stderr);
        return;
    }
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.stderr.contains("candidates run as you do"), "{ran}");
    let lines = lines(&ran.stdout);
    assert_eq!((&lines[1]["verdict"], &lines[1]["detail"]), (&"error".into(), &"test 1: PermissionError".into()));
    if ran.stderr.contains("namespaces: a user namespace") {
        assert_eq!(lines[0]["verdict"], "fail", "{ran}");
    } else {
        eprintln!("skipped, this machine has no namespaces for users: {}", ran.stderr);
    }
}

#[test]
fn a_bad_line_is_an_error_that_names_file_line_and_field() {
    let workspace = workspace();
    let good = r#"{"id": 1, "source": "x = 1", "tests": []}"#;
    for (bad, message) in [
        ("{", "bad.jsonl:2: is no JSON object"),
        (r#"{"source": "", "tests": []}"#, "bad.jsonl:2: field `id` must be a text or a number"),
        (r#"{"id": 1, "tests": []}"#, "bad.jsonl:2: field `source` is missing"),
        (r#"{"id": 1, "source": 3, "tests": []}"#, "bad.jsonl:2: field `source` must be a text"),
        (r#"{"id": 1, "source_base64": "?", "tests": []}"#, "bad.jsonl:2: field `source_base64` is no base64"),
        (r#"{"id": 1, "source": "", "tests": "f"}"#, "bad.jsonl:2: field `tests` must be a list of texts"),
        (r#"{"id": 1, "source": "", "test": []}"#, "bad.jsonl:2: field `test` is not known"),
    ] {
        workspace.write("bad.jsonl", &format!("{good}\n{bad}\n"));
        let ran = workspace.run(["verify", "bad.jsonl"]);
        assert_eq!(ran.code, Some(2), "{ran}");
        assert!(ran.stderr.contains(message) && ran.stdout.is_empty(), "{bad}: {ran}");
    }
}
