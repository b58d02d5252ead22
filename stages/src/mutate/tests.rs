use super::*;
use crate::python::Python;

fn row(reference: &str, tests: &[&str]) -> CorrectRow {
    CorrectRow {
        problem_id: "p".to_owned(),
        reference: reference.to_owned(),
        tests: tests.iter().map(|test| (*test).to_owned()).collect(),
        setup: String::new(),
    }
}

fn broken(row: &CorrectRow, params: &Params) -> Vec<BugRow> {
    let sandbox = Sandbox::start(&Python::find().unwrap(), Limits::default(), 1).unwrap();
    let suites = Suites::prepare(&sandbox, &[row.job("")], &|| false).unwrap();
    sandbox.map(&[row], &|| false, &|_| {}, |worker, row| bugs(worker, params, row, &suites)).unwrap().remove(0)
}

const COUNT: &str = "def f(xs, k):\n    total = 0  # starts here\n    for i in range(len(xs)):\n        if xs[i] > k and xs[i] != 9:\n            total += xs[i] * 2\n    return total\n";
const TESTS: &[&str] = &["assert f([1, 5, 9], 2) == 10", "assert f([3, 3], 3) == 0", "assert f([4], 3) == 8"];

#[test]
fn each_kind_breaks_something_and_keeps_the_rest() {
    let params = Params { per_problem: 40, ..Params::default() };
    let bugs = broken(&row(COUNT, TESTS), &params);
    let kinds: std::collections::BTreeSet<&str> = bugs.iter().map(|bug| bug.mutation.as_str()).collect();
    for kind in KINDS {
        assert!(kinds.contains(kind), "no {kind} among {kinds:?}");
    }
    for bug in &bugs {
        assert_ne!(bug.buggy, COUNT);
        assert!(bug.buggy.contains("# starts here"), "{}", bug.buggy);
    }
    let distinct: std::collections::BTreeSet<&str> = bugs.iter().map(|bug| bug.buggy.as_str()).collect();
    assert_eq!(distinct.len(), bugs.len());
}

const SHAPES: &str = "def f(xs, key='a'):
    found, total = [], 0
    for x in xs:
        if x < 0:
            continue
        elif x > 8:
            break
        total += x
        found.append(x)
    while total > 9:
        total = total - 3
    found = sorted(found, reverse=True)
    return str(max(total, 1)) + str(found[0]) + str(found[1:3]) + key.upper()
";
const SHAPES_TESTS: &[&str] = &["assert f([3, 1, -1, 2, 9, 7]) == '63[2, 1]A'", "assert f([5, 6], 'b') == '86[5]B'"];

#[test]
fn further_kinds_break_something_where_they_are_asked_for() {
    let frequencies: BTreeMap<String, f64> = MORE_KINDS.iter().map(|kind| ((*kind).to_owned(), 1.0)).collect();
    let params = Params { per_problem: 90, kinds: Vec::new(), frequencies, ..Params::default() };
    let bugs = broken(&row(SHAPES, SHAPES_TESTS), &params);
    let kinds: std::collections::BTreeSet<&str> = bugs.iter().map(|bug| bug.mutation.as_str()).collect();
    assert_eq!(kinds, MORE_KINDS.iter().copied().collect());
}

#[test]
fn a_kind_is_tried_as_often_as_its_frequency_says() {
    let frequencies =
        [("variable", 4.0), ("constant", 2.0), ("range", 0.0)].map(|(kind, times)| (kind.to_owned(), times));
    let kinds = ["operator", "range"].map(str::to_owned).to_vec();
    let params = Params { kinds, frequencies: BTreeMap::from(frequencies), ..Params::default() };
    let Some(sandbox) = crate::judge::tests::sandbox() else { return };
    let tried =
        sandbox.map(&[()], &|| false, &|_| {}, |worker, ()| mutants(worker, COUNT, "p", &params.weights(), 1, 14));
    let tried = tried.unwrap().remove(0);
    let count = |wanted: &str| tried.iter().filter(|(kind, _)| kind == wanted).count();
    assert_eq!(["variable", "constant", "operator", "range"].map(count), [8, 4, 2, 0]);
}

#[test]
fn a_wrong_frequency_is_refused() {
    use tracetune_engine::stage::Params as _;
    for (kind, frequency, part) in [("lop", 1.0, "no kind of bug `lop`"), ("loop", -1.0, "frequency -1")] {
        let params = Params { frequencies: BTreeMap::from([(kind.to_owned(), frequency)]), ..Params::default() };
        assert!(params.validate().unwrap_err().message.contains(part));
    }
}

#[test]
fn the_seed_and_the_problem_choose() {
    let params = |seed| Params { per_problem: 5, seed, ..Params::default() };
    assert_eq!(broken(&row(COUNT, TESTS), &params(1)), broken(&row(COUNT, TESTS), &params(1)));
    assert_ne!(broken(&row(COUNT, TESTS), &params(1)), broken(&row(COUNT, TESTS), &params(2)));
}

#[test]
fn what_can_not_be_broken_gives_no_rows() {
    assert_eq!(broken(&row("def f():\n    pass\n", &["assert f() is None"]), &Params::default()), []);
    assert_eq!(broken(&row("def f():\n    return 1\n", &["assert f() == 2"]), &Params::default()), []);
}

/// Whoever changes these bytes raises [`Mutate::VERSION`].
#[test]
fn the_mutants_are_as_written_down() {
    let bugs = broken(&row(COUNT, TESTS), &Params { per_problem: 8, seed: 7, ..Params::default() });
    let mut hasher = blake3::Hasher::new();
    for bug in &bugs {
        hasher.update(bug.mutation.as_bytes()).update(b"\n").update(bug.buggy.as_bytes());
    }
    assert_eq!(hasher.finalize().to_hex()[..16].to_string(), "edb67b0cc49d1a8d");
}
