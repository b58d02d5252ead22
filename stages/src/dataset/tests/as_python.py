"""For the tests: what plain Python makes of imported tests. Lines of JSON in, each with `source`, `setup` and `tests`; a
line out for each, a letter per test: `.` passed, `F` failed.
"""

import contextlib
import io
import json
import sys
import unittest


def run_stream(source, test):
    case = json.loads(test)
    out, sys.stdin = io.StringIO(), io.StringIO(case["stdin"])
    with contextlib.redirect_stdout(out):
        exec(compile(source, "<program>", "exec", dont_inherit=True), {"__name__": "__main__"})
    return out.getvalue().split() == case["stdout"].split()


def run_statements(source, setup, test):
    space = {"__name__": "program"}
    for text in (source, setup):
        exec(compile(text, "<program>", "exec", dont_inherit=True), space)
    before = set(space)
    exec(compile(test, "<test>", "exec", dont_inherit=True), space)
    cases = [space[name] for name in space.keys() - before]
    suites = [
        unittest.defaultTestLoader.loadTestsFromTestCase(case)
        for case in cases
        if isinstance(case, type) and issubclass(case, unittest.TestCase)
    ]
    result = unittest.TestResult()
    unittest.TestSuite(suites).run(result)
    return result.wasSuccessful() and (not suites or result.testsRun > 0)


def letter(job, test):
    try:
        stream = test.startswith("{")
        passed = run_stream(job["source"], test) if stream else run_statements(job["source"], job["setup"], test)
    except BaseException:
        passed = False
    return "." if passed else "F"


for line in sys.stdin.readlines():
    job = json.loads(line)
    print("".join(letter(job, test) for test in job["tests"]))
