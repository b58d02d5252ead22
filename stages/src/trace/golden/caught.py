# test: assert f({}) == 0
# got: TypeError('wrapped')
# status: ok
class Countdown:
    def __init__(self, n):  # (1) self=Countdown(); n=1;
        self.n = n  # (2) self=Countdown(n=1);

    def __iter__(self):  # (3) self=Countdown(n=1);
        return self  # (4) __return__=Countdown(n=1);

    def __next__(self):  # (5) self=Countdown(n=1); (9) self=Countdown(n=0);
        if not self.n:
            raise StopIteration  # (10) __exception__=StopIteration();
        self.n -= 1  # (6) self=Countdown(n=0);
        return self.n  # (7) __return__=0;


def look(d):  # (11) d={};
    return d["k"]  # (12) __exception__=KeyError('k');


def f(d):  # (0) d={};
    for i in Countdown(1):  # (8) i=0;
        pass
    try:
        look(d)
    except KeyError:
        pass
    try:
        d["a"] = 1  # (13) d={'a': 1};
        d["b"] = int("x")  # (14) __exception__=ValueError("invalid literal for int() with base 10: 'x'");
    except ValueError as error:  # (15) error=ValueError("invalid literal for int() with base 10: 'x'");
        raise TypeError("wrapped") from error  # (16) __exception__=TypeError('wrapped');
