# test: assert f(1) == 0
# got: 
# status: truncated
def f(n):  # (0) n=1;
    while n:
        n += 1  # (1) n=2; (2) n=3; ...; (499) n=500;
    return n
# ... stopped after 1000 statements
