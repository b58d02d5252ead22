"""Evaluates comparisons outside the program's process, over copies of the values that it sent.

The job is a list of comparisons: code, the number of operands, and each operand's bytes (`none` where it did not come). A frame
comes back for each: `true`, `false`, `error` with the exception, `unknown` with why only the program's own code could say,
or `missing` if it needs an operand that did not come.
"""

import marshal
import sys

decode, Unknown = shared[b"decode"]["decode"], shared[b"decode"]["Unknown"]
outcome = shared[b"outcome"]["outcome"]
near, same_typed = shared[b"inside"]["near"], shared[b"inside"]["same_typed"]


class Missing(Exception):
    pass


def compare(code, operands):
    def operand(place):
        if operands[place] == b"none":
            raise Missing
        return decode(operands[place])

    space = {"__H__": operand, "__almost__": near, "__typed__": same_typed}
    try:
        exec(marshal.loads(code), space)
        return (b"true" if space["__result__"] else b"false",)
    except Missing:
        return (b"missing",)
    except Unknown as error:
        return b"unknown", str(error).encode("utf-8", "backslashreplace")
    except BaseException as error:
        return outcome(error)


def run(job, send):
    sys.setrecursionlimit(20_000)  # values may be nested deeper than Python's own calls
    fields = iter(job)
    for code in fields:
        operands = [next(fields) for _ in range(int(next(fields)))]
        send(*compare(code, operands))
    send(b"done")
