# test: assert f(2) == 0
# got: 8
# status: ok
import contextlib


def add(a, b):  # (1) a=2; b=1; (3) a=2; b=2; ...; (8) a=2; b=2;
    return a + b  # (2) __return__=3; (4) __return__=4; ...; (9) __return__=4;


def f(n):  # (0) n=2;
    """A statement is one step, however many lines and events it has."""
    total = add(
        add(n, 1),
        b=add(
            2, n),
    )  # (7) total=7;
    table = {
        "a": n,
        "b":
            add(n, n),
    }  # (10) table={'a': 2, 'b': 4};
    for i in range(2): total += i  # (11) i=0; (12) total=8; i=1;
    x = 1; y = 2  # (13) x=1; y=2;
    while n: n -= 1  # (14) n=1; (15) n=0;
    while True:
        total -= 1  # (16) total=7; (17) total=6; ...; (20) total=3;
        if (total < 4 and
                total < 9):
            break
    with contextlib.suppress(
        KeyError,
    ) as s:  # (21) s=None;
        table["z"]  # (22) __exception__=KeyError('z');
    match total:
        case 0:
            total = 9
        case _ if (k :=
                   total):  # (23) k=3;
            total = 8  # (24) total=8;
    text = \
        "a" \
        "b"  # (25) text='ab';
    return total  # (26) __return__=8;
