//! Hostile and honest programs against the real sandbox.

mod cases;
mod forms;
mod hostile;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::python::Python;
use crate::sandbox::Limits;
use hostile::{HONEST, PROGRAMS};

/// A sandbox of two workers that all tests share; `None`, with a word about it, where there is no Python.
pub(crate) fn sandbox() -> Option<&'static Sandbox> {
    static SANDBOX: OnceLock<Option<Sandbox>> = OnceLock::new();
    SANDBOX
        .get_or_init(|| match Python::find() {
            Ok(python) => {
                // Little memory: filling it must not take so much CPU time on a slow and busy machine either.
                let limits = Limits { cpu_s: CpuSeconds(2.0), memory_bytes: 128 << 20, ..Limits::default() };
                Some(Sandbox::start(&python, limits, 2).expect("the sandbox starts"))
            }
            Err(_) => None,
        })
        .as_ref()
}

pub(super) fn job(source: &str, tests: &[&str]) -> Job {
    Job { source: source.to_owned(), tests: tests.iter().map(|&test| test.to_owned()).collect(), ..Job::default() }
}

pub(super) fn run(jobs: &[Job]) -> Vec<Verdict> {
    let Some(sandbox) = sandbox() else { return Vec::new() };
    judge(sandbox, jobs, &|| false, &|_| {}).expect("the sandbox works")
}

/// Does `work` with two busy loops beside it.
fn beside_busy_loops<T>(work: impl FnOnce() -> T) -> T {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop()
                }
            });
        }
        let _stop = Stop(&over);
        work()
    })
}

const ADD: &[&str] = &["assert add(1, 2) == 3", "assert add(-1, 1) == 0"];

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
    let again = beside_busy_loops(|| run(&jobs));
    for ((job, alone), loaded) in jobs.iter().zip(&verdicts).zip(&again) {
        assert_eq!(alone, loaded, "verdicts do not depend on the machine's load\n{}", job.source);
    }
}

#[test]
fn a_program_that_only_waits_meets_the_wall_limit() {
    let Ok(python) = Python::find() else { return };
    let limits = Limits { cpu_s: CpuSeconds(1.0), ..Limits::default() };
    let sandbox = Sandbox::start(&python, limits, 1).unwrap();
    let waits = job("import time\ndef add(a, b):\n    time.sleep(99)\n    return a + b", ADD);
    let verdicts = judge(&sandbox, &[waits, job(HONEST, ADD)], &|| false, &|_| {}).unwrap();
    assert_eq!((verdicts[0].outcome, verdicts[1].outcome), (Outcome::Timeout, Outcome::Pass));
}

#[test]
fn cpu_limits_may_be_a_part_of_a_second() {
    let Ok(python) = Python::find() else { return };
    let slow = "import time\ndef add(a, b):\n    while time.process_time() < 0.5: pass\n    return a + b";
    let outcomes = |limit| {
        let limits = Limits { cpu_s: CpuSeconds(limit), ..Limits::default() };
        let sandbox = Sandbox::start(&python, limits, 1).unwrap();
        let verdicts = judge(&sandbox, &[job(slow, ADD), job(HONEST, ADD)], &|| false, &|_| {}).unwrap();
        verdicts.into_iter().map(|verdict| (verdict.outcome, verdict.detail)).collect::<Vec<_>>()
    };
    let pass = || (Outcome::Pass, String::new());
    assert_eq!(outcomes(0.2), [(Outcome::Timeout, "cpu".to_owned()), pass()]);
    assert_eq!(outcomes(1.5), [pass(), pass()]);
    let written = |limit| serde_json::to_string(&CpuSeconds(limit)).unwrap();
    assert_eq!((written(2.0), written(0.25)), ("2".to_owned(), "0.25".to_owned()));
}

#[test]
fn values_compare_as_in_python() {
    let program = "import collections, fractions, decimal, enum\nPoint = collections.namedtuple('Point', 'x y')\n\
        class Color(enum.IntEnum):\n    RED = 1\nd = collections.defaultdict(list, a=[1])\n";
    let equal = [
        "assert Point(1, 2) == (1, 2)",
        "assert Color.RED == 1",
        "assert d == {'a': [1]}",
        "assert {1, 2} == set([2, 1])",
        "assert collections.Counter('aab') == {'a': 2, 'b': 1}",
        "assert fractions.Fraction(1, 2) == 0.5",
        "assert decimal.Decimal('1.5') == 1.5",
        "assert [1, 2.0, True] == [1.0, 2, 1]",
        "assert 10**30 == 1e30 or True",
        "assert -0.0 == 0",
        "assert 'é\\n' == 'é\\n'",
        "assert b'a' == b'a'",
        "assert 1 == Color.RED",
        "assert None == None",
        "assert ((1,), []) == ((1,), [])",
        "assert frozenset('a') == {'a'}",
        "assert 2j == complex(0, 2) or True",
    ];
    let different = [
        "assert [1] == (1,)",
        "assert '1' == 1",
        "assert None == 0",
        "assert {} == set()",
        "assert 0.1 + 0.2 == 0.3",
        "assert float('nan') == float('nan')",
        "assert {1: 2} == {1: 3}",
        "assert object() == 1",
        "assert 'a' == b'a'",
    ];
    let verdicts = run(&[job(program, &equal), job(program, &different)]);
    if let [equals, differs] = verdicts.as_slice() {
        assert_eq!((equals.passed(), &equals.detail[..]), (equal.len(), ""));
        assert_eq!(differs.passed(), 0, "{differs:?}");
    }
}

#[test]
fn a_test_that_does_not_parse_is_invalid_for_its_own_programs_alone() {
    let verdicts = run(&[job(HONEST, &[ADD[0], "assert add(1, 2) =="]), job(HONEST, ADD)]);
    let [broken, whole] = verdicts.as_slice() else { return };
    assert_eq!((broken.outcome, whole.outcome), (Outcome::Invalid, Outcome::Pass));
    assert!(broken.detail.starts_with("test 2 does not parse: "), "{}", broken.detail);
}

#[test]
fn setup_runs_between_program_and_tests() {
    let with = Job {
        setup: "import math\nbase = double(4)".to_owned(),
        ..job("def double(x): return 2 * x\ndef root(x): return math.sqrt(x)", &["assert root(base + 8) == 4"])
    };
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
    let error = judge(&sandbox, &[waits.clone(), waits], &cancelled, &|_| {}).unwrap_err();
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
        reference: Some(text_of(&row["code"])),
        ..Job::default()
    });
    // 123 sums divisors up to 10,000 twice, which takes seconds: its limit comes from the reference.
    let jobs: Vec<Job> = jobs.collect();
    let verdicts = run(&jobs);
    for (job, verdict) in jobs.iter().zip(&verdicts) {
        assert_eq!(verdict.outcome, Outcome::Pass, "{}\n{}", verdict.detail, job.source);
    }
    assert!(verdicts.iter().filter(|verdict| verdict.judged == Judged::Inside).count() <= 1);
}
