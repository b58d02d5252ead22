# test: assert f(2) == 0
# got: [0, 0, 2, 0, 3, 6]
# status: ok
def f(n):  # (0) n=2;
    out = []  # (1) out=[];
    for i in range(n + 2):  # (2) i=0; (3) i=1; ...; (10) i=3;
        for j in range(i):  # (4) j=0; (8) j=1; ...; (15) j=2;
            out.append(i * j)  # (5) out=[0]; (7) out=[0, 0]; ...; (16) out=[0, 0, 2, 0, 3, 6];
    return out  # (17) __return__=[0, 0, 2, 0, 3, 6];
