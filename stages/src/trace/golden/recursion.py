# test: assert fact(3) == 7
# got: 6
# status: ok
def fact(n):  # (0) n=3; (1) n=2; (2) n=1;
    if n <= 1:
        return 1  # (3) __return__=1;
    return n * fact(n - 1)  # (4) __return__=2; (5) __return__=6;
