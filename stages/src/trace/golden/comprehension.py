# test: assert f([1, 2]) == 0
# got: 7
# status: ok
def double(x):  # (2) x=1; (4) x=2;
    return 2 * x  # (3) __return__=2; (5) __return__=4;


def f(xs):  # (0) xs=[1, 2];
    i = 7  # (1) i=7;
    a = [
        double(i)
        for i in xs
        if i
    ]  # (6) a=[2, 4];
    b = {i: j for i in xs for j in a}  # (7) b={1: 4, 2: 4};
    c = max(xs, key=lambda i:
            -i)  # (8) c=1;
    d = [(last := i) for i in xs]  # (9) d=[1, 2]; last=2;
    return i  # (10) __return__=7;
