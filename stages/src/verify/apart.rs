//! Tests that are not `call == literal`: they run in a process of their own and reach the program over a link.

use super::tests::{job, run};

/// What the program is, the test, and the verdict with its detail; an empty verdict means anything but `pass`.
#[rustfmt::skip]
const CASES: &[(&str, &str, &str, &str)] = &[
    ("def f(x): return x / 3", "assert abs(f(1) - 0.333) < 0.01", "pass", ""),
    ("def f(x): return x / 2", "assert abs(f(1) - 0.333) < 0.01", "fail", "test 1: the assertion is false"),
    ("def f(x): return 1 / 0", "assert abs(f(1) - 0.333) < 0.01", "error", "test 1: ZeroDivisionError: division by zero"),
    ("def g(x): return x", "assert f(1) < 2", "error", "test 1: NameError: name 'f' is not defined"),
    ("1 / 0", "assert f(1) < 2", "error", "load: ZeroDivisionError: division by zero"),
    ("def f(x:", "assert f(1) < 2", "invalid", "SyntaxError"),
    ("import math\ndef f(x): return math.sqrt(x)", "assert math.isclose(f(4), 2)", "pass", ""),
    ("LIMIT = 3\ndef f(x): return min(x, LIMIT)", "assert f(9) <= LIMIT", "pass", ""),
    ("def f(x): x.sort()", "a = [3, 1]\nf(a)\nassert a == [1, 3]", "pass", ""),
    ("def f(x): x['k'] = {1, 2}", "a = {}\nf(a)\nassert a == {'k': {1, 2}}", "pass", ""),
    ("def f(x): raise ValueError('no')", "try:\n    f(1)\nexcept ValueError as e:\n    assert str(e) == 'no'\nelse:\n    assert False", "pass", ""),
    ("class Wrong(KeyError): pass\ndef f(x): raise Wrong('no')", "try:\n    f(1)\nexcept Wrong:\n    pass", "pass", ""),
    ("class Wrong(KeyError): pass\ndef f(x): raise Wrong('no')", "try:\n    f(1)\nexcept LookupError:\n    pass", "pass", ""),
    ("class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n    def __len__(self): return len(self.items)", "s = Stack()\ns.push(1)\ns.push(2)\nassert s.items == [1, 2] and len(s) == 2 and isinstance(s, Stack) and not isinstance(s, int)", "pass", ""),
    ("class Node:\n    def __init__(self, x, next=None): self.x, self.next = x, next\ndef total(n): return n.x + total(n.next) if n else 0", "assert total(Node(1, Node(2))) in (3, 4)", "pass", ""),
    ("def f(n):\n    yield from range(n)", "assert list(f(3)) == sorted([2, 1, 0])", "pass", ""),
    ("def f(g, x): return g(x)", "assert f(lambda x: x + 1, 2) > 2", "pass", "guarded"),
    ("def f(g, x): return 0", "assert f(lambda x: x + 1, 2) > 2", "fail", "test 1: the assertion is false (guarded)"),
    ("def f(x):\n    while True: pass", "assert f(1) < 2", "timeout", "cpu"),
    ("import os\ndef f(x): os._exit(0)", "assert f(1) < 2", "crash", "ended early with status 0"),
    ("import sys\ndef f(x): sys.exit(0)", "assert f(1) < 2", "crash", "test 1: SystemExit"),
    ("def f(x): return f(x)", "assert f(1) < 2", "limit", "test 1: depth"),
    ("def f(x):\n    while True: print('x' * 10000)", "assert f(1) < 2", "limit", "output"),
    // Forgers: none of them may pass.
    ("class E:\n    def __sub__(self, x): return 0\n    __rsub__ = __sub__\ndef f(x): return E()", "assert abs(f(1) - 0.333) < 0.01", "error", "test 1: TypeError"),
    ("class E:\n    def __lt__(self, x): return True\ndef f(x): return E()", "assert f(1) < 0.01", "error", "test 1: TypeError"),
    ("class E:\n    def __eq__(self, x): return True\n    def __ne__(self, x): return False\ndef f(x): return E()", "a = 3\nassert f(1) == a", "fail", "test 1: the assertion is false"),
    ("class E:\n    def __contains__(self, x): return True\n    def __iter__(self): return iter([])\ndef f(x): return E()", "assert 3 in f(1)", "fail", "test 1: the assertion is false"),
    ("class E(float):\n    def __lt__(self, x): return True\n    def __sub__(self, x): return self\n    def __abs__(self): return self\ndef f(x): return E(7)", "assert abs(f(1) - 0.333) < 0.01", "fail", "test 1: the assertion is false"),
    ("import builtins\nbuiltins.abs = abs = lambda x: 0\ndef f(x): return 7", "assert abs(f(1) - 0.333) < 0.01", "fail", "test 1: the assertion is false"),
    ("class math:\n    isclose = lambda a, b: True\ndef f(x): return 7", "import math\nassert math.isclose(f(1), 2)", "fail", "test 1: the assertion is false"),
    ("import os\ndef f(x):\n    for fd in (3, 4):\n        os.write(fd, b'\\x0c\\0\\0\\0\\x04\\0\\0\\0true\\0\\0\\0\\0' * 9)\n    return 7", "assert f(1) < 2", "", ""),
    ("import os\ndef f(x):\n    os.write(4, b'\\xff' * 99)\n    return 1", "assert f(1) < 2", "", ""),
    ("import os\ndef f(x):\n    os.close(4)\n    return 1", "assert f(1) < 2", "", ""),
];

#[test]
fn tests_reach_the_program_over_a_link_and_no_value_of_its_own_forges_them() {
    let jobs: Vec<_> = CASES.iter().map(|(source, test, ..)| job(source, &[test])).collect();
    let mut wrong = Vec::new();
    for ((source, test, expected, detail), verdict) in CASES.iter().zip(run(&jobs)) {
        let outcome = verdict.outcome.to_string();
        let earned = if expected.is_empty() { outcome != "pass" } else { outcome == *expected };
        let explained = if *expected == "pass" { verdict.detail == *detail } else { verdict.detail.contains(detail) };
        if !earned || !explained {
            wrong.push(format!("{source}\n  {test}\n  {outcome}: {}", verdict.detail));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_test_has_a_result_of_its_own() {
    let source = "def f(x):\n    if x == 3: raise ValueError\n    if x == 5:\n        import os\n        os._exit(1)\n    return x";
    let tests = ["assert f(1) == 1", "assert f(2) == 1", "assert f(3) == 3", "assert f(4) == 4"];
    let dies = [&tests[..], &["assert f(5) == 5", "assert f(6) == 6"]].concat();
    let results: Vec<String> = run(&[job(source, &tests), job(source, &dies)]).iter().map(|v| v.results()).collect();
    assert!(results.is_empty() || results == [".FE.", ".FE.C-"], "{results:?}");
}
