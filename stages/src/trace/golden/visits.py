# test: assert f(6) == 21
# got: 20
# status: ok
def f(n):  # (0) n=6;
    total = 0  # (1) total=0;
    while n > 1:
        total += n  # (2) total=6; (4) total=11; ...; (10) total=20;
        n -= 1  # (3) n=5; (5) n=4; ...; (11) n=1;
    return total  # (12) __return__=20;
