# test: assert f(1) == 0
# got: 5
# status: ok
count = 0


def f(a):  # (0) a=1;
    b = a + 1  # (1) b=2;

    def inner(c):  # (2) c=5;
        global count
        nonlocal b
        d = a  # (3) d=1;
        count += 1  # (4) count=1;
        b = c  # (5) b=5;
        return b + d  # (6) __return__=6;

    e = inner(5)  # (7) b=5; e=6;
    count
    return b  # (8) __return__=5;
