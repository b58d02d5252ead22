"""An exactly typed encoding of values, so that they can be compared outside the process that made them.

Built-in types and the value types of the standard library keep their type. A subclass of one of them that does not
define `==` is sent as its name and the plain value; anything else is opaque: its type's name, and whether it is known
to be true. No code of the program's classes runs here, and nothing is looked up that the program could replace.

`decode.py` reads it, and so does `value.rs`:

    N T F E J          None, True, False, Ellipsis, NotImplemented; G is the object `math.nan`
    i1f;  f0.5;        int in hexadecimal, float as its repr;  c1.0;2.0;  complex
    s2:ab  y2:ab       str in UTF-8 (surrogates as three bytes each), bytes: a length, then that many bytes
    [ ]  ( )  < >      list, tuple, set;  { }  dict, a key and a value in turn
    x4:date …          another known type: its name, then one value that it is made of
    u1:P …             a subclass: its name, then its value; U if it changes more than its methods' names
    o1:P  O1:P         opaque; O if `bool()` of it would run its own code
    R3;                the same object as the container numbered 3; [ ( < { x u U o O count, in their order, from 0
"""

import collections
import datetime
import decimal
import fractions
import itertools
import math

BYTES, ITEMS, DEPTH = 16 << 20, 1 << 20, 400

mro_of = type.__dict__["__mro__"].__get__
names_of = type.__dict__["__dict__"].__get__
name_of = type.__dict__["__name__"].__get__
NAN, flatten = math.nan, itertools.chain.from_iterable
EQUALITY = ("__eq__", "__ne__")
# What else of a subclass an expression that compares it may call.
BEHAVIOUR = (
    "__lt__", "__le__", "__gt__", "__ge__", "__bool__", "__len__", "__iter__", "__contains__", "__getitem__", "__add__",
    "__sub__", "__rsub__", "__abs__", "__round__", "__float__", "__index__", "__hash__",
)  # fmt: skip


class TooLarge(Exception):
    """A value beyond a bound; its argument names the bound: bytes, items or levels."""


def text_of(value):
    return str.encode(value, "utf-8", "surrogatepass")


def counted(tag, data):
    return b"%b%d:%b" % (tag, len(data), data)


def float_bytes(value):
    return b"G" if value is NAN else b"f" + float.__repr__(value).encode() + b";"


ATOMS = {
    int: lambda value: b"i%x;" % value,
    float: float_bytes,
    bool: lambda value: b"T" if value else b"F",
    type(None): lambda value: b"N",
    str: lambda value: counted(b"s", text_of(value)),
    bytes: lambda value: counted(b"y", value),
    complex: lambda value: b"c%b;%b;" % (float.__repr__(value.real).encode(), float.__repr__(value.imag).encode()),
    type(...): lambda value: b"E",
    type(NotImplemented): lambda value: b"J",
}
FLAT = frozenset(map(id, (int, float, bool, type(None), str, bytes)))
CONTAINERS = {
    list: (b"[", list.__iter__, b"]"),
    tuple: (b"(", tuple.__iter__, b")"),
    set: (b"<", set.__iter__, b">"),
    dict: (b"{", lambda value: flatten(dict.items(value)), b"}"),
}


def slots(kind, *names):
    getters = [kind.__dict__[name].__get__ for name in names]
    return lambda value: tuple([get(value) for get in getters])


def pairs(value, items=dict.items):
    return list(flatten(items(value)))


def aware(kind, *names):
    """A time's fields and its time zone; None where the zone is no fixed offset."""
    fields, zone = slots(kind, *names), kind.__dict__["tzinfo"].__get__

    def parts(value):
        tzinfo = zone(value)
        return fields(value) + (tzinfo,) if tzinfo is None or type(tzinfo) is datetime.timezone else None

    return parts


KEYS, VALUES, PAIRS = type({}.keys()), type({}.values()), type({}.items())
CLOCK = ("hour", "minute", "second", "microsecond", "fold")
offset_of = datetime.timezone.utcoffset
# Known types by what one value they are made of.
KNOWN = {
    frozenset: lambda value: list(frozenset.__iter__(value)),
    bytearray: lambda value: bytes(memoryview(value)),
    collections.deque: lambda value, length=collections.deque.__dict__["maxlen"].__get__: (
        list(collections.deque.__iter__(value)),
        length(value),
    ),
    collections.Counter: pairs,
    collections.defaultdict: pairs,
    collections.OrderedDict: lambda value: pairs(value, collections.OrderedDict.items),
    range: slots(range, "start", "stop", "step"),
    slice: slots(slice, "start", "stop", "step"),
    decimal.Decimal: lambda value: decimal.Decimal.__str__(value),
    fractions.Fraction: slots(fractions.Fraction, "_numerator", "_denominator"),
    datetime.date: slots(datetime.date, "year", "month", "day"),
    datetime.datetime: aware(datetime.datetime, *CLOCK),
    datetime.time: aware(datetime.time, *CLOCK),
    datetime.timedelta: slots(datetime.timedelta, "days", "seconds", "microseconds"),
    datetime.timezone: lambda value: offset_of(value, None),
    KEYS: lambda value: list(KEYS.__iter__(value)),
    VALUES: lambda value: list(VALUES.__iter__(value)),
    PAIRS: lambda value: list(PAIRS.__iter__(value)),
}
date_fields, time_fields = KNOWN[datetime.date], KNOWN[datetime.datetime]


def datetime_fields(value):
    time = time_fields(value)
    return None if time is None else date_fields(value) + time


KNOWN[datetime.datetime] = datetime_fields
# The value of an atom's subclass.
PLAIN = {
    int: lambda value: int.__add__(value, 0),
    float: float.__pos__,
    complex: complex.__pos__,
    str: lambda value: str.__getitem__(value, slice(None)),
    bytes: lambda value: bytes(memoryview(value)),
}
# Types are looked up by identity: a class may have a `==` and a hash of its own.
ATOM = {id(kind): atom for kind, atom in ATOMS.items()}
CONTAINER = {id(kind): container for kind, container in CONTAINERS.items()}
MAKER = {id(kind): maker for kind, maker in KNOWN.items()}
PLAIN_OF = {id(kind): plain for kind, plain in PLAIN.items()}
EXTENDED = PLAIN_OF.keys() | CONTAINER.keys() | MAKER.keys()
CLASSES = {
    kind: kind.__name__
    for kind in (
        *ATOMS, *CONTAINERS, *KNOWN, object, type, type(lambda: 0), type(len), type((lambda: (yield))()), super, property,
        memoryview, map, filter, zip, enumerate, reversed,
    )
}  # fmt: skip


def base_of(kind):
    """The known type that a class extends without a `==` of its own, and whether it changes how that type behaves."""
    changes = False
    for ancestor in mro_of(kind):
        if id(ancestor) in EXTENDED:
            return ancestor, changes
        names = names_of(ancestor)
        if any(name in names for name in EQUALITY):
            return None, False
        changes = changes or any(name in names for name in BEHAVIOUR)
    return None, False


def opaque(kind):
    decides = any(name in names_of(ancestor) for ancestor in mro_of(kind)[:-1] for name in ("__bool__", "__len__"))
    return counted(b"O" if decides else b"o", text_of(name_of(kind)))


def encode(value, most_bytes=BYTES, most_items=ITEMS, most_depth=DEPTH):
    """The value's bytes.

    TooLarge if there are more than `most_bytes`, the value holds more than `most_items` objects, or it is nested deeper
    than `most_depth`.
    """
    atom = ATOM.get(id(type(value)))
    if atom:
        data = atom(value)
        if len(data) > most_bytes:
            raise TooLarge("bytes")
        return data
    parts, size, items = [], 0, 0
    numbers, kept = {}, []  # of containers; kept alive, so that no number stands for two
    pending, end, stack = iter((value,)), b"", []  # the open container's items and what closes it; those around it
    while True:
        for value in pending:
            items += 1
            kind = base = type(value)
            atom = ATOM.get(id(kind))
            if atom:
                parts.append(atom(value))
                size += len(parts[-1])
                if size > most_bytes:
                    raise TooLarge("bytes")
                continue
            if id(value) in numbers:
                parts.append(b"R%d;" % numbers[id(value)])
                continue
            numbers[id(value)] = len(kept)
            kept.append(value)
            begin = b""
            if kind is type and value in CLASSES:
                parts.append(b"x5:class" + counted(b"s", text_of(CLASSES[value])))
                continue
            if id(kind) not in CONTAINER and id(kind) not in MAKER:
                base, changes = base_of(kind)
                begin = counted(b"U" if changes else b"u", text_of(name_of(kind)))
                if id(base) in PLAIN_OF:
                    parts.append(begin + ATOM[id(base)](PLAIN_OF[id(base)](value)))
                    size += len(parts[-1])
                    continue
                kept.append(None)
            if id(base) in CONTAINER:
                start, children, close = CONTAINER[id(base)]
                if kind is not dict and base is kind and FLAT.issuperset(map(id, map(type, value))):
                    parts.append(start + b"".join([ATOM[id(type(item))](item) for item in value]) + close)
                    size, items = size + len(parts[-1]), items + len(value)
                    continue
                inside = children(value)
            elif id(base) in MAKER and (made_of := MAKER[id(base)](value)) is not None:
                start, inside, close = counted(b"x", text_of(name_of(base))), iter((made_of,)), b""
            else:
                if base is not kind:
                    kept.pop()
                parts.append(opaque(kind))
                continue
            parts.append(begin + start)
            size += len(parts[-1])
            if size > most_bytes:
                raise TooLarge("bytes")
            if items > most_items:
                raise TooLarge("items")
            if len(stack) >= most_depth:
                raise TooLarge("levels")
            stack.append((pending, end))
            pending, end = inside, close
            break
        else:
            parts.append(end)
            if not stack:
                break
            pending, end = stack.pop()
    if items > most_items:
        raise TooLarge("items")
    data = b"".join(parts)
    if len(data) > most_bytes:
        raise TooLarge("bytes")
    return data
