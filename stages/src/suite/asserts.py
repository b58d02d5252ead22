"""Writes tests: calls of a trusted program, each as an assert about the value that it gave.

A value that has no literal (an object, nan), that differs when asked for twice, or that takes more than a budget of
lines gives no test but a reason. Numbers are compared as EvalPlus does (Liu et al. 2023, arXiv:2305.01210): a float, or
a list or tuple of nothing but floats, within 1e-6 or the problem's own tolerance, and 1e-7 of the value.
"""

import math
import sys

TOLERANCE, RELATIVE = 1e-6, 1e-7
LINES_A_CALL, LINES = 200_000, 5_000_000
MAX_TEXT = 20_000


class OverBudget(BaseException):
    pass


def literal(value):
    """Source text of a value of built-in types; the same for equal sets. ValueError if there is none."""
    kind = type(value)
    if kind is float:
        if math.isnan(value):
            raise ValueError("is nan")
        return repr(value) if math.isfinite(value) else f"float('{value}')"
    if value is None or kind in (bool, int, str, bytes):
        return repr(value)
    if kind is complex and math.isfinite(value.real) and math.isfinite(value.imag):
        return repr(value)
    if kind is list:
        return f"[{', '.join(map(literal, value))}]"
    if kind is tuple:
        return f"({', '.join(map(literal, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(key)}: {literal(item)}" for key, item in value.items()) + "}"
    if kind in (set, frozenset):
        items = ", ".join(sorted(map(literal, value)))
        text = "{" + items + "}" if items else "set()"
        return text if kind is set else f"frozenset({text})"
    raise ValueError(f"is a {kind.__name__}")


def call_text(name, arguments):
    return f"{name}({', '.join(map(literal, arguments))})"


def assert_text(call, value, tolerance=0):
    """The test that a call gives a value."""
    bound = tolerance or TOLERANCE
    if type(value) is float and math.isfinite(value):
        return f"assert abs({call} - {literal(value)}) <= {bound + RELATIVE * abs(value):.6g}"
    if type(value) in (list, tuple) and value and all(type(item) is float for item in value):
        close = f"abs(a - b) <= {bound!r} + {RELATIVE!r} * abs(b)"
        return f"assert all({close} for a, b in zip({call}, {literal(value)}, strict=True))"
    return f"assert {call} == {literal(value)}"


class Program:
    """A trusted program, loaded; says what its calls give."""

    def __init__(self, source, setup=""):
        self.space = {"__name__": "reference"}
        self.lines = LINES
        for text in (source, setup):
            exec(compile(text, "<reference>", "exec", dont_inherit=True), self.space)

    def value(self, call):
        """What a call gives, a generator's items as a list: (expression, value). ValueError says why there is none."""
        for expression in (call, f"list({call})"):
            texts = []
            for _ in range(2):
                try:
                    value = self.evaluate(expression)
                except OverBudget:
                    raise ValueError("the reference takes too long") from None
                except Exception as error:
                    raise ValueError(f"the reference raises {type(error).__name__}") from None
                if hasattr(type(value), "__next__"):
                    break
                try:
                    texts.append(literal(value))
                except RecursionError:
                    raise ValueError("the reference's value is nested too deeply") from None
                except ValueError as error:
                    raise ValueError(f"the reference's value {error}") from None
            else:
                if texts[0] != texts[1]:
                    raise ValueError("the reference's value differs from call to call")
                if len(call) + len(texts[0]) > MAX_TEXT:
                    raise ValueError("the test would be too long")
                return expression, value
        raise ValueError("the reference's value is an iterator")

    def evaluate(self, expression):
        left = min(LINES_A_CALL, self.lines)

        def count(frame, event, _):
            nonlocal left
            if event == "line":
                left -= 1
                if left < 0:
                    raise OverBudget
            return count

        before = left
        sys.settrace(count)
        try:
            return eval(expression, self.space)
        finally:
            sys.settrace(None)
            self.lines -= before - left
