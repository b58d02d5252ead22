"""Which lines of a trusted program's functions its tests run; the job is (program, setup, test, ...).

A frame comes back: (lines, how many can run, how many do). A `def` line counts only where the body stands on it.
"""

import sys


def functions(code):
    """The code of all functions in a piece of code, at any depth."""
    for constant in code.co_consts:
        if isinstance(constant, type(code)):
            if constant.co_flags & 0x2:  # CO_NEWLOCALS: not a class's body
                yield constant
            yield from functions(constant)


def run(job, send):
    source, setup, *tests = (field.decode() for field in job)
    try:
        program = compile(source, "<candidate>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):
        return send(b"done")
    can, ran = set(), set()
    for function in functions(program):
        lines = {line for _, _, line in function.co_lines() if line}
        can |= lines - {function.co_firstlineno} or lines

    def trace(frame, event, _):
        if frame.f_code.co_filename != "<candidate>":
            return None
        if event == "line":
            ran.add(frame.f_lineno)
        return trace

    module = type(sys)("candidate")
    sys.modules["candidate"] = module
    try:
        exec(program, module.__dict__)
        exec(compile(setup, "<setup>", "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        tests = []
    for test in tests:
        code = compile(test, "<test>", "exec", dont_inherit=True)
        sys.settrace(trace)
        try:
            exec(code, module.__dict__)
        except BaseException:
            pass
        finally:
            sys.settrace(None)
    send(b"lines", str(len(can)).encode(), str(len(can & ran)).encode())
    send(b"done")
