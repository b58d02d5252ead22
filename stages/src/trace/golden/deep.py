# test: assert f(800) == 0
# got: 801
# status: ok
def down(n):  # (1) n=1; (2) n=0; ...; (204) n=602;
    return 0 if n == 0 else 1 + down(n - 1)  # (3) __return__=0; (4) __return__=1; ...; (403) __return__=800;


def f(n):  # (0) n=800;
    a = down(1)  # (5) a=1;
    b = down(n)  # (404) b=800;
    return a + b  # (405) __return__=801;
# ... calls deeper than 200 are not shown (602 calls)
