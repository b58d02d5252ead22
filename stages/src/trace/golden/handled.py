# test: assert f("x") == 1
# got: 0
# status: ok
def f(text):  # (0) text='x';
    try:
        n = int(text)  # (1) __exception__=ValueError("invalid literal for int() with base 10: 'x'");
    except ValueError as error:  # (2) error=ValueError("invalid literal for int() with base 10: 'x'");
        n = 0  # (3) n=0;
    finally:
        done = True  # (4) done=True;
    return n  # (5) __return__=0;
