# test: assert f(2) == 0
# got: 2
# status: ok
def numbers(n):  # (2) n=2;
    for i in range(n):  # (3) i=0; (6) i=1;
        yield i * i  # (4) __yield__=0; (7) __yield__=1;


def f(n):  # (0) n=2;
    total = 0  # (1) total=0;
    for v in numbers(n):  # (5) v=0; (8) v=1;
        total += v  # (9) total=1;

    def add():
        nonlocal total
        total += 1  # (10) total=2; (11) __return__=None;

    add()  # (12) total=2;
    return total  # (13) __return__=2;
