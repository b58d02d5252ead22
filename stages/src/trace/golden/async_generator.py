# test: assert f(2) == 0
# got: [1, 2, [2]]
# status: ok
async def later(n):  # (5) n=0; (12) n=1;
    return n + 1  # (6) __return__=1; (13) __return__=2;


async def numbers(n):  # (3) n=2;
    for i in range(n):  # (4) i=0; (11) i=1;
        j = await later(i)  # (7) j=1; (14) j=2;
        yield j  # (8) __yield__=1; (15) __yield__=2;
    yield [n]  # (18) __yield__=[2];


async def total(n):  # (1) n=2;
    found = []  # (2) found=[];
    async for v in numbers(n):  # (9) v=1; (16) v=2; (19) v=[2];
        found.append(v)  # (10) found=[1]; (17) found=[1, 2]; (20) found=[1, 2, [2]];
    return found  # (21) __return__=[1, 2, [2]];


def f(n):  # (0) n=2;
    try:
        total(n).send(None)  # (22) __exception__=StopIteration([1, 2, [2]]);
    except StopIteration as end:  # (23) end=StopIteration([1, 2, [2]]);
        return end.value  # (24) __return__=[1, 2, [2]];
