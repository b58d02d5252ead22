# test: assert f(2) == 0
# got: 8
# status: ok
import functools


def twice(g):
    @functools.wraps(g)
    def wrapped(*args):  # (0) args=(2,);
        return g(*args) * 2  # (6) __return__=8;

    return wrapped


@twice
def f(n,
      m=3):  # of old  # (1) n=2; m=3;
    text = """a
# (9) no comment
b"""; k = (n +
           m)  # (2) text='a\n# (9) no comment\nb'; k=5;
    if k: k -= 1  # (3) k=4;
    total = sum(i * k
                for i in range(n))  # (4) total=4;
    return [
        total,
        text,
    ][0]  # (5) __return__=4;
