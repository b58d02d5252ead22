//! Tests in the forms that people write: what they come to, where they are judged, and programs that try to forge them.

use super::*;

/// What the program is, the test, the verdict with a part of its detail, and where it is judged.
#[rustfmt::skip]
const FORMS: &[(&str, &str, &str, &str, &str)] = &[
    ("def f(x): return x / 3", "assert abs(f(1) - 0.333) < 0.01", "pass", "", "outside"),
    ("def f(x): return x / 2", "assert abs(f(1) - 0.333) < 0.01", "fail", "", "outside"),
    ("def f(x): return 1 / 0", "assert abs(f(1) - 0.333) < 0.01", "error", "test 1: ZeroDivisionError: division by zero", "outside"),
    ("def g(x): return x", "assert f(1) < 2", "error", "test 1: NameError: name 'f' is not defined", "outside"),
    ("1 / 0", "assert f(1) < 2", "error", "load: ZeroDivisionError: division by zero", "outside"),
    ("def f(x:", "assert f(1) < 2", "invalid", "SyntaxError", "outside"),
    ("import math\ndef f(x): return math.sqrt(x)", "assert math.isclose(f(4), 2)", "pass", "", "inside"),
    ("LIMIT = 3\ndef f(x): return min(x, LIMIT)", "assert f(9) <= LIMIT", "pass", "", "inside"),
    ("def f(x): x.sort()", "a = [3, 1]\nf(a)\nassert a == [1, 3]", "pass", "", "outside"),
    ("def f(x): x['k'] = {1, 2}", "a = {}\nf(a)\nassert a == {'k': {1, 2}}", "pass", "", "outside"),
    ("def f(x): raise ValueError('no')", "try:\n    f(1)\nexcept ValueError as e:\n    assert str(e) == 'no'\nelse:\n    assert False", "pass", "", "inside"),
    ("class Wrong(KeyError): pass\ndef f(x): raise Wrong('no')", "try:\n    f(1)\nexcept Wrong:\n    pass", "pass", "", "inside"),
    ("class Wrong(KeyError): pass\ndef f(x): raise Wrong('no')", "try:\n    f(1)\nexcept LookupError:\n    pass", "pass", "", "inside"),
    ("class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n    def __len__(self): return len(self.items)", "s = Stack()\ns.push(1)\ns.push(2)\nassert s.items == [1, 2] and len(s) == 2 and isinstance(s, Stack) and not isinstance(s, int)", "pass", "", "inside"),
    ("class Node:\n    def __init__(self, x, next=None): self.x, self.next = x, next\ndef total(n): return n.x + total(n.next) if n else 0", "assert total(Node(1, Node(2))) in (3, 4)", "pass", "", "outside"),
    ("def f(n):\n    yield from range(n)", "assert list(f(3)) == sorted([2, 1, 0])", "pass", "", "outside"),
    ("def f(g, x): return g(x)", "assert f(lambda x: x + 1, 2) > 2", "pass", "", "outside"),
    ("def f(g, x): return 0", "assert f(lambda x: x + 1, 2) > 2", "fail", "", "outside"),
    ("def f(x):\n    while True: pass", "assert f(1) < 2", "timeout", "cpu", "outside"),
    ("import os\ndef f(x): os._exit(0)", "assert f(1) < 2", "crash", "ended early with status 0", "outside"),
    ("import sys\ndef f(x): sys.exit(0)", "assert f(1) < 2", "crash", "test 1: SystemExit", "outside"),
    ("def f(x): return f(x)", "assert f(1) < 2", "limit", "test 1: depth", "outside"),
    ("def f(x):\n    while True: print('x' * 10000)", "assert f(1) < 2", "limit", "output", "outside"),
    ("class Node:\n    def __init__(self, v): self.v, self.next = v, None", "a, b = Node(1), Node(2)\na.next = b\nassert a.next is b and a.next.v == 2", "pass", "", "inside"),
    ("def f(xs): return xs", "a = [1]\nassert f(a) is not a", "fail", "test 1: `f(a) is not a` is false", "inside"),
    ("def grid(n): return [[0] * n] * n", "g = grid(2)\ng[0][0] = 1\nassert g == [[1, 0], [0, 0]]", "fail", "test 1: [[1, 0], <the same object>] is not [[1, 0], [0, 0]]", "outside"),
    ("def f(x): return x", "for x, y in [(1, 1), (2, 3)]:\n    assert f(x) == y", "fail", "test 1: 2 is not 3", "outside"),
    ("def f(x): return x", "for x in range(3):\n    assert f(x) == x", "pass", "", "inside"),
    ("def f(x): return x", "def check(g):\n    expected = [1, 2]\n    assert g([1, 2]) == expected\n    assert g(3) == 3\ncheck(f)", "pass", "", "outside"),
    ("def f(x): return x", "def check(g):\n    if g(0):\n        return\n    assert g(3) == 4\ncheck(f)", "fail", "test 1: 3 is not 4", "inside"),
    ("def f(x): return x * 2", "import unittest\nclass T(unittest.TestCase):\n    def setUp(self): self.x = 3\n    def test_a(self): self.assertEqual(f(self.x), 6)\n    def test_b(self): self.assertAlmostEqual(f(0.1), 0.2)", "pass", "", "outside"),
    ("def f(x): return x * 2", "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): self.assertEqual(f(3), 6)\n    def test_b(self):\n        with self.assertRaises(TypeError): f(1, 2, 3)\n        self.assertIn(f(2), [5, 6])", "fail", "test 1: `f(2) in [5, 6]` is false: `f(2)` is 4", "inside"),
    ("def f(x): return x * 2", "import unittest\nclass T(unittest.TestCase):\n    def test_b(self):\n        with self.assertRaises(ValueError): f(1)", "fail", "test 1: `with self.assertRaises(ValueError): f(1)` is false", "inside"),
    ("def f(x): return x * 2", "def test_one():\n    assert f(1) == 2\ndef test_two():\n    assert f(2) == 5", "fail", "test 1: 4 is not 5", "outside"),
    ("def f(x): return x * 2", "class TestF:\n    def setup_method(self, method): self.x = 1\n    def test_one(self):\n        assert f(self.x) == 2", "pass", "", "outside"),
    ("def f(x): return x", "def near(a, b): return abs(a - b) < 0.1\nassert near(f(1), 1.5)", "fail", "test 1: `near(f(1), 1.5)` is false", "inside"),
    ("def f(x): return x", "near = lambda a, b: a - b < 0.1\nassert near(f(1), 1.5) is True", "pass", "", "inside"),
    ("async def f(x): return x * 2", "async def test_one():\n    assert await f(1) == 2", "pass", "", "inside"),
    ("from fractions import Fraction\ndef f(): return Fraction(1, 2)", "assert f() == 0.5", "pass", "", "outside"),
    ("import datetime\ndef f(): return datetime.date(2020, 1, 2)", "from datetime import date\nassert f() == date(2020, 1, 3)", "fail", "test 1: date(2020, 1, 2) is not date(2020, 1, 3)", "outside"),
    ("from collections import OrderedDict\ndef f(): return OrderedDict(a=1)", "assert f().keys() == {'a'}", "pass", "", "outside"),
    ("def f(): return object()", "assert f() is not None", "pass", "", "outside"),
    ("class A:\n    def __bool__(self): return True\ndef f(): return A()", "assert f()", "fail", "test 1: only the program itself could say whether an object of its type A is true", "outside"),
    ("def f(n):\n    x = []\n    for _ in range(n): x = [x]\n    return x", "assert f(900) == []", "limit", "test 1: a value has too many levels (`value_depth`)", "outside"),
    ("def f(n): return 'x' * n", "assert f(20_000_000) == ''", "limit", "test 1: a value has too many bytes (`value_bytes`)", "outside"),
    ("def f(x): raise AssertionError('own')", "assert f(1) == 2", "error", "test 1: AssertionError: own", "outside"),
    ("def f(x): return {}", "assert f(1)['k'] == 2", "error", "test 1: KeyError: k (raised by the test)", "outside"),
    ("def f(x): return x", "try:\n    f(1)\n    raise RuntimeError('not reached')\nexcept ValueError:\n    pass", "error", "test 1: RuntimeError: not reached (raised by the test)", "inside"),
];

#[test]
fn each_form_of_test_means_what_python_says_it_means() {
    let jobs: Vec<_> = FORMS.iter().map(|(source, test, ..)| job(source, &[test])).collect();
    let mut wrong = Vec::new();
    for ((source, test, outcome, detail, judged), verdict) in FORMS.iter().zip(run(&jobs)) {
        let explained = if *outcome == "pass" { verdict.detail.is_empty() } else { verdict.detail.contains(detail) };
        if verdict.outcome.to_string() != *outcome || !explained || verdict.judged.to_string() != *judged {
            wrong.push(format!("{source}\n  {test}\n  {}, {}: {}", verdict.outcome, verdict.judged, verdict.detail));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Two tests whose values no program may find out.
const SECRET: &[&str] = &["expected = [4, 5]\nassert f(1) == expected, 'want [4, 5]'", "assert f(2) == 777"];

/// A name, the program, and its test; `T` stands for [`SECRET`].
#[rustfmt::skip]
const ATTACKS: &[(&str, &str, &str)] = &[
    ("48", "class E:\n    def __sub__(self, x): return 0\n    __rsub__ = __sub__\ndef f(x): return E()", "assert abs(f(1) - 0.333) < 0.01"),
    ("49", "class E:\n    def __lt__(self, x): return True\ndef f(x): return E()", "assert f(1) < 0.01"),
    ("50", "class E:\n    def __eq__(self, x): return True\n    def __ne__(self, x): return False\ndef f(x): return E()", "a = 3\nassert f(1) == a"),
    ("51", "class E:\n    def __contains__(self, x): return True\n    def __iter__(self): return iter([])\ndef f(x): return E()", "assert 3 in f(1)"),
    ("52", "class E(float):\n    def __lt__(self, x): return True\n    def __sub__(self, x): return self\n    def __abs__(self): return self\ndef f(x): return E(7)", "assert abs(f(1) - 0.333) < 0.01"),
    ("53", "import builtins\nbuiltins.abs = abs = lambda x: 0\ndef f(x): return 7", "assert abs(f(1) - 0.333) < 0.01"),
    ("54", "class math:\n    isclose = lambda a, b: True\ndef f(x): return 7", "import math\nassert math.isclose(f(1), 2)"),
    ("55", "import os\ndef f(x):\n    for fd in (3, 4):\n        os.write(fd, b'\\x0c\\0\\0\\0\\x04\\0\\0\\0true\\0\\0\\0\\0' * 9)\n    return 7", "assert f(1) < 2"),
    ("56", "import os\ndef f(x):\n    os.write(4, b'\\xff' * 99)\n    return 1", "assert f(1) < 2"),
    ("57", "import os\ndef f(x):\n    os.close(4)\n    return 1", "assert f(1) < 2"),
    ("frames and garbage", "import gc, sys\nseen = []\ndef f(x):\n    for o in gc.get_objects():\n        if type(o) is dict and 'expected' in o: seen.append(o['expected'])\n    def walk(code):\n        for constant in code.co_consts:\n            if type(constant) is int and constant == 777: seen.append(constant)\n            if hasattr(constant, 'co_consts'): walk(constant)\n    frame = sys._getframe(1)\n    while frame:\n        walk(frame.f_code)\n        seen.extend(v for v in list(frame.f_locals.values()) + list(frame.f_globals.values()) if v == 777 or v == [4, 5])\n        frame = frame.f_back\n    return seen[-1] if seen else None", "T"),
    ("the test's own name", "def f(x): return globals().get('expected')", "T"),
    ("a free name", "def f(x): return expected", "T"),
    ("exit after the values", "import os\ndef f(x): os._exit(0)", "T"),
    ("forged ends", "import os, struct\nFRAME = struct.pack('<II', 7, 3) + b'end'\ndef f(x):\n    for fd in range(3, 12):\n        try: os.write(fd, FRAME * 2 + struct.pack('<II', 8, 4) + b'done')\n        except OSError: pass\n    os._exit(0)", "T"),
    ("a patched hook", "def f(x):\n    globals()['__h__'] = lambda *a: None\n    return 0", "T"),
    ("always equal", "class E:\n    def __eq__(self, other): return True\ndef f(x): return E()", "T"),
    ("a list that is always equal", "class E(list):\n    def __eq__(self, other): return True\n    def __len__(self): return 2\ndef f(x): return E([4])", "T"),
    ("patched built-ins", "import builtins\nbuiltins.len = lambda x: 2\nbuiltins.callable = lambda x: True\nbuiltins.isinstance = lambda *a: True\nbuiltins.map = lambda *a: []\nbuiltins.iter = lambda *a: []\ndef f(x): return [1]", "T"),
    ("a fake module under the encoder", "import sys, types\nfake = types.ModuleType('fractions')\nclass Fraction:\n    def __eq__(self, other): return True\n    def as_integer_ratio(self): return 777, 1\nfake.Fraction = Fraction\nfor name in ('fractions', 'decimal', 'collections', 'datetime', 'math'): sys.modules[name] = fake\ndef f(x): return Fraction()", "T"),
    ("skipped sites of a loop", "import os, struct\ndef f(x):\n    for fd in range(3, 12):\n        try: os.write(fd, struct.pack('<II', 7, 3) + b'end')\n        except OSError: pass\n    os._exit(0)", "for i in [3, 4]:\n    assert f(i) == 777"),
    ("endless under a bare except", "def f(x):\n    while True: pass", "try:\n    f(1)\nexcept:\n    pass"),
    ("an exit under a bare except", "import os\ndef f(x): os._exit(0)", "try:\n    f(1)\nexcept:\n    pass\nelse:\n    assert False"),
    ("a segmentation fault under a bare except", "import ctypes\ndef f(x): ctypes.string_at(0)", "try:\n    f(1)\nexcept:\n    pass"),
    ("a flood of frames", "import os, struct\ndef f(x):\n    while True: os.write(3, struct.pack('<II', 5, 1) + b'N')", "T"),
    ("values for another site", "import os, struct\ndef field(x): return struct.pack('<I', len(x)) + x\ndef f(x):\n    body = b''.join(map(field, (b'site', b'i309;', b'0', b'0')))\n    os.write(3, struct.pack('<I', len(body)) + body)\n    return 0", "T"),
    ("an exception that lies", "class E(Exception):\n    __traceback__ = property(lambda self: 1 / 0)\n    def __str__(self): raise SystemExit(0)\ndef f(x): raise E()", "T"),
    ("the tests' frames unwound by hand", "import sys\ndef f(x):\n    sys._getframe(1).f_globals['expected'] = 0\n    sys.setrecursionlimit(50)\n    return 0", "T"),
];

#[test]
fn no_program_forges_a_pass() {
    let jobs: Vec<_> = ATTACKS
        .iter()
        .map(|(_, source, test)| job(source, if *test == "T" { SECRET } else { std::slice::from_ref(test) }))
        .collect();
    for ((name, ..), verdict) in ATTACKS.iter().zip(run(&jobs)) {
        assert_ne!(verdict.outcome, Outcome::Pass, "{name}");
        // Where a pass can be forged, its row says so.
        assert!(verdict.passed() == 0 || verdict.judged == Judged::Inside, "{name}: {verdict:?}");
    }
}

#[test]
fn what_a_program_can_forge_is_judged_inside() {
    let forger = "class V:\n    def __init__(self, *a): pass\n    def __eq__(self, other): return True";
    for verdict in run(&[job(forger, &["assert V(1) == V(2)"])]) {
        assert_eq!((verdict.outcome, verdict.judged), (Outcome::Pass, Judged::Inside));
    }
}

#[test]
fn a_test_that_failed_ends_there_for_the_tests_after_it() {
    let source = "calls = []\ndef f(x):\n    calls.append(x)\n    return x";
    let tests = ["assert f(1) == 2\nf(3)", "assert calls == [1]", "assert f(4) == 5\nf(6)", "assert calls == [1, 4]"];
    for verdict in run(&[job(source, &tests)]) {
        assert_eq!(verdict.results(), "F.F.");
        assert_eq!(verdict.detail, "test 1: 1 is not 2");
    }
}

#[test]
fn a_reference_whose_objects_compare_takes_the_comparison_inside() {
    let source = "class V:\n    def __init__(self, x): self.x = x\n    def __eq__(self, other): return self.x == other\ndef f(x): return V(x)";
    let with = Job { reference: Some(source.to_owned()), ..job(source, &["assert f(1) == 1"]) };
    let plain = Job { reference: Some("def f(x): return x".to_owned()), ..with.clone() };
    if let [own, other] = run(&[with, plain]).as_slice() {
        assert_eq!((own.outcome, own.judged), (Outcome::Pass, Judged::Inside));
        assert_eq!((other.outcome, other.judged), (Outcome::Fail, Judged::Outside));
    }
}

#[test]
fn a_name_of_the_test_that_the_reference_reads_stays_inside() {
    let source = "def f(x): return x + offset";
    let with = Job { reference: Some(source.to_owned()), ..job(source, &["offset = 2\nassert f(1) == 3"]) };
    for verdict in run(&[with]) {
        assert_eq!((verdict.outcome, verdict.judged), (Outcome::Pass, Judged::Outside));
    }
}

#[test]
fn programs_of_standard_input_and_output_run_as_main() {
    let test = |stdin: &str, stdout: &str| serde_json::json!({"stdin": stdin, "stdout": stdout}).to_string();
    let sum = "import sys\ndef main():\n    n = int(input())\n    print(sum(map(int, sys.stdin.readline().split()[:n])))\nif __name__ == '__main__':\n    main()\n";
    let raw = "import os\ndata = b''\nwhile part := os.read(0, 1 << 16): data += part\nprint(len(data))\nos._exit(0)";
    let raw = raw.replace("print(len(data))", "os.write(1, b'%d' % len(data))");
    let program =
        |source: &str, tests: &[String]| Job { source: source.to_owned(), tests: tests.to_vec(), ..Job::default() };
    let big = "x".repeat(300_000);
    let jobs = [
        program(sum, &[test("2\n3 4\n", "7\n"), test("1\n5\n", " 5 ")]),
        program(sum, &[test("2\n3 4\n", "8"), test("1\n5\n", "5")]),
        program(sum, &[test("", "0")]),
        program(&raw, &[test(&big, "300000")]),
        program("import sys\nprint(1)\nsys.exit(3)", &[test("", "1")]),
        program("import sys\nprint('noise', file=sys.stderr)\nprint(1)\nsys.exit()", &[test("", "1")]),
        program("while True: pass", &[test("", "1")]),
        program("def f(x): return x\nprint(f(2))", &[test("", "2"), "assert f(1) == 1".to_owned()]),
    ];
    let verdicts = run(&jobs);
    let words: Vec<_> = verdicts.iter().map(|v| (v.outcome.to_string(), v.results(), v.detail.as_str())).collect();
    let expected = [
        ("pass", "..", ""),
        ("fail", "F-", "test 1: word 1 of the output is `7`, not `8`"),
        ("error", "E", "test 1: EOFError: EOF when reading a line"),
        ("pass", ".", ""),
        ("error", "E", "test 1: SystemExit: 3"),
        ("pass", ".", ""),
        ("timeout", "T", "test 1: cpu"),
        ("pass", "..", ""),
    ];
    for (word, (outcome, results, detail)) in words.iter().zip(expected) {
        assert_eq!((word.0.as_str(), word.1.as_str(), word.2), (outcome, results, detail));
    }
}
