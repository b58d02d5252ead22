# test: assert f(250) == 0
# got: 
# status: truncated
def f(n):  # (0) n=250; (1) n=249; ...; (199) n=51;
    if n:
        return f(n - 1)
    while True:
        n += 1
# ... calls deeper than 200 are not shown
# ... stopped after 100000 steps of calls that are not shown
