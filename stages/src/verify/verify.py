"""Runs one candidate: loads it, then evaluates each test and sends what came out, a frame each.

Expected values never enter this process. A test is (mode, code), compiled by `prepare.py`: `value`, an expression whose
value is compared outside; `truth`, an expression that must be true; `exec`, statements that must not raise. Tests of the
last two modes run here only where `remote.py` can't keep them apart from the candidate.
"""

import marshal
import sys

encode, TooLarge = shared[b"encode"]["encode"], shared[b"encode"]["TooLarge"]
outcome = shared[b"outcome"]["outcome"]


class Never(BaseException):
    pass


def load(source, send):
    """The candidate's names; None, and all frames sent, if it does not get that far."""
    try:
        program = compile(source.decode(), "<candidate>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        return send(b"invalid", type(error).__name__.encode())
    module = type(sys)("candidate")
    sys.modules["candidate"] = module
    send(b"begin")
    try:
        exec(program, module.__dict__)
    except BaseException as error:
        send(*outcome(error), b"load")
        return send(b"done")
    return module.__dict__


def read_tests(tests):
    return [(mode, marshal.loads(code)) for mode, code in zip(tests[::2], tests[1::2])]


def run_tests(setup, tests, space, send, encode=encode, relayed=Never, stopped=Never, exec=exec, eval=eval):
    """A frame for each test. `relayed` carries a test's fields; `stopped` ends the tests."""
    if setup:
        try:
            exec(setup, space)
        except stopped:
            raise
        except BaseException as error:
            return send(*(error.args if type(error) is relayed else outcome(error)), b"setup")
    for mode, code in tests:
        try:
            if mode == b"value":
                send(b"value", encode(eval(code, space)))
            elif mode == b"truth":
                send(b"true" if eval(code, space) else b"false")
            else:
                exec(code, space)
                send(b"true")
        except TooLarge:
            send(b"limit", b"value")
        except stopped:
            raise
        except BaseException as error:
            failed = mode == b"exec" and type(error) is AssertionError
            send(*((b"false",) if failed else error.args if type(error) is relayed else outcome(error)))


def run(job, send):
    source, setup, *tests = job
    # Read before the candidate can change what reads.
    tests, setup = read_tests(tests), setup and compile(setup.decode(), "<setup>", "exec", dont_inherit=True)
    space = load(source, send)
    if space is not None:
        run_tests(setup, tests, space, send)
        send(b"done")


def warm_up():
    """Runs once in the fork server: what this loads, no child has to."""
    call = marshal.dumps(compile("f(1)", "<test>", "eval"))
    run((b"def f(x):\n    return [x, 'a', 1.5, {x: None}]\n", b"", b"value", call, b"truth", call), lambda *frame: None)
    del sys.modules["candidate"]


warm_up()
