"""Runs one program and its tests as ordinary Python, and sends what they compare.

Expected values never enter this process: `prepare.py` took them out of the tests. Where a comparison stood, the tests call
`__h__(site, operand, value)`, which sends the value and goes on as if the comparison held. A unit is the setup or a test:
(mode, code, stop). Its last frame says how it went: `value` (with its only value), `end`, `false` (an assertion that stayed),
or an exception. `stop` is the number of reports after which a unit ends as Python would have ended it, where it is known
already that what it reported last is false.
"""

import marshal
import sys
from time import process_time

encode, TooLarge = shared[b"encode"]["encode"], shared[b"encode"]["TooLarge"]
outcome = shared[b"outcome"]["outcome"]
traceback_of = BaseException.__dict__["__traceback__"].__get__
PROGRAM, TEST, SETUP = "<candidate>", "<test>", "<setup>"


def load(source, send, prelude=b""):
    """The program's names; None, and all frames sent, if it does not get that far."""
    try:
        program = compile(source.decode(), PROGRAM, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        return send(b"invalid", type(error).__name__.encode())
    module = type(sys)("candidate")
    sys.modules["candidate"] = module
    send(b"begin")
    try:
        if prelude:
            exec(compile(prelude.decode(), "<prelude>", "exec", dont_inherit=True), module.__dict__)
        exec(program, module.__dict__)
    except BaseException as error:
        send(b"load", *outcome(error))
        return send(b"done")
    return module.__dict__


def origin(error):
    """The file and line where an exception was raised: the innermost frame of the program's or the test's; and whether the program's code was running."""
    place, program = (b"", 0), False
    traceback = traceback_of(error)
    while traceback:
        name = traceback.tb_frame.f_code.co_filename
        if name in (PROGRAM, TEST, SETUP):
            place = name.strip("<>").encode(), traceback.tb_lineno
            program = name == PROGRAM
        traceback = traceback.tb_next
    return place, program


def ended(error):
    """The frame of a unit that an exception ended."""
    (name, line), program = origin(error)
    if issubclass(type(error), AssertionError) and not program:
        return b"false", name, b"%d" % line
    return *outcome(error), b"program" if program or issubclass(type(error), NameError) else b"test"


class Stop(AssertionError):
    pass


class Reports:
    """What a unit's comparisons send, each value in a frame of its own."""

    def __init__(self, send, bounds):
        self.send, self.bounds, self.count, self.stop = send, bounds, 0, -1

    def begin(self, stop):
        self.count, self.stop = 0, stop

    def report(self, site, operand, value):
        try:
            fields = b"site", encode(value, *self.bounds)
        except TooLarge as error:
            fields = b"large", error.args[0].encode()
        self.send(*fields, b"%d" % site, b"%d" % operand)
        self.count += 1
        if self.count == self.stop:
            raise Stop


def run_case(kind):
    """Runs the tests of a class in the order of their names: unittest's, or a plain class in the manner of pytest."""
    names = sorted(name for name in dir(kind) if name.startswith("test") and callable(getattr(kind, name)))
    unittest = sys.modules.get("unittest")
    if unittest is None or not issubclass(kind, unittest.TestCase):
        return run_plain_class(kind, names)
    if getattr(kind, "__unittest_skip__", False):
        return
    kind.setUpClass()
    try:
        for name in names:
            run_method(kind, name, unittest)
    finally:
        kind.tearDownClass()
        kind.doClassCleanups()


def run_method(kind, name, unittest):
    case, method = kind(name), getattr(kind, name)
    if getattr(method, "__unittest_skip__", False):
        return
    fails = getattr(kind, "__unittest_expecting_failure__", False) or getattr(method, "__unittest_expecting_failure__", False)
    try:
        if hasattr(unittest, "IsolatedAsyncioTestCase") and isinstance(case, unittest.IsolatedAsyncioTestCase):
            case.debug()
        else:
            try:
                case.setUp()
                try:
                    getattr(case, name)()
                finally:
                    case.tearDown()
            finally:
                case.doCleanups()
    except unittest.SkipTest:
        return
    except Exception:
        if not fails:
            raise
        return
    if fails:
        raise AssertionError("unexpected success")


def run_plain_class(kind, names):
    hook = lambda owner, name, *arguments: getattr(owner, name, lambda *_: None)(*arguments)
    hook(kind, "setup_class")
    try:
        for name in names:
            case = kind()
            hook(case, "setup_method", getattr(case, name))
            try:
                getattr(case, name)()
            finally:
                hook(case, "teardown_method", getattr(case, name))
    finally:
        hook(kind, "teardown_class")


def run_coroutine(coroutine):
    import asyncio

    return asyncio.run(coroutine)


def near(first, second, places, delta):
    """What `assertAlmostEqual` asks."""
    if first == second:
        return True
    if delta is not None:
        return abs(first - second) <= delta
    return round(abs(first - second), 7 if places is None else places) == 0


def same_typed(first, second, kind):
    """What `assertListEqual` and its like ask."""
    return isinstance(first, kind) and isinstance(second, kind) and first == second


def read_units(fields):
    return [(mode, marshal.loads(code), int(stop)) for mode, code, stop in zip(*[iter(fields)] * 3)]


def run_unit(mode, code, stop, space, reports, encode=encode, exec=exec, eval=eval):
    """Runs a unit; the fields of its last frame."""
    reports.begin(stop)
    try:
        if mode == b"value":
            return b"value", encode(eval(code, space), *reports.bounds)
        exec(code, space)
        return (b"end",)
    except TooLarge as error:
        return b"large", error.args[0].encode()
    except Stop:
        return (b"end",)
    except BaseException as error:
        return ended(error)


def run(job, send, process_time=process_time):
    source, prelude, bounds, *units = job
    # Read before the program can change what reads.
    units, reports = read_units(units), Reports(send, [int(bound) for bound in bounds.split()])
    space = load(source, send, prelude)
    if space is None:
        return
    space.update(__h__=reports.report, __case__=run_case, __run__=run_coroutine)
    for number, unit in enumerate(units):
        frame = run_unit(*unit, space, reports)
        send(*frame)
        if number == 0 and frame[0] not in (b"end", b"value"):
            break
    send(b"done", b"%f" % process_time())


def warm_up():
    """Runs once in the fork server: what this loads, no child has to."""
    call, empty = (marshal.dumps(compile(text, TEST, mode)) for text, mode in (("f(1)", "eval"), ("", "exec")))
    source = b"def f(x):\n    return [x, 'a', 1.5, {x: None}]\n"
    run((source, b"", b"9999 999 9", b"exec", empty, b"-1", b"value", call, b"-1"), lambda *frame: None)
    del sys.modules["candidate"]


warm_up()
