"""Reads what `encode.py` writes, where both ends are interpreters; ValueError if it is something else.

An opaque value is a handle there, `h`, a number, `;` and its type's name: `handle` makes an object of it.
"""

MAX_DEPTH = 100
CONSTANTS = {b"N": None, b"T": True, b"F": False}
CLOSE = {b"[": b"]", b"(": b")", b"<": b">", b"{": b"}"}


def decode(data, handle):
    at = 0

    def word(end):
        nonlocal at
        start, at = at, data.index(end, at) + 1
        return data[start : at - 1].decode()

    def counted():
        nonlocal at
        size = int(word(b":"))
        start, at = at, at + size
        if size < 0 or at > len(data):
            raise ValueError("cut short")
        return data[start:at]

    def items(close, depth):
        nonlocal at
        found = []
        while data[at : at + 1] != close:
            found.append(walk(depth + 1))
        at += 1
        return found

    def walk(depth):
        nonlocal at
        tag, at = data[at : at + 1], at + 1
        if depth > MAX_DEPTH:
            raise ValueError("too deep")
        if tag in CONSTANTS:
            return CONSTANTS[tag]
        if tag == b"i":
            return int(word(b";"), 16)
        if tag == b"f":
            return float(word(b";"))
        if tag == b"s":
            return counted().decode("utf-8", "surrogatepass")
        if tag == b"y":
            return counted()
        if tag == b"c":
            return complex(float(word(b";")), float(word(b";")))
        if tag == b"q":
            from fractions import Fraction

            return Fraction(int(word(b";"), 16), int(word(b";"), 16))
        if tag == b"h":
            return handle(int(word(b";")), counted().decode("utf-8", "replace"))
        if tag not in CLOSE:
            raise ValueError("no value")
        found = items(CLOSE[tag], depth)
        try:
            if tag == b"{":
                return dict(zip(found[::2], found[1::2], strict=True))
            return found if tag == b"[" else tuple(found) if tag == b"(" else set(map(frozen, found))
        except TypeError as error:
            raise ValueError("unhashable") from error

    value = walk(0)
    if at != len(data):
        raise ValueError("too long")
    return value


def frozen(value):
    """A set in a set can only have been a frozenset."""
    return frozenset(value) if type(value) is set else value
