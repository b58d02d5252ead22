"""Writes programs of more than 300 lines with their own tests, as JSON lines: modules of this Python's library.

    python3 pipelines/scripts/long_programs.py > long-programs.jsonl

Nothing is copied into the project: the programs and their tests are those of the interpreter that runs this, which must
bring its `test` package (Debian: apt-get install libpython3-testsuite). Use the interpreter that runs the pipeline. Each
test is one method of the module's test suite, run against the candidate in the module's place.
"""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

MODULES = ["textwrap", "shlex", "fractions", "csv", "string", "copy", "pprint", "configparser", "html.parser",
           "http.cookies", "urllib.parse", "plistlib", "difflib", "calendar"]  # fmt: skip
MOST_TESTS = 40  # a module

SETUP = """\
import importlib, sys, unittest
name, suite = {name!r}, {suite!r}
for known in [known for known in sys.modules if known == suite]:
    del sys.modules[known]
sys.modules[name] = sys.modules["candidate"]
if "." in name:
    package, _, last = name.rpartition(".")
    setattr(importlib.import_module(package), last, sys.modules["candidate"])
tests = importlib.import_module(suite)
def passes(test):
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromName(test, tests).run(result)
    return result.testsRun > 0 and result.wasSuccessful() and not result.skipped
"""

# What a module's tests say with the module itself as the candidate: the names of those that pass.
# Nothing may be written, as in the sandbox.
PROBE = """
import resource, sys, tempfile, types
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
tempfile.tempdir = "/nowhere"
source, setup = sys.stdin.read().split(chr(0))
sys.path[:] = [path for path in sys.path if path]
module = sys.modules["candidate"] = types.ModuleType("candidate")
exec(compile(source, "<candidate>", "exec"), module.__dict__)
exec(setup, module.__dict__)
def names(suite):
    for test in suite:
        if isinstance(test, module.unittest.TestSuite):
            yield from names(test)
        else:
            yield test.id().removeprefix(module.suite + ".")
found = list(dict.fromkeys(names(module.unittest.defaultTestLoader.loadTestsFromModule(module.tests))))
real, sys.stdout = sys.stdout, sys.stderr
found = [name for name in found if not name.startswith("unittest.") and module.passes(name)]
real.write("\\n".join(found))
"""


def problem(name):
    path = Path(sysconfig.get_path("stdlib"), *name.split(".")).with_suffix(".py")
    reference = path.read_text()
    suite = "test.test_" + {"html.parser": "htmlparser", "http.cookies": "http_cookies", "urllib.parse": "urlparse"}.get(name, name)
    setup = SETUP.format(name=name, suite=suite)
    command = [sys.executable, "-s", "-S", "-B", "-c", PROBE]
    probe = subprocess.run(command, input=reference + "\0" + setup, capture_output=True, text=True, cwd="/")
    if probe.returncode:
        sys.exit(f"the tests of `{name}` can't be run: {probe.stderr.strip().splitlines()[-1:]}")
    names = probe.stdout.split("\n")
    chosen = names[:: max(1, len(names) // MOST_TESTS)][:MOST_TESTS]
    return {
        "problem_id": name,
        "split": "test",
        "instruction": f"The module `{name}` of Python's library.",
        "reference": reference,
        "entry_point": "passes",
        "setup": setup,
        "tests": [f"assert passes({test!r})" for test in chosen],
    }


for name in MODULES:
    row = problem(name)
    print(f"{name}: {row['reference'].count(chr(10))} lines, {len(row['tests'])} tests", file=sys.stderr)
    print(json.dumps(row))
