# test: assert f([2]) == 1
# got: None
# status: ok
def f(xs):  # (0) xs=[2];
    for x in xs:  # (1) x=2; (2) __return__=None;
        if x < 0:
            return x
