# test: assert f([1, 2, 3]) == [2]
# got: [1, 3]
# status: ok
def f(lst):  # (0) lst=[1, 2, 3];
    out = []  # (1) out=[];
    for n in lst:  # (2) n=1; (4) n=2; (5) n=3;
        if n % 2:
            out.append(n)  # (3) out=[1]; (6) out=[1, 3];
    return out  # (7) __return__=[1, 3];
