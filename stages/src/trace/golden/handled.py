# test: assert f("x") == 1
# got: 0
# status: ok
def f(text):  # (0) text='x';
    try:
        n = int(text)
    except ValueError as error:  # (1) error=ValueError("invalid literal for int() with base 10: 'x'");
        n = 0  # (2) n=0;
    finally:
        done = True  # (3) done=True;
    return n  # (4) __return__=0;
