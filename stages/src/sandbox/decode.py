"""Reads what `encode.py` writes, in an interpreter that the program under test never ran in; ValueError if it is something
else. An object of the program's own becomes an `Opaque`, which is equal to nothing but itself."""

import collections
import datetime
import decimal
import fractions
import math

encoder = shared[b"encode"]
SINGLE = {b"N": None, b"T": True, b"F": False, b"E": ..., b"J": NotImplemented, b"G": math.nan}
CLASSES = {name: kind for kind, name in encoder["CLASSES"].items()}
GUARDED = [name for name in encoder["BEHAVIOUR"] if name != "__hash__"]


class Unknown(Exception):
    """A comparison needs what only code of the program's own could say."""


class Opaque:
    def __init__(self, name, truth):
        self.name, self.truth = name, truth

    def __bool__(self):
        if self.truth is None:
            raise Unknown(f"only the program itself could say whether an object of its type {self.name} is true")
        return self.truth

    def __repr__(self):
        return f"<{self.name}>"

    def unknown(self, *arguments):
        raise Unknown(f"an object of the program's own type {self.name} behaves in its own way")

    __iter__ = __contains__ = __len__ = __getitem__ = unknown


def refuse(self, *arguments):
    raise Unknown(f"an object of the program's own type {type(self).__name__} behaves in its own way")


def like(name, value, changes):
    """`value` as an instance of a subclass called `name`, where its type can have one that is made of a value alone."""
    try:
        return type(name, (type(value),), dict.fromkeys(GUARDED, refuse) if changes else {})(value)
    except TypeError:
        return value


def pairs(kind):
    def make(items):
        value = kind()
        value.update(zip(items[::2], items[1::2], strict=True))
        return value

    return make


def counts(items):
    value = collections.Counter()
    dict.update(value, zip(items[::2], items[1::2], strict=True))
    return value


def moment(fields):
    *time, fold, zone = fields
    return datetime.time(*time, zone, fold=fold) if len(time) == 4 else datetime.datetime(*time, zone, fold=fold)


MADE_OF = {
    "frozenset": frozenset,
    "bytearray": bytearray,
    "deque": lambda parts: collections.deque(*parts),
    "Counter": counts,
    "defaultdict": pairs(collections.defaultdict),
    "OrderedDict": pairs(collections.OrderedDict),
    "range": lambda parts: range(*parts),
    "slice": lambda parts: slice(*parts),
    "Decimal": decimal.Decimal,
    "Fraction": lambda parts: fractions.Fraction(*parts),
    "date": lambda parts: datetime.date(*parts),
    "datetime": moment,
    "time": moment,
    "timedelta": lambda parts: datetime.timedelta(*parts),
    "timezone": datetime.timezone,
    "dict_keys": lambda keys: dict.fromkeys(keys).keys(),
    "dict_values": lambda values: dict(enumerate(values)).values(),
    "dict_items": lambda items: dict(items).items(),
    "class": CLASSES.__getitem__,
}


class Reader:
    def __init__(self, data):
        self.data, self.at, self.objects = data, 0, []

    def word(self):
        start, self.at = self.at, self.data.index(b";", self.at) + 1
        return self.data[start : self.at - 1].decode()

    def counted(self):
        colon = self.data.index(b":", self.at)
        end = colon + 1 + int(self.data[self.at : colon])
        if not colon < end <= len(self.data):
            raise ValueError("cut short")
        self.at = end
        return self.data[colon + 1 : end]

    def text(self):
        return self.counted().decode("utf-8", "surrogatepass")

    def number(self):
        """A place for the container that begins here."""
        self.objects.append(Opaque("an object within itself", True))
        return len(self.objects) - 1

    def value(self):
        """The next value; the byte that closes a container is a `Closed`."""
        tag = self.data[self.at : self.at + 1]
        self.at += 1
        if tag in SINGLE:
            return SINGLE[tag]
        if tag == b"i":
            return int(self.word(), 16)
        if tag == b"f":
            return float(self.word())
        if tag == b"s":
            return self.text()
        if tag == b"y":
            return self.counted()
        if tag == b"c":
            return complex(float(self.word()), float(self.word()))
        if tag == b"R":
            return self.objects[int(self.word())]
        if tag in (b"]", b")", b">", b"}"):
            return CLOSED[tag]
        if tag in OPEN:
            return OPEN[tag](self, self.number())
        raise ValueError("no value")

    def items(self, closed):
        while (item := self.value()) is not closed:
            if type(item) is Closed:
                raise ValueError("closed twice")
            yield item

    def make_list(self, number):
        made = self.objects[number] = []
        made.extend(self.items(CLOSED[b"]"]))
        return made

    def make_tuple(self, number):
        made = self.objects[number] = tuple(self.items(CLOSED[b")"]))
        return made

    def make_set(self, number):
        made = self.objects[number] = set()
        made.update(self.items(CLOSED[b">"]))
        return made

    def make_dict(self, number):
        made, items = {}, self.items(CLOSED[b"}"])
        self.objects[number] = made
        for key in items:
            made[key] = next(items)
        return made

    def make_known(self, number):
        make = MADE_OF[self.text()]
        made = self.objects[number] = make(self.value())
        return made

    def make_subclass(self, number):
        changes = self.data[self.at - 1 : self.at] == b"U"
        made = self.objects[number] = like(self.text(), self.value(), changes)
        return made

    def make_opaque(self, number):
        truth = None if self.data[self.at - 1 : self.at] == b"O" else True
        made = self.objects[number] = Opaque(self.text(), truth)
        return made


class Closed:
    pass


CLOSED = {tag: Closed() for tag in (b"]", b")", b">", b"}")}
OPEN = {
    b"[": Reader.make_list, b"(": Reader.make_tuple, b"<": Reader.make_set, b"{": Reader.make_dict,
    b"x": Reader.make_known, b"u": Reader.make_subclass, b"U": Reader.make_subclass, b"o": Reader.make_opaque,
    b"O": Reader.make_opaque,
}  # fmt: skip


def decode(data):
    reader = Reader(data)
    try:
        value = reader.value()
    except (LookupError, TypeError, StopIteration, RuntimeError, ArithmeticError, RecursionError) as error:
        raise ValueError("no value") from error
    if reader.at != len(data) or type(value) is Closed:
        raise ValueError("no value")
    return value
