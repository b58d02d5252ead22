"""The values that the tests of this folder expect, computed another way: python3 expected.py (scipy 1.17, mpmath 1.3)."""

from mpmath import findroot, mp, mpf, sqrt
from scipy.optimize import brentq
from scipy.stats import beta, t

mp.dps = 60


def mid_p(k, n):
    """Clopper-Pearson with mid-p: k of n."""
    below = lambda x: ((beta.cdf(x, k, n - k + 1) if k else 1) + (beta.cdf(x, k + 1, n - k) if k < n else 0)) / 2
    above = lambda x: ((beta.sf(x, k, n - k + 1) if k else 0) + (beta.sf(x, k + 1, n - k) if k < n else 1)) / 2
    low = 0.0 if k == 0 else brentq(lambda x: below(x) - 0.025, 0, k / n, xtol=1e-14)
    high = 1.0 if k == n else brentq(lambda x: above(x) - 0.025, k / n, 1, xtol=1e-14)
    return k / n, low, high


def clustered(sums, sizes, low, high):
    """Distinct clusters: partial fractions of the sum of exponentials, in 60 digits."""
    sums, sizes = [mpf(x) for x in sums], [mpf(x) for x in sizes]
    means = sorted(s / m for s, m in zip(sums, sizes))
    n = len(means)
    median = (means[(n - 1) // 2] + means[n // 2]) / 2
    if low is None:
        low, high = means[0] - (means[-1] - means[0]), means[-1] + (means[-1] - means[0])
    under, over = sum(x < median for x in means), sum(x > median for x in means)
    low = means[0] - (means[0] - low) / sqrt(under + 1)
    high = means[-1] + (high - means[-1]) / sqrt(over + 1)
    size = sum(sizes) / n

    def above(x, end):
        weights = [s - x * m for s, m in zip(sums, sizes)] + [(end - x) * size]
        total = mpf(0)
        for i, w in enumerate(weights):
            if w > 0:
                product = mpf(1)
                for j, v in enumerate(weights):
                    if j != i:
                        product *= w / (w - v)
                total += product
        return total

    mixed = lambda x: (above(x, low) + above(x, high)) / 2
    value = sum(sums) / sum(sizes)
    # Off the simple fractions, at which two weights meet.
    ends = [findroot(lambda x: mixed(x) - p, (a + mpf("1e-7"), value + mpf("1e-9")), solver="anderson", tol=1e-30)
            for p, a in ((mpf("0.975"), low), (mpf("0.025"), high))]
    return tuple(float(x) for x in (value, *ends))


for k, n in ((0, 20), (1, 20), (10, 20), (20, 20), (0, 1), (1, 1), (1, 2), (8, 400), (390, 400)):
    print("mid-p", k, n, mid_p(k, n))
print("paired", clustered([0.5, 0, -0.25, 0.125, -0.0625, 0.75, 0.25, 0.375], [1] * 8, -1, 1))
print("sizes", clustered([2, 0, 5, 1, 3], [4, 2, 5, 1.5, 8], 0, 1))
print("two", clustered([1, 1], [2, 3], 0, 1))
print("unbounded", clustered([3, 7, 1, 12, 4], [1] * 5, None, None))
print("beta", [(k, m, x, float(beta.cdf(x, k, m)))
               for k, m, x in ((1, 20, 0.05), (2, 19, 0.4), (19, 2, 0.8), (300, 700, 0.27), (4000, 1000, 0.81))])
print("t", [(d, float(t.ppf(0.975, d))) for d in (1, 2, 3, 4, 9, 29, 200)])
