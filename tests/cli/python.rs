//! Kind `python` as its users meet it.

use crate::purity::node;
use crate::support::Workspace;
use crate::workspace;

const PIPELINE: &str = r#"
[pipeline]
name = "own"
[stages.problems]
kind = "dataset"
source = "builtin:mini-python"
sizes = { dev = 40 }
[stages.own]
kind = "python"
function = "own.py:own"
rows = "problems"
"#;

const FUNCTION: &str = "\"\"\"Of a program.\"\"\"
import helpers
from dataclasses import dataclass

LIMIT = 3

@dataclass
class Size:
    characters: int
    lines: list[str]
    share: float | None

def unused():
    return 1

def own(reference: str) -> Size:
    \"\"\"How large it is.\"\"\"
    print(\"seen\", len(reference))
    lines = helpers.lines(reference)
    return Size(len(reference), lines[:LIMIT], 1 / len(lines) if lines else None)
";

const HELPERS: &str = "def lines(text):\n    return text.splitlines()\n\ndef other():\n    pass\n";

fn project() -> Workspace {
    let workspace = workspace();
    workspace.write("pipeline.toml", PIPELINE).write("own.py", FUNCTION).write("helpers.py", HELPERS);
    workspace
}

/// The rows that were computed.
fn computed(workspace: &Workspace) -> u64 {
    let ran = workspace.run(["run", "pipeline.toml", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    node(&ran.json(), "own")["rows_computed"].as_u64().unwrap_or_default()
}

#[test]
fn a_function_adds_the_columns_that_its_annotation_says() {
    let workspace = project();
    assert_eq!(computed(&workspace), 40);
    let shown = workspace.run(["show", "latest", "own", "--row", "0", "--json"]).json();
    let row = &shown["value"];
    let reference = row["reference"].as_str().expect("a program");
    assert_eq!(row["characters"], reference.chars().count(), "{shown}");
    assert_eq!(row["lines"].as_array().map(Vec::len), Some(reference.lines().count().min(3)));
    let log = workspace.run(["log", "latest", "own"]);
    assert_eq!(log.stdout.matches("seen").count(), 40, "what it prints goes to the log");
}

#[test]
fn comments_are_free_and_the_code_that_it_reaches_counts() {
    let workspace = project();
    assert_eq!(computed(&workspace), 40);
    for (file, from, to, expected) in [
        ("own.py", "    lines =", "    # a comment\n    lines   =", 0),
        ("own.py", "How large it is.", "How large it may be.", 0),
        ("own.py", "return 1\n", "return 2\n", 0),
        ("own.py", "LIMIT = 3", "LIMIT = 2", 40),
        ("own.py", "LIMIT = 2", "LIMIT = 3", 0),
        ("helpers.py", "text.splitlines()", "text.split(\"\\n\")", 40),
    ] {
        let path = workspace.path().join(file);
        let text = std::fs::read_to_string(&path).expect("the file");
        assert!(text.contains(from), "{from}");
        workspace.write(file, &text.replace(from, to));
        assert_eq!(computed(&workspace), expected, "{from} => {to}");
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let digest = |threads: &str| {
        let workspace = project();
        let ran = workspace.run(["run", "pipeline.toml", "-j", threads]);
        assert_eq!(ran.code, Some(0), "{ran}");
        crate::support::digests(&workspace)
    };
    assert_eq!(digest("1"), digest("3"));
}

#[test]
fn rows_that_fail_are_left_out_with_their_traceback_and_the_others_are_kept() {
    let workspace = project();
    let failing = FUNCTION.replace("    lines =", "    assert len(reference) % 3, \"three\"\n    lines =");
    workspace.write("own.py", &failing);
    let ran = workspace.run(["run", "pipeline.toml"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("AssertionError: three"), "{ran}");
    assert!(ran.stderr.contains("own.py\", line 19, in own"), "{ran}");
    workspace.write("pipeline.toml", &format!("{PIPELINE}bad_rows = \"90%\"\n"));
    let ran = workspace.run(["run", "pipeline.toml", "--json"]);
    let good = node(&ran.json(), "own")["rows"].as_u64().expect("rows");
    assert!(good > 0 && good < 40, "{ran}");
    let bad = workspace.run(["show", "latest", "own.bad", "--limit", "100", "--json"]).json();
    assert_eq!(bad["rows"].as_array().map_or(0, Vec::len) as u64, 40 - good);
    // Each row was called once: no good one is called again because another one failed.
    let log = workspace.run(["log", "latest", "own"]);
    assert!(log.stdout.matches("seen").count() <= 40, "{log}");
}

#[test]
fn keywords_and_a_set_up_are_given_to_the_function() {
    let workspace = project();
    workspace.write(
        "own.py",
        "def load():\n    print('loaded')\n    return {'add': 100}\n\n\
         def own(reference: str, *, scale: int, state) -> int:\n    return len(reference) * scale + state['add']\n",
    );
    workspace.write("pipeline.toml", &format!("{PIPELINE}setup = \"load\"\nparams = {{ scale = 2 }}\n"));
    let ran = workspace.run(["run", "pipeline.toml", "-j", "1"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let shown = workspace.run(["show", "latest", "own", "--row", "0", "--json"]).json();
    let row = &shown["value"];
    let length = row["reference"].as_str().expect("a program").chars().count();
    assert_eq!(row["own"], 2 * length + 100, "{shown}");
    let log = workspace.run(["log", "latest", "own"]);
    assert_eq!(log.stdout.matches("loaded").count(), 1, "once for each worker");
}

#[test]
fn a_worker_that_dies_and_what_the_function_may_not_return_are_told() {
    for (body, message) in [
        ("import os; os._exit(7)", "the worker ended with exit status: 7"),
        ("return 'text'", "column `own` is int64, and the function returned 'text'"),
        ("return 1 << 70", "can't hold 1180591620717411303424"),
        ("return undefined", "NameError: name 'undefined' is not defined"),
    ] {
        let workspace = project();
        workspace.write("own.py", &format!("def own(reference) -> int:\n    {body}\n"));
        let ran = workspace.run(["run", "pipeline.toml"]);
        assert!(ran.code == Some(1) && ran.stderr.contains(message), "{message}: {ran}");
    }
}

#[test]
fn mistakes_are_found_before_anything_runs() {
    for (source, pipeline, message) in [
        (FUNCTION, format!("{PIPELINE}setup = \"lines\"\n"), "`setup`: `own.py` has no function `lines`"),
        (FUNCTION, PIPELINE.replace("own.py:own", "own.py:onw"), "did you mean `own`?"),
        (FUNCTION, PIPELINE.replace("own.py:own", "won.py:own"), "there is no file `won.py` in the project's root"),
        ("def own(reference) -> int\n    return 1\n", PIPELINE.to_owned(), "own.py:1: expected ':'"),
        ("def own(reference): return 1\n", PIPELINE.to_owned(), "has no annotation that says its columns"),
        (
            "def own(referenze) -> int: return 1\n",
            PIPELINE.to_owned(),
            "reads column `referenze`, which `problems` does not have",
        ),
        ("def own(reference, *, n) -> int: return 1\n", PIPELINE.to_owned(), "the function's keyword `n` is not given"),
        ("def own(reference) -> dict: return {}\n", PIPELINE.to_owned(), "own.py:1: `dict` is no type of a column"),
        (
            "def own(rows, size): pass\n",
            format!("{PIPELINE}outputs = {{ sizes = \"folder\" }}\n"),
            "the function has no parameter `sizes`, the folder that it is to fill",
        ),
        (FUNCTION, PIPELINE.replace("rows = \"problems\"", ""), "`own` has no `rows`: the rows it works on"),
    ] {
        let workspace = project();
        workspace.write("own.py", source).write("pipeline.toml", &pipeline);
        let ran = workspace.run(["check", "pipeline.toml"]);
        assert!(ran.code == Some(2) && ran.stderr.contains(message), "{message}: {ran}");
    }
}

/// A stage of rows with this code, in a project with these other files.
fn run_with(own: &str, more: &str) -> (Workspace, crate::support::Ran) {
    let workspace = project();
    workspace.write("own.py", own).write("pipeline.toml", &format!("{PIPELINE}{more}"));
    let ran = workspace.run(["run", "pipeline.toml", "--json"]);
    (workspace, ran)
}

#[test]
fn a_module_that_is_not_in_the_key_is_refused() {
    let workspace = project();
    let own = "import pydoc\n\ndef own(reference) -> int:\n    return pydoc.locate('hidden.length')(reference)\n";
    workspace.write("hidden.py", "def length(text): return len(text)\n").write("own.py", own);
    let ran = workspace.run(["run", "pipeline.toml"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("hidden.py"), "{ran}");
    assert!(ran.stderr.contains("is not in the stage's key"), "{ran}");
}

#[test]
fn a_compiled_file_is_not_run_in_the_place_of_its_source() {
    let workspace = project();
    workspace.write("own.py", "import helpers\n\ndef own(reference) -> int:\n    return helpers.one()\n");
    let helpers = workspace.path().join("helpers.py");
    let write = |text: &str| {
        std::fs::write(&helpers, text).expect("the file");
        let file = std::fs::File::options().write(true).open(&helpers).expect("the file");
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000)).expect("its time");
    };
    write("def one(): return 1\n");
    let compiled = std::process::Command::new("python3").args(["-m", "py_compile"]).arg(&helpers).status();
    assert!(compiled.expect("python3 starts").success());
    // Of the same size and time: Python itself takes the compiled file for this one's.
    write("def one(): return 2\n");
    assert_eq!(computed(&workspace), 40);
    let shown = workspace.run(["show", "latest", "own", "--row", "0", "--json"]).json();
    assert_eq!(shown["value"]["own"], 2);
}

#[test]
fn functions_that_were_written_for_other_ends_take_columns_in_order() {
    let own = "from textwrap import shorten\n\ndef own(text, width=10, *more):\n    return shorten(text, width)\n";
    let (workspace, ran) =
        run_with(own, "reads = [\"reference\"]\nadds = { short = \"string\" }\nparams = { width = 12 }\n");
    assert_eq!(ran.code, Some(0), "{ran}");
    let shown = workspace.run(["show", "latest", "own", "--row", "0", "--json"]).json();
    assert!(shown["value"]["short"].as_str().is_some_and(|short| short.len() <= 12), "{shown}");
}

#[test]
fn a_function_of_whole_tables_gets_paths_and_fills_a_folder() {
    let own = "import pathlib, shutil\n\n\
               def own(rows: pathlib.Path, plots: pathlib.Path, copy: pathlib.Path, *, name: str):\n    \
               (plots / name).write_text(str(rows.stat().st_size))\n    shutil.copyfile(rows, copy)\n";
    let outputs = "outputs = { copy = \"table\", plots = \"folder\" }\nparams = { name = \"size.txt\" }\n";
    let (workspace, ran) = run_with(own, outputs);
    assert_eq!(ran.code, Some(0), "{ran}");
    let shown = workspace.run(["show", "latest", "own.copy", "--limit", "100", "--json"]).json();
    assert_eq!(shown["rows"].as_array().map(Vec::len), Some(40), "{shown}");
}

#[test]
#[expect(clippy::print_stderr, reason = "says that it skipped")]
fn a_function_of_data_frames_returns_a_table() {
    let has_pandas = std::process::Command::new("python3").args(["-c", "import pandas, pyarrow"]).output();
    if !has_pandas.is_ok_and(|output| output.status.success()) {
        eprintln!("pandas is not installed: functions of data frames are not run");
        return;
    }
    let own = "import pandas as pd\n\ndef own(rows: pd.DataFrame) -> pd.DataFrame:\n    return rows[['problem_id']].head(3)\n";
    let (workspace, ran) = run_with(own, "");
    assert_eq!(ran.code, Some(0), "{ran}");
    let shown = workspace.run(["show", "latest", "own", "--json"]).json();
    assert_eq!(shown["rows"].as_array().map(Vec::len), Some(3), "{shown}");
}

#[test]
fn an_index_of_pandas_that_would_be_lost_is_an_error() {
    // As far as a worker looks at a pandas table: none need be installed.
    let frame = |names: &str, dtype: &str| {
        format!(
            "import pathlib, shutil\n\nclass Index(list):\n    names, dtype = {names}, {dtype:?}\n\n\
             class Frame:\n    index = Index([1])\n\n    def __init__(self, rows):\n        self.rows = rows\n\n    \
             def to_parquet(self, path, index):\n        shutil.copyfile(self.rows, path)\n\n\
             def own(rows: pathlib.Path) -> \"pandas.DataFrame\":\n    return Frame(rows)\n"
        )
    };
    for (names, dtype, error) in [
        ("['problem_id']", "int64", Some("whose index ['problem_id'] is no column: return `.reset_index()`")),
        ("[None]", "object", Some("whose index has labels that are in no column")),
        ("[None]", "int64", None),
    ] {
        let (_, ran) = run_with(&frame(names, dtype), "");
        assert_eq!(ran.code, Some(i32::from(error.is_some())), "{ran}");
        assert!(ran.stderr.contains(error.unwrap_or_default()), "{ran}");
    }
}

#[test]
fn a_run_that_is_killed_loses_tens_of_rows() {
    let workspace = project();
    let own = "import os, time\n\nCOUNT = os.open('count', os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n\n\
               def own(reference) -> int:\n    os.write(COUNT, b'.')\n    time.sleep(0.002)\n    return len(reference)\n";
    let pipeline = PIPELINE.replace("dev = 40", "dev = 300");
    workspace.write("own.py", own).write("pipeline.toml", &pipeline);
    let calls = || std::fs::metadata(workspace.path().join("count")).map_or(0, |count| count.len());
    let mut run = workspace.command(["run", "pipeline.toml", "-q", "-j", "2"]).spawn().expect("the binary starts");
    while calls() < 150 && run.try_wait().expect("a status").is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    run.kill().expect("it is killed");
    run.wait().expect("it ends");
    // Its workers end with it; a row in flight may still be counted.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let before = calls();
    assert!(before < 300, "it was killed too late to tell");
    let again = computed(&workspace);
    assert_eq!(calls() - before, again);
    assert!(before + again < 300 + 64, "{before} calls, then {again}");
}

#[test]
#[expect(clippy::print_stderr, reason = "says that it skipped")]
fn a_no_op_starts_no_interpreter() {
    let workspace = project();
    // A virtual environment whose interpreter notes its starts.
    let environment = workspace.path().join("env");
    let made = std::process::Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&environment).status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("python3 can't make a virtual environment: starts are not counted");
        return;
    }
    let library =
        std::fs::read_dir(environment.join("lib")).expect("a library").next().expect("a release").expect("it");
    let count = workspace.path().join("starts");
    let note = format!("import os; open({:?}, 'a').write('.')\n", count.display().to_string());
    std::fs::write(library.path().join("site-packages/note.pth"), note).expect("the note");
    workspace.write("pipeline.toml", &format!("{PIPELINE}python = \"env/bin/python\"\n"));
    // What is a moment old may change once more within a tick of the clock: it is not remembered.
    let own = std::fs::File::options().write(true).open(workspace.path().join("own.py")).expect("the file");
    own.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(3600)).expect("its time");
    let starts = || {
        let ran = workspace.run(["run", "pipeline.toml", "-q"]);
        assert_eq!(ran.code, Some(0), "{ran}");
        std::fs::metadata(&count).map_or(0, |count| count.len())
    };
    let first = starts();
    assert!(first > 0);
    assert_eq!(starts(), first);
}

#[test]
fn why_finds_the_row_that_a_row_was_by_the_key_of_its_table() {
    let workspace = workspace();
    let pipeline = "[pipeline]\nname = \"own\"\n[stages.texts]\nkind = \"table\"\npath = \"texts.csv\"\nkey = [\"id\"]\n\
                    [stages.size]\nkind = \"python\"\nfunction = \"own.py:size\"\nrows = \"texts\"\n\
                    [stages.twice]\nkind = \"python\"\nfunction = \"own.py:twice\"\nrows = \"size\"\n";
    workspace.write("pipeline.toml", pipeline);
    workspace.write(
        "own.py",
        "def size(text: str) -> int:\n    return len(text)\ndef twice(size: int) -> int:\n    return 2 * size\n",
    );
    workspace.write("texts.csv", "id,text\na,one\nb,three\nc,eleven\n");
    assert_eq!(workspace.run(["run", "pipeline.toml", "-q"]).code, Some(0));
    // `b` is nearer to what `a` was, `d` is new, and the order is another one.
    workspace.write("texts.csv", "id,text\nd,eleven plus\nc,eleven\nb,one and a half\na,one\n");
    assert_eq!(workspace.run(["run", "pipeline.toml", "texts", "-q"]).code, Some(0));
    let why = |row: &str| workspace.run(["why", "pipeline.toml", "size", row]).to_string();
    insta::assert_snapshot!(why("id=b"), @r"
    exit code: 0
    --- stdout
    size row 2: to compute
      column `text` changed (three => one and a half)
    ");
    insta::assert_snapshot!(why("id=d"), @r"
    exit code: 0
    --- stdout
    size row 0: to compute
      there was no row with id=d
    ");
    insta::assert_snapshot!(why("1"), @r"
    exit code: 0
    --- stdout
    size row 1: cached
    ");
    insta::assert_snapshot!(why("id=x"), @r"
    exit code: 2
    --- stderr
    error: `size` reads no row whose `id` is `x`
    ");
    insta::assert_snapshot!(why("ident=x"), @r"
    exit code: 2
    --- stderr
    error: column `ident` is missing
    ");
    assert_eq!(workspace.run(["run", "pipeline.toml", "size", "-q"]).code, Some(0));
    let twice = workspace.run(["why", "pipeline.toml", "twice", "id=b"]).to_string();
    insta::assert_snapshot!(twice, @r"
    exit code: 0
    --- stdout
    twice row 2: to compute
      column `size` changed (5 => 14)
    ");
}
