# test: assert f(1) == 0
# got: 3
# status: ok
def f(n):  # (0) n=1;
    x, y = n, [n]  # (1) x=1; y=[1];
    del x  # (2) x deleted;
    try:
        y[1]  # (3) __exception__=IndexError('list index out of range');
    except IndexError as error:  # (4) error=IndexError('list index out of range');
        y.append(2)  # (5) y=[1, 2];
    x = 3  # (6) x=3;
    return x  # (7) __return__=3;
