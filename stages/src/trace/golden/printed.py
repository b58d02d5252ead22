# test: assert f("a") == 0
# got: 1
# status: ok
import sys


def f(text):  # (0) text='a';
    print(text, 1)  # (1) __out__='a 1\n';
    for i in range(2):  # (2) i=0; (4) i=1;
        sys.stderr.write("e")  # (3) __out__='e'; (5) __out__='e';
    return i  # (6) __return__=1;
