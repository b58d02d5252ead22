# test: assert f(1) == 0
# got: 1
# status: ok
import threading


def work(n):  # (2) n=1;
    n += 1  # (3) n=2; (4) __return__=None;


def f(n):  # (0) n=1;
    thread = threading.Thread(target=work, args=(n,))  # (1) thread=<Thread>;
    thread.start()
    thread.join()
    work(n)
    return n  # (5) __return__=1;
# ... other threads than the main one were not traced
