"""Runs one candidate: loads it, then evaluates each test and sends what came out, a frame each.

Expected values never enter this process. A test is (mode, code): `value`, an expression whose value is compared
outside; `truth`, an expression that must be true; `exec`, statements that must not raise.
"""

import sys

encode, TooLarge = shared[b"encode"]["encode"], shared[b"encode"]["TooLarge"]
outcome = shared[b"outcome"]["outcome"]


def run(job, send, compile=compile, exec=exec, eval=eval):
    source, setup, *tests = job
    try:
        program = compile(source.decode(), "<candidate>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        return send(b"invalid", type(error).__name__.encode())
    tests = [
        (mode, compile(code.decode(), "<test>", "exec" if mode == b"exec" else "eval", dont_inherit=True))
        for mode, code in zip(tests[::2], tests[1::2])
    ]
    setup = compile(setup.decode(), "<setup>", "exec", dont_inherit=True) if setup else None
    module = type(sys)("candidate")
    sys.modules["candidate"] = module
    space = module.__dict__
    send(b"begin")
    try:
        exec(program, space)
    except BaseException as error:
        send(*outcome(error), b"load")
        return send(b"done")
    if setup:
        try:
            exec(setup, space)
        except BaseException as error:
            send(*outcome(error), b"setup")
            return send(b"done")
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
        except BaseException as error:
            failed = mode == b"exec" and type(error) is AssertionError
            send(*((b"false",) if failed else outcome(error)))
    send(b"done")


def warm_up():
    """Runs once in the fork server: what this loads, no child has to."""
    run((b"def f(x):\n    return [x, 'a', 1.5, {x: None}]\n", b"", b"value", b"f(1)", b"truth", b"f(1)"), lambda *frame: None)
    del sys.modules["candidate"]


warm_up()
