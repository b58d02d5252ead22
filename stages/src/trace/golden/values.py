# test: assert f() == 0
# got: [<function f>, <class Slots>, <module collections>, <function len>]
# status: ok
import collections
import datetime
import decimal
import fractions
import re


class Slots:
    __slots__ = ("p", "q")

    def __init__(self):  # (0) self=Slots();
        self.p = 1  # (1) self=Slots(p=1);


class Broken(dict):
    def items(self):
        raise ValueError

    __repr__ = __str__ = __len__ = __iter__ = items


def f():
    s = Slots()  # (2) s=Slots(p=1);
    b = Broken(a=1)  # (3) b=Broken({'a': 1});
    deque = collections.deque([1, 2])  # (4) deque=deque([1, 2]);
    counts = collections.Counter("aab")  # (5) counts=Counter({'a': 2, 'b': 1});
    numbers = fractions.Fraction(1, 3), decimal.Decimal("1.50"), 1e100, -0.0, 2j, float("nan")  # (6) numbers=(Fraction(1, 3), Decimal('1.50'), 1e+100, -0.0, 2j, nan);
    day = datetime.date(2024, 2, 29)  # (7) day=datetime.date(2024, 2, 29);
    match = re.match("a+", "aab")  # (8) match=<Match>;
    iterator = iter([1])  # (9) iterator=<list_iterator>;
    thing = object()  # (10) thing=<object>;
    mixed = {"b", 1, (2, 3), None}  # (11) mixed={'b', (2, 3), 1, None};
    nested = [[[[[[1]]]]]]  # (12) nested=[[[[[...]]]]];
    data = b"\x00a", "é\n", range(3), ...  # (13) data=(b'\x00a', 'é\n', range(0, 3), <ellipsis>);
    return [f, Slots, collections, len]  # (14) __return__=[<function f>, <class Slots>, <module collections>, <function len>];
