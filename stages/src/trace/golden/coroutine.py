# test: assert f() == 0
# got: 2
# status: ok
async def step(n):  # (1) n=1;
    m = n + 1  # (2) m=2;
    return m  # (3) __return__=2;


async def two(n):  # (0) n=1;
    a = await step(n)  # (4) a=2;
    return a  # (5) __return__=2;


def echo():
    got = yield 1  # (10) __yield__=1; (12) got='x';
    try:
        more = yield got  # (13) __yield__='x';
    finally:
        done = True  # (15) done=True;


def delegate():
    result = yield from echo()  # (11) __yield__=1; (14) __yield__='x';


def f():
    try:
        two(1).send(None)  # (6) __exception__=StopIteration(2);
    except StopIteration as end:  # (7) end=StopIteration(2);
        value = end.value  # (8) value=2;
    g = delegate()  # (9) g=<generator>;
    next(g)
    g.send("x")
    g.close()
    return value  # (16) __return__=2;
