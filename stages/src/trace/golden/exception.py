# test: assert f({"a": 1}, "b") == 0
# got: KeyError('b')
# status: ok
def get(d, key):  # (2) d={'a': 1}; key='b';
    return d[key]  # (3) __exception__=KeyError('b');


def f(d, key):  # (0) d={'a': 1}; key='b';
    n = len(d)  # (1) n=1;
    return get(d, key) + n
