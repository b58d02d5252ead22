# test: assert f([1]) == 0
# got: ([1, 2], {'k': [1, 2]})
# status: ok
def f(a):  # (0) a=[1];
    b = a  # (1) b=[1];
    b.append(2)  # (2) a=[1, 2]; b=[1, 2];
    c = a, {"k": b}  # (3) c=([1, 2], {'k': [1, 2]});
    return c  # (4) __return__=([1, 2], {'k': [1, 2]});
