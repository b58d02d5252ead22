"""An exactly typed encoding of built-in values, so that they can be compared outside the process that made them.

A subclass counts as its built-in base where Python's `==` with a literal would look at nothing else: the first class
in its resolution order that defines `__eq__` is the base. Everything else is opaque and equals nothing. No code of the
candidate's classes runs here.
"""

import collections
import decimal
import fractions

MAX_DEPTH, MAX_BYTES, MAX_NODES = 60, 1 << 20, 1 << 18
# They equal numbers, too. Taken before any candidate runs: it can put what it likes into `sys.modules`.
RATIONALS = fractions.Fraction, decimal.Decimal

mro_of = type.__dict__["__mro__"].__get__
names_of = type.__dict__["__dict__"].__get__
name_of = type.__dict__["__name__"].__get__
BASES = {
    bool: bool, int: int, float: float, complex: complex, str: str, bytes: bytes, bytearray: bytes, list: list,
    tuple: tuple, dict: dict, set: set, frozenset: set, type(None): type(None), collections.OrderedDict: dict,
    collections.Counter: dict, collections.defaultdict: dict,
}  # fmt: skip


class TooLarge(Exception):
    pass


def base_of(kind, bases=BASES, rationals=RATIONALS, mro_of=mro_of, names_of=names_of):
    for ancestor in mro_of(kind):
        if ancestor in bases:
            return bases[ancestor]
        if "__eq__" in names_of(ancestor):
            return ancestor if ancestor is rationals[0] or ancestor is rationals[1] else None
    return None


def counted_name(value):
    data = name_of(type(value)).encode("utf-8", "surrogatepass")
    return len(data), data


# What is sent most, without the work that containers need.
PLAIN = {
    int: lambda value: b"i%x;" % value,
    float: lambda value: b"f" + float.__repr__(value).encode() + b";",
    bool: lambda value: b"T" if value else b"F",
    type(None): lambda value: b"N",
}


def encode(value, opaque=lambda value: b"o%d:%s" % counted_name(value)):
    """`opaque` gives the bytes of what is of no built-in type."""
    plain = PLAIN.get(type(value))
    if plain and (data := plain(value)) and len(data) <= MAX_BYTES:
        return data
    parts, size, nodes = [], 0, 0

    def put(data):
        nonlocal size
        size += len(data)
        if size > MAX_BYTES:
            raise TooLarge
        parts.append(data)

    def walk(value, depth):
        nonlocal nodes
        nodes += 1
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            raise TooLarge
        kind = type(value)
        base = BASES.get(kind) or base_of(kind)
        if base is int:
            put(b"i%x;" % int.__add__(value, 0))
        elif base is str:
            data = str.encode(value, "utf-8", "surrogatepass")
            put(b"s%d:" % len(data))
            put(data)
        elif base is bool:
            put(b"T" if value else b"F")
        elif base is float:
            put(b"f" + float.__repr__(value).encode() + b";")
        elif base is type(None):
            put(b"N")
        elif base is list:
            put(b"[")
            for item in list.__iter__(value):
                walk(item, depth + 1)
            put(b"]")
        elif base is tuple:
            put(b"(")
            for item in tuple.__iter__(value):
                walk(item, depth + 1)
            put(b")")
        elif base is dict:
            put(b"{")
            for key, item in dict.items(value):
                walk(key, depth + 1)
                walk(item, depth + 1)
            put(b"}")
        elif base is set:
            put(b"<")
            for item in (set if issubclass(kind, set) else frozenset).__iter__(value):
                walk(item, depth + 1)
            put(b">")
        elif base is bytes:
            data = bytes(memoryview(value))
            put(b"y%d:" % len(data))
            put(data)
        elif base is complex:
            real, imaginary = complex.real.__get__(value), complex.imag.__get__(value)
            put(b"c" + float.__repr__(real).encode() + b";" + float.__repr__(imaginary).encode() + b";")
        elif base is not None and value == value and kind.as_integer_ratio:
            numerator, denominator = base.as_integer_ratio(value)
            put(b"q%x;%x;" % (numerator, denominator))
        else:
            put(opaque(value))

    walk(value, 0)
    return b"".join(parts)
