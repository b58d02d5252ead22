# test: assert f(0) == 0
# got: 
# status: truncated
def f(n):  # (0) n=0;
    for i in range(3): n += i  # (1) i=0; (2) n=1; i=1; (3) n=3; i=2;
    while n > 1: n -= 1  # (4) n=2; (5) n=1;
    for i in range(2): [
        n for i in range(3)]  # (6) i=1;
    while True: n += 1  # (7) n=2; (8) n=3; ...; (997) n=992;
# ... stopped after 1000 statements
