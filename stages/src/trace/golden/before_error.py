# test: assert f([1]) == 0
# got: IndexError('list index out of range')
# status: ok
def f(xs):  # (0) xs=[1];
    xs.append(2) or xs.append(3) or xs[9]  # (1) xs=[1, 2, 3]; (2) __exception__=IndexError('list index out of range');
    return xs
