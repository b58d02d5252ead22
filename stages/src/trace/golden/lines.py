# test: assert f(2) == 0
# got: 8
# status: ok
import functools


def twice(g):
    @functools.wraps(g)
    def wrapped(*args):  # (0) args=(2,);
        return g(*args) * 2  # (7) __return__=8;

    return wrapped


@twice
def f(n,
      m=3):  # of old  # (1) n=2; m=3;
    text = """a
# (9) no comment
b"""; k = (n +
           m)  # (2) text='a\n# (9) no comment\nb'; (3) k=5;
    if k: k -= 1  # (4) k=4;
    total = sum(i * k
                for i in range(n))  # (5) total=4;
    return [
        total,
        text,
    ][0]  # (6) __return__=4;
