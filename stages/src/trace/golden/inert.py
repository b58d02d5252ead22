# test: assert f([1]) == 0
# got: [2]
# status: ok
def f(a):  # (0) a=[1];
    b = a  # (1) b=[1];
    n = len(a)  # (2) n=1;
    b += [n]  # (3) a=[1, 1]; b=[1, 1];
    n += 1  # (4) n=2;
    if n not in b:
        c, d = b[0], {n: b}  # (5) c=1; d={2: [1, 1]};
    d[n].append(c)  # (6) a=[1, 1, 1]; b=[1, 1, 1]; d={2: [1, 1, 1]};
    total = sum(x for x in b)  # (7) total=3;
    return sorted(d)  # (8) __return__=[2];
