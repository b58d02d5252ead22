"""Chooses the reference of a contest's problem, and writes its tests where they call a function.

The job is (function, starter code, solutions, cases), the last two as JSON; without a function the tests are on standard
input and output, and none of this one's business. Frames that come back: (reference, text), (test, text), (skipped,
reason); or (bad, message).

Cases of APPS are `{"inputs": [[argument, ...], ...], "outputs": [...]}`, where an output may stand in a list of its own;
those of LiveCodeBench `[{"input": "a line of JSON per argument", "output": "JSON"}, ...]`. Where there is a reference,
what is expected is written as it gives it (JSON has no tuples), as long as the two agree.
"""

import ast
import json
import warnings

Program, assert_text, call_text = (shared[b"asserts"][name] for name in ("Program", "assert_text", "call_text"))

# What the sites import before a solution runs; solutions count on it.
PRELUDE = """
from typing import *
from collections import *
from functools import *
from itertools import *
from heapq import *
from bisect import *
import bisect, collections, functools, heapq, itertools, math, operator, random, re, string, sys
"""


def python_3(solutions):
    """The first of the programs that is Python 3."""
    for solution in solutions:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compile(solution, "<solution>", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return solution.replace("\r\n", "\n").strip("\n") + "\n"
    return ""


def plain(value):
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def with_numbers(argument):
    """JSON's keys are texts; APPS means numbers where all of them are some."""
    if isinstance(argument, dict) and argument and all(key.lstrip("-").isdigit() for key in argument):
        return {int(key): value for key, value in argument.items()}
    return argument


def read_cases(cases):
    """Pairs of arguments and expected value, and whether a value may stand in a list of its own."""
    if isinstance(cases, dict):
        inputs, outputs = cases.get("inputs"), cases.get("outputs")
        if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
            raise ValueError("has no lists `inputs` and `outputs` of one length")
        if not all(isinstance(arguments, list) for arguments in inputs):
            raise ValueError("`inputs` is not a list of lists of arguments")
        return [([*map(with_numbers, arguments)], value) for arguments, value in zip(inputs, outputs)], True
    pairs = []
    for number, case in enumerate(cases, 1):
        try:
            arguments = [json.loads(line) for line in case["input"].split("\n") if line.strip()]
            pairs.append((arguments, json.loads(case["output"])))
        except ValueError as error:
            raise ValueError(f"test {number} is not lines of JSON: {error}") from None
    return pairs, False


def loaded(reference):
    try:
        return Program(PRELUDE + reference) if reference else None
    except Exception:
        return None


def convert(function, starter, solutions, cases, send):
    reference = python_3(solutions)
    if reference:
        send(b"reference", reference.encode("utf-8", "surrogatepass"))
    if not function:
        return
    tree = ast.parse(reference).body
    # A starter need not parse: a method without a body.
    defined = {node.name for node in tree if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    in_class = "class Solution" in starter or not starter.strip() and "Solution" in defined and function not in defined
    name = f"Solution().{function}" if in_class else function
    pairs, may_be_wrapped = read_cases(cases)
    single = may_be_wrapped and all(isinstance(value, list) and len(value) == 1 for _, value in pairs)
    program, seen = loaded(reference), set()
    for arguments, expected in pairs:
        try:
            call = call_text(name, arguments)
            if program is None:
                test = assert_text(call, expected[0] if single else expected)
            else:
                expression, value = program.value(call)
                wrapped = may_be_wrapped and isinstance(expected, list) and len(expected) == 1
                if plain(value) != expected and not (wrapped and plain(value) == expected[0]):
                    raise ValueError("the solution and the test disagree")
                test = assert_text(expression, value)
        except (ValueError, RecursionError) as error:
            send(b"skipped", str(error).encode("utf-8", "backslashreplace"))
            continue
        if test not in seen:
            seen.add(test)
            send(b"test", test.encode("utf-8", "surrogatepass"))


def run(job, send):
    function, starter, solutions, cases = (part.decode("utf-8", "surrogatepass") for part in job)
    try:
        convert(function, starter, json.loads(solutions), json.loads(cases) if function else None, send)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        send(b"bad", str(error).encode("utf-8", "backslashreplace"))
    send(b"done")
