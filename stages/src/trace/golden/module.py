# test: assert x == 0
# got: AttributeError("'int' object has no attribute 'missing'")
# status: ok
import math
from math import pi

x = 1  # (0) x=1;


class Shape:
    sides: int = 4  # (1) sides=4;
    names = ["a"]  # (2) names=['a'];

    def area(self):  # (9) self=Shape();
        return self.sides  # (10) __return__=4;


def scale(k):  # (7) k=2;
    return k * pi  # (8) __return__=6.283185307179586;


for i in range(2):  # (3) i=0; (4) i=1;
    x += i  # (5) x=2;
del i  # (6) i deleted;
x = math.floor(scale(x)) + Shape().area().missing  # (11) __exception__=AttributeError("'int' object has no attribute 'missing'");
