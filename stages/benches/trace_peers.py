"""What tracers cost a line on HumanEval's reference solutions and tests: SOURCES DATA.jsonl ROUNDS; prints JSON.

The tracers take turns on each problem, each in a fork of its own, since some leave hooks behind; the least CPU time of
the rounds counts. A problem with more than MAX_LINES lines is left out. SOURCES is the folder of our embedded scripts.
"""

import importlib.util
import io
import json
import os
import sys
import time

MAX_LINES = 20000
# Of three to nine lines that are executed, one changes something.
FEW_CHANGES = """
def run(values):
    low, high, word, at = 3, 900, "x", 0
    for value in values:
        if value > high:
            continue
        if value < low:
            continue
        if word == "y":
            pass
        if high < low:
            return None
    while at < len(values) - 1:
        if values[at] > values[at + 1]:
            return False
        if not values:
            break
        at += 1
    return True
"""
FILE = "<candidate>"


def runners(sources):
    """Our scripts as the fork server loads them."""
    shared = {}
    for name in ("sandbox/outcome", "trace/render", "trace/inert", "trace/syntax", "trace/hooks", "trace/tracer"):
        space = {"__name__": name, "shared": shared}
        with open(os.path.join(sources, name + ".py")) as file:
            exec(compile(file.read(), name, "exec"), space)
        shared[name.split("/")[1].replace("tracer", "trace").encode()] = space
    return shared


def untraced(shared, source, code, function, check):
    return lambda: check(function)


def bare_settrace(shared, source, code, function, check):
    def local(frame, event, argument):
        return local

    def run():
        sys.settrace(lambda frame, event, argument: local if frame.f_code.co_filename == FILE else None)
        check(function)
        sys.settrace(None)

    return run


def snooped(shared, source, code, function, check):
    import pysnooper

    snooped = pysnooper.snoop(io.StringIO(), color=False)(function)
    return lambda: check(snooped)


def ours(start):
    def prepare(shared, source, code, function, check):
        trace = shared[b"trace"]
        steps = trace["Steps"](memoryview(bytearray(1 << 16)), lambda *frame: None)
        render = shared[b"render"]["renderer"](80, 20)
        tracer = trace["Tracer"](trace["Program"](source), steps, render, 1 << 60, False, os._exit)

        def run():
            stop = shared[b"hooks"][start](tracer, code)
            check(function)
            stop()

        return run

    return prepare


def count_lines(function, check):
    lines = 0

    def local(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        return local

    sys.settrace(lambda frame, event, argument: local if frame.f_code.co_filename == FILE else None)
    check(function)
    sys.settrace(None)
    return lines


def in_fork(work):
    """What `work` gives, a number, computed in a fork; None if it fails there."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            os.write(writing, repr(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return float(text) if text else None


def loaded(problem):
    """The solution's source and code, its function, and the function that checks it."""
    source = problem["prompt"] + problem["canonical_solution"]
    code = compile(source, FILE, "exec")
    space = {"__name__": "candidate"}
    exec(code, space)
    exec(compile(problem["test"], "<test>", "exec"), space)
    return source, code, space[problem["entry_point"]], space["check"]


def timed(shared, tracer, problem):
    run = tracer(shared, *loaded(problem))
    began = time.process_time()
    run()
    return time.process_time() - began


def main(sources, path, rounds):
    shared = runners(sources)
    tracers = {"untraced": untraced, "settrace that does nothing": bare_settrace}
    tracers["tracetune, settrace"] = ours("start_settrace")
    if hasattr(sys, "monitoring"):
        tracers["tracetune, monitoring"] = ours("start_monitoring")
    if importlib.util.find_spec("pysnooper"):
        tracers["PySnooper"] = snooped
    with open(path) as lines:
        problems = [json.loads(line) for line in lines]
    lines, least = 0, dict.fromkeys(tracers, 0.0)
    for problem in problems:
        own = in_fork(lambda: count_lines(*loaded(problem)[2:]))
        if own is None or own > MAX_LINES:
            continue
        times = {name: [] for name in tracers}
        for _ in range(int(rounds)):
            for name, tracer in tracers.items():
                times[name].append(in_fork(lambda: timed(shared, tracer, problem)))
        if any(None in own_times for own_times in times.values()):
            continue
        lines += own
        for name in tracers:
            least[name] += min(times[name])
    few = {"prompt": FEW_CHANGES, "canonical_solution": "", "entry_point": "run"}
    few["test"] = "def check(candidate): candidate(list(range(1000)))"
    few_lines = in_fork(lambda: count_lines(*loaded(few)[2:]))
    few_seconds = {name: [] for name in tracers}
    for _ in range(int(rounds)):
        for name, tracer in tracers.items():
            few_seconds[name].append(in_fork(lambda: timed(shared, tracer, few)))
    few_changes = {"lines": few_lines, "seconds": [(name, min(own)) for name, own in few_seconds.items()]}
    figures = {"python": sys.version.split()[0], "lines": lines, "seconds": list(least.items())}
    print(json.dumps({**figures, "few_changes": few_changes}))


if __name__ == "__main__":
    main(*sys.argv[1:])
