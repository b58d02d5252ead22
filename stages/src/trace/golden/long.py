# test: assert f(30) == 0
# got: None
# status: ok
def f(n):  # (0) n=30;
    xs = list(range(n))  # (1) xs=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, ...+10];
    text = "ab" * 100  # (2) text='abababababababababababababababababababababababababababababababababababababab...;
    big = 7 ** 500  # (3) big=<int of 1404 bits>;
    xs[0] = xs  # (4) xs=[<cycle>, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, ...;
    return None  # (5) __return__=None;
