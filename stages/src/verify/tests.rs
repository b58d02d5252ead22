//! Hostile and honest programs against the real sandbox.

use std::sync::OnceLock;

use super::*;

/// A sandbox of two workers that all tests share; `None`, with a word about it, where there is no Python.
pub(crate) fn sandbox() -> Option<&'static Sandbox> {
    static SANDBOX: OnceLock<Option<Sandbox>> = OnceLock::new();
    SANDBOX
        .get_or_init(|| match Python::find() {
            Ok(python) => {
                let limits = Limits { cpu_s: 1, ..Limits::default() };
                Some(Sandbox::start(&python, limits, 2).expect("the sandbox starts"))
            }
            Err(_) => None,
        })
        .as_ref()
}

fn job(source: &str, tests: &[&str]) -> Job {
    Job { source: source.to_owned(), setup: String::new(), tests: tests.iter().map(|&test| test.to_owned()).collect() }
}

fn run(jobs: &[Job]) -> Vec<Verdict> {
    let Some(sandbox) = sandbox() else { return Vec::new() };
    verify(sandbox, jobs, &|| false, &|_| {}).expect("the sandbox works")
}

const ADD: &[&str] = &["assert add(1, 2) == 3", "assert add(-1, 1) == 0"];
const HONEST: &str = "def add(a, b):\n    return a + b\n";

/// Each program with the verdict and detail that it must get, however often it runs.
const PROGRAMS: &[(&str, &str, &str, &str)] = &[
    ("honest", HONEST, "pass", ""),
    ("wrong", "def add(a, b): return a - b", "fail", "test 1: -1 is not 3"),
    ("half wrong", "def add(a, b): return 3", "fail", "test 2: 3 is not 0"),
    ("raises", "def add(a, b): return a + str(b)", "error", "test 1: TypeError: unsupported operand type(s) for +: 'int' and 'str'"),
    ("no such name", "def plus(a, b): return a + b", "error", "test 1: NameError: name 'add' is not defined"),
    ("raises at load", "1 / 0", "error", "load: ZeroDivisionError: division by zero"),
    ("syntax error", "def add(a, b:", "invalid", "SyntaxError"),
    ("nul byte", "def add(a, b): return a + b # \0", "invalid", "null byte"),
    ("empty", "  \n", "invalid", "empty"),
    ("deep source", "DEEP", "invalid", ""),
    ("endless loop", "def add(a, b):\n    while True: pass", "timeout", "cpu"),
    ("endless loop that catches all", "def add(a, b):\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass", "timeout", "cpu"),
    ("ignores the cpu signal", "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\ndef add(a, b):\n    while True: pass", "timeout", "cpu"),
    ("slow in C", "def add(a, b): return len(str(sum(range(10**12))))", "timeout", "cpu"),
    ("memory bomb", "def add(a, b):\n    x = []\n    while True: x.append(' ' * 10**6)", "limit", "test 1: memory"),
    ("kept memory bomb", "x = []\ndef add(a, b):\n    while True: x.append(bytearray(1000))", "limit", "test 1: memory"),
    ("deep recursion", "def add(a, b): return add(a, b)", "limit", "test 1: depth"),
    ("no recursion limit", "import sys\nsys.setrecursionlimit(10**9)\ndef add(a, b): return [add(a, b)]", "", ""),
    ("output flood", "def add(a, b):\n    while True: print('x' * 10000)", "limit", "output"),
    ("output flood and a pass", "def add(a, b):\n    print('x' * 2000000, flush=True)\n    return a + b", "limit", "output"),
    ("raw output flood", "import os\ndef add(a, b):\n    while True: os.write(2, b'x' * 65536)", "limit", "output"),
    ("some output", "print('x' * 100000)\ndef add(a, b):\n    print(a, b)\n    return a + b", "pass", ""),
    ("closed output", "import os\nos.close(1); os.close(2)\ndef add(a, b): return a + b", "pass", ""),
    ("exit status 0", "import sys\ndef add(a, b): sys.exit(0)", "crash", "test 1: SystemExit"),
    ("exit at load", "raise SystemExit(0)", "crash", "load: SystemExit"),
    ("hard exit", "import os\ndef add(a, b): os._exit(0)", "crash", "ended early with status 0"),
    ("hard exit at load", "import os\nos._exit(7)", "crash", "ended early with status 7"),
    ("segmentation fault", "import ctypes\ndef add(a, b): ctypes.string_at(0)", "crash", "signal 11"),
    ("abort", "import os\ndef add(a, b): os.abort()", "crash", "signal"),
    ("value that equals all", "class E:\n    def __eq__(self, other): return True\ndef add(a, b): return E()", "fail", "test 1: <E> is not 3"),
    ("int that equals all", "class E(int):\n    def __eq__(self, other): return True\ndef add(a, b): return E()", "fail", "test 1: <E> is not 3"),
    ("class that lies about itself", "class M(type):\n    __name__ = property(lambda c: 1/0)\n    def mro(c): return [c, int, object]\nclass E(metaclass=M):\n    __class__ = int\ndef add(a, b): return E()", "error", ""),
    ("honest subclass", "class E(int): pass\ndef add(a, b): return E(a + b)", "pass", ""),
    ("true for one", "def add(a, b): return a + b if a + b != 0 else False", "pass", ""),
    ("frame forger", "import os\ndef add(a, b):\n    for fd in range(3, 64):\n        try: os.write(fd, b'\\x09\\0\\0\\0\\x05\\0\\0\\0value' * 9)\n        except OSError: pass\n    os._exit(0)", "crash", ""),
    ("endless frame", "import os\ndef add(a, b):\n    while True: os.write(3, b'\\xff' * 9999)", "crash", "broke its report"),
    ("closes its socket", "import os\ndef add(a, b):\n    os.closerange(0, 64)\n    return a + b", "", ""),
    ("nonblocking socket", "import os\nfor fd in range(9):\n    try: os.set_blocking(fd, False)\n    except OSError: pass\ndef add(a, b): return a + b", "pass", ""),
    ("fork", "import os\ndef add(a, b): return os.fork()", "error", "test 1: PermissionError"),
    ("fork bomb", "import os\ndef add(a, b):\n    while True:\n        try: os.fork()\n        except OSError: return a + b", "pass", ""),
    ("subprocess", "import subprocess\ndef add(a, b): return subprocess.run(['true']).returncode", "error", "test 1: PermissionError"),
    ("posix_spawn", "import os\ndef add(a, b): return os.posix_spawn('/bin/true', ['true'], {})", "error", "test 1: PermissionError"),
    ("exec", "import os\ndef add(a, b): os.execv('/bin/true', ['true'])", "error", "test 1: PermissionError"),
    ("system", "import os\ndef add(a, b):\n    os.system('true')\n    return a + b", "pass", ""),
    ("thread bomb", "import threading, time\ndef add(a, b):\n    while True: threading.Thread(target=time.sleep, args=(99,)).start()", "error", "test 1: RuntimeError: can't start new thread"),
    ("thread that outlives", "import threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()\ndef add(a, b): return a + b", "pass", ""),
    ("exit handler that hangs", "import atexit, time\natexit.register(time.sleep, 99)\ndef add(a, b): return a + b", "pass", ""),
    ("socket", "import socket\ndef add(a, b): return socket.socket()", "error", "test 1: PermissionError"),
    ("kills its parent", "import os\ndef add(a, b):\n    os.kill(os.getppid(), 9)", "error", "test 1: PermissionError"),
    ("kills all", "import os\ndef add(a, b):\n    os.kill(-1, 9)", "error", "test 1: PermissionError"),
    ("stops itself", "import os, signal\ndef add(a, b):\n    os.kill(os.getpid(), signal.SIGSTOP)", "error", "test 1: PermissionError"),
    ("writes a file", "def add(a, b):\n    open('/tmp/tracetune-was-here', 'w').write('x')", "error", "test 1: PermissionError"),
    ("appends to a file", "def add(a, b):\n    open('/tmp/tracetune-was-here', 'a')", "error", "test 1: PermissionError"),
    ("makes a folder", "import os\ndef add(a, b): os.mkdir('/tmp/tracetune-was-here')", "error", "test 1: PermissionError"),
    ("shared memory", "import mmap, os\ndef add(a, b): open('/dev/shm/tracetune-was-here', 'wb')", "error", "test 1: PermissionError"),
    ("reads a secret", "def add(a, b): return open('/etc/passwd').read()", "error", "test 1: PermissionError"),
    ("reads its parent", "import os\ndef add(a, b): return open(f'/proc/{os.getppid()}/environ').read()", "error", "test 1: PermissionError"),
    ("raises its limits", "import resource\ndef add(a, b): resource.prlimit(__import__('os').getppid(), resource.RLIMIT_CPU, (1, 1))", "error", "test 1: PermissionError"),
    ("slows its parent", "import os\ndef add(a, b): os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)", "error", "test 1: PermissionError"),
    ("environment", "import os\ndef add(a, b): return a + b if set(os.environ) <= {'PYTHONHASHSEED', 'LANG', 'TZ', 'LC_CTYPE'} else 0", "pass", ""),
    ("hash order", "def add(a, b): return a + b if hash('a') == 4644230677755963773 or True else 0", "pass", ""),
    ("stdin", "def add(a, b): return input()", "error", "test 1: EOFError: EOF when reading a line"),
    ("seeded random", "import random\nX = random.random()\ndef add(a, b): return a + b if X == 0.8444218515250481 else 0", "pass", ""),
    ("breaks builtins", "import builtins\nbuiltins.len = builtins.isinstance = builtins.type = lambda *a: 1/0\ndef add(a, b): return a + b", "", ""),
    ("message with an address", "def add(a, b): raise ValueError('<object at 0x7f3a5c0d2e10>')", "error", "test 1: ValueError: <object at 0x...>"),
    ("exception that runs code", "class E(Exception):\n    def __str__(self):\n        while True: pass\n    __repr__ = __str__\ndef add(a, b): raise E(1)", "error", "test 1: E"),
    ("huge value", "def add(a, b): return list(range(10**6))", "limit", "test 1: value"),
    ("cyclic value", "def add(a, b):\n    x = []\n    x.append(x)\n    return x", "limit", "test 1: value"),
    ("own trace and profile", "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\ndef add(a, b): return a + b", "pass", ""),
];

fn programs() -> Vec<Job> {
    let deep = format!("x = {}1", "-".repeat(200_000));
    PROGRAMS.iter().map(|(_, source, ..)| job(if *source == "DEEP" { &deep } else { source }, ADD)).collect()
}

#[test]
fn no_program_gets_a_verdict_it_has_not_earned_nor_harms_the_next() {
    let jobs: Vec<Job> = programs().into_iter().flat_map(|hostile| [hostile, job(HONEST, ADD)]).collect();
    let verdicts = run(&jobs);
    let mut wrong = Vec::new();
    for ((name, _, expected, detail), pair) in PROGRAMS.iter().zip(verdicts.chunks(2)) {
        let outcome = pair[0].outcome.to_string();
        // Some may end in several ways, by the interpreter's version; none of them is a pass.
        let earned = if expected.is_empty() { outcome != "pass" } else { outcome == *expected };
        if !earned || !pair[0].detail.contains(detail) || pair[1].outcome != Outcome::Pass {
            wrong.push(format!("{name}: {outcome}: {}; then {}", pair[0].detail, pair[1].outcome));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!std::path::Path::new("/tmp/tracetune-was-here").exists());
    assert_eq!(verdicts, run(&jobs), "verdicts are the same each time");
}

#[test]
fn a_program_that_only_waits_meets_the_wall_limit() {
    let Ok(python) = Python::find() else { return };
    let limits = Limits { cpu_s: 1, ..Limits::default() };
    let sandbox = Sandbox::start(&python, limits, 1).unwrap();
    let waits = job("import time\ndef add(a, b):\n    time.sleep(99)\n    return a + b", ADD);
    let verdicts = verify(&sandbox, &[waits, job(HONEST, ADD)], &|| false, &|_| {}).unwrap();
    assert_eq!((verdicts[0].outcome, verdicts[1].outcome), (Outcome::Timeout, Outcome::Pass));
}

#[test]
fn tests_that_are_no_comparison_run_guarded() {
    let verdicts = run(&[
        job("def f(x): return x % 2 == 0", &["assert f(2)", "assert not f(3)"]),
        job("def f(x): return x % 2 == 0", &["assert f(3)"]),
        job("def f(x): return x / 3", &["assert abs(f(1) - 0.333) < 0.01", "for i in range(3):\n    assert f(i) < 1"]),
        job("def f(x): return x", &["for i in range(3):\n    assert f(i) < 1"]),
    ]);
    let words: Vec<_> = verdicts.iter().map(|v| (v.outcome.to_string(), v.passed, v.detail.as_str())).collect();
    if !words.is_empty() {
        assert_eq!(words[0], ("pass".to_owned(), 2, "guarded"));
        assert_eq!(words[1], ("fail".to_owned(), 0, "test 1: the assertion is false (guarded)"));
        assert_eq!(words[2], ("pass".to_owned(), 2, "guarded"));
        assert_eq!(words[3], ("fail".to_owned(), 0, "test 1: the assertion is false (guarded)"));
    }
}

#[test]
fn values_compare_as_in_python() {
    let program = "import collections, fractions, decimal, enum\nPoint = collections.namedtuple('Point', 'x y')\n\
        class Color(enum.IntEnum):\n    RED = 1\nd = collections.defaultdict(list, a=[1])\n";
    let equal = [
        "assert Point(1, 2) == (1, 2)", "assert Color.RED == 1", "assert d == {'a': [1]}", "assert {1, 2} == set([2, 1])",
        "assert collections.Counter('aab') == {'a': 2, 'b': 1}", "assert fractions.Fraction(1, 2) == 0.5",
        "assert decimal.Decimal('1.5') == 1.5", "assert [1, 2.0, True] == [1.0, 2, 1]", "assert 10**30 == 1e30 or True",
        "assert -0.0 == 0", "assert 'é\\n' == 'é\\n'", "assert b'a' == b'a'", "assert 1 == Color.RED", "assert None == None",
        "assert ((1,), []) == ((1,), [])", "assert frozenset('a') == {'a'}", "assert 2j == complex(0, 2) or True",
    ];
    let different = [
        "assert [1] == (1,)", "assert '1' == 1", "assert None == 0", "assert {} == set()", "assert 0.1 + 0.2 == 0.3",
        "assert float('nan') == float('nan')", "assert {1: 2} == {1: 3}", "assert object() == 1", "assert 'a' == b'a'",
    ];
    let verdicts = run(&[job(program, &equal), job(program, &different)]);
    if let [equals, differs] = verdicts.as_slice() {
        assert_eq!((equals.passed, &equals.detail[..]), (equal.len(), "guarded"));
        assert_eq!(differs.passed, 0, "{differs:?}");
    }
}

#[test]
fn a_test_that_does_not_parse_is_an_error_of_the_data() {
    let Some(sandbox) = sandbox() else { return };
    let error = verify(sandbox, &[job(HONEST, &["assert add(1, 2) =="])], &|| false, &|_| {}).unwrap_err();
    assert!(matches!(&error, StageError::Input(message) if message.contains("assert add(1, 2) ==")), "{error}");
}

#[test]
fn setup_runs_between_program_and_tests() {
    let with = Job { setup: "import math\nbase = double(4)".to_owned(), ..job("def double(x): return 2 * x\ndef root(x): return math.sqrt(x)", &["assert root(base + 8) == 4"]) };
    let verdicts = run(&[with]);
    assert!(verdicts.iter().all(|verdict| verdict.outcome == Outcome::Pass), "{verdicts:?}");
}

#[test]
fn an_interrupted_run_ends_at_once() {
    let Ok(python) = Python::find() else { return };
    let sandbox = Sandbox::start(&python, Limits::default(), 2).unwrap();
    let waits = job("import time\ntime.sleep(99)", ADD);
    let started = std::time::Instant::now();
    let cancelled = || started.elapsed().as_millis() > 300;
    let error = verify(&sandbox, &[waits.clone(), waits], &cancelled, &|_| {}).unwrap_err();
    assert!(matches!(error, StageError::Cancelled) && started.elapsed().as_secs() < 5);
}

#[test]
fn mbpp_references_pass() {
    let path = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/mbpp.jsonl");
    let Ok(text) = fs_err::read_to_string(path) else { return };
    let text_of = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let jobs = rows.iter().map(|row| Job {
        source: text_of(&row["code"]),
        setup: text_of(&row["test_setup_code"]),
        tests: row["test_list"].as_array().unwrap().iter().map(text_of).collect(),
    });
    // 123 sums divisors up to 10,000 twice: seconds of work.
    let jobs: Vec<Job> = jobs.filter(|job| !job.source.contains("amicable_numbers_sum")).collect();
    for (job, verdict) in jobs.iter().zip(run(&jobs)) {
        assert_eq!(verdict.outcome, Outcome::Pass, "{}\n{}", verdict.detail, job.source);
    }
}
