# test: assert f(2) == 0
# got: 3
# status: ok
import collections

Point = collections.namedtuple("Point", "x y")


class Counter:
    made = 0

    def __init__(self, start):  # (1) self=Counter(); start=2;
        self.count = start  # (2) self=Counter(count=2);

    def __repr__(self):
        while True:
            pass

    def bump(self):  # (4) self=Counter(count=2);
        self.count += 1  # (5) self=Counter(count=3); (6) __return__=None;


def f(n):  # (0) n=2;
    c = Counter(n)  # (3) c=Counter(count=2);
    c.bump()  # (7) c=Counter(count=3);
    p = Point(1, c)  # (8) p=Point(x=1, y=Counter(count=3));
    s = {3, 1, 2}  # (9) s={1, 2, 3};
    d = collections.defaultdict(list)  # (10) d=defaultdict({});
    d["k"].append((p.x,))  # (11) d=defaultdict({'k': [(1,)]});
    g = lambda x: x
    return c.count  # (12) __return__=3;
