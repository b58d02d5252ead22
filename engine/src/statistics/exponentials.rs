//! The distribution of a weighted sum of exponential variables.

/// A weight, and how many variables have it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weight {
    pub value: f64,
    pub count: u64,
}

/// P(Σ wᵢ Eᵢ ≤ 0) for independent standard exponentials Eᵢ, to about 12 digits.
///
/// The smaller tail is the contour integral (1/2πi) ∫ exp(K(s))/s ds, K(s) = −Σ ln(1 − wᵢ s), on the vertical line
/// through the saddle point of the integrand (Daniels 1954, doi:10.1214/aoms/1177728652), by the trapezoidal rule in v
/// with Im s = σ sinh v. No singularity is nearer to the saddle point than σ, so the rule's error falls as
/// exp(−π²/(2 [`STEP`])) or faster.
///
/// Only +, −, ×, ÷ and √ are used, which are the same on every machine; a system's `exp` and `ln` are not.
pub(super) fn below_zero(weights: &[Weight]) -> f64 {
    let largest = weights.iter().map(|weight| weight.value).fold(f64::NEG_INFINITY, f64::max);
    let smallest = weights.iter().map(|weight| weight.value).fold(f64::INFINITY, f64::min);
    if largest <= 0.0 {
        return 1.0;
    }
    if smallest >= 0.0 {
        return 0.0;
    }
    let mean: f64 = weights.iter().map(|weight| weight.value * weight.count as f64).sum();
    if mean < 0.0 {
        return 1.0 - upper_tail(weights, largest);
    }
    let negated: Vec<Weight> = weights.iter().map(|weight| Weight { value: -weight.value, ..*weight }).collect();
    upper_tail(&negated, -smallest)
}

/// Step of the trapezoidal rule in v.
const STEP: f64 = 0.15;
/// `exp(STEP)`.
const STEP_FACTOR: f64 = 1.161_834_242_728_283;
/// What is left out at the contour's end, relative to its middle.
const NEGLIGIBLE: f64 = 1e-13;

/// P(Σ wᵢ Eᵢ > 0), where the mean of the sum is not positive and the largest weight is.
fn upper_tail(weights: &[Weight], largest: f64) -> f64 {
    let saddle = saddle_point(weights, largest);
    let curvature: f64 = weights.iter().map(|weight| weight.count as f64 * square(ratio(weight, saddle))).sum();
    let sigma = 1.0 / (curvature + square(1.0 / saddle)).sqrt();
    let mut integral = 0.5;
    let mut growth = 1.0;
    loop {
        growth *= STEP_FACTOR;
        let (sinh, cosh) = ((growth - 1.0 / growth) / 2.0, (growth + 1.0 / growth) / 2.0);
        let height = sigma * sinh;
        let mut product = Complex { re: 1.0, im: height / saddle };
        for weight in weights {
            let factor = Complex { re: 1.0, im: -height * ratio(weight, saddle) };
            product = product.times(factor.to_the(weight.count));
        }
        let norm = square(product.re) + square(product.im);
        // Overflow: nothing is left of its inverse.
        if !norm.is_finite() {
            break;
        }
        integral += cosh * product.re / norm;
        if square(cosh) < square(NEGLIGIBLE) * norm {
            break;
        }
    }
    let mut height = Scaled { mantissa: 1.0, exponent: 0 };
    for weight in weights {
        height = height.over(Scaled { mantissa: 1.0 - saddle * weight.value, exponent: 0 }.to_the(weight.count));
    }
    height.value() * (sigma / saddle) * STEP * integral / std::f64::consts::PI
}

/// Where exp(K(s))/s is least for 0 < s < 1/`largest`: its logarithm is convex there, and grows without bound at both ends.
fn saddle_point(weights: &[Weight], largest: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0 / largest);
    let mut saddle = high / 2.0;
    // Any point nearby does: it is the contour's place, not the result.
    for _ in 0..60 {
        let (mut slope, mut curvature) = (-1.0 / saddle, square(1.0 / saddle));
        for weight in weights {
            let ratio = ratio(weight, saddle);
            slope += weight.count as f64 * ratio;
            curvature += weight.count as f64 * square(ratio);
        }
        if slope > 0.0 {
            high = saddle
        } else {
            low = saddle
        }
        let next = saddle - slope / curvature;
        let next = if low < next && next < high { next } else { f64::midpoint(low, high) };
        let moved = (next - saddle).abs();
        saddle = next;
        if moved <= 1e-6 * saddle.min(1.0 / largest - saddle) {
            break;
        }
    }
    saddle
}

fn ratio(weight: &Weight, saddle: f64) -> f64 {
    weight.value / (1.0 - saddle * weight.value)
}

fn square(value: f64) -> f64 {
    value * value
}

/// `base` to the power of `exponent`, by squaring: a system's `pow` is not the same everywhere.
fn power<T: Copy>(base: T, exponent: u64, one: T, times: impl Fn(T, T) -> T) -> T {
    let (mut result, mut base, mut exponent) = (one, base, exponent);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = times(result, base);
        }
        base = times(base, base);
        exponent >>= 1;
    }
    result
}

#[derive(Clone, Copy)]
struct Complex {
    re: f64,
    im: f64,
}

impl Complex {
    fn times(self, other: Self) -> Self {
        Self { re: self.re * other.re - self.im * other.im, im: self.re * other.im + self.im * other.re }
    }

    fn to_the(self, exponent: u64) -> Self {
        power(self, exponent, Self { re: 1.0, im: 0.0 }, Self::times)
    }
}

/// A positive number far outside the range of `f64`: `mantissa` · 2^(256 · `exponent`).
#[derive(Clone, Copy)]
struct Scaled {
    mantissa: f64,
    exponent: i64,
}

/// 2^256.
const UNIT: f64 = f64::from_bits((1023 + 256) << 52);

impl Scaled {
    fn normal(self) -> Self {
        let Self { mantissa, exponent } = self;
        match mantissa {
            _ if mantissa >= UNIT => Self { mantissa: mantissa / UNIT, exponent: exponent + 1 },
            _ if mantissa < 1.0 / UNIT => Self { mantissa: mantissa * UNIT, exponent: exponent - 1 },
            _ => self,
        }
    }

    fn times(self, other: Self) -> Self {
        Self { mantissa: self.mantissa * other.mantissa, exponent: self.exponent + other.exponent }.normal()
    }

    fn over(self, other: Self) -> Self {
        Self { mantissa: self.mantissa / other.mantissa, exponent: self.exponent - other.exponent }.normal()
    }

    fn to_the(self, exponent: u64) -> Self {
        power(self, exponent, Self { mantissa: 1.0, exponent: 0 }, Self::times)
    }

    fn value(self) -> f64 {
        match self.exponent {
            0 => self.mantissa,
            1 => self.mantissa * UNIT,
            -1 => self.mantissa / UNIT,
            below if below < 0 => 0.0,
            _ => f64::INFINITY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(weights: &[(f64, u64)]) -> Vec<Weight> {
        weights.iter().map(|&(value, count)| Weight { value, count }).collect()
    }

    #[test]
    fn two_exponentials_against_each_other_have_a_closed_form() {
        // P(a E₁ ≤ b E₂) = b / (a + b).
        for (a, b) in [(1.0, 1.0), (3.0, 0.5), (1e-6, 2.0), (2.0, 1e-6)] {
            let probability = below_zero(&weights(&[(a, 1), (-b, 1)]));
            assert!((probability - b / (a + b)).abs() < 1e-12, "{a} {b}: {probability}");
        }
    }

    #[test]
    fn a_share_of_exponentials_is_a_beta_variable() {
        // P(Beta(k, m) ≤ t) is that of k weights of 1 − t and m of −t; the values are scipy 1.17.1's beta.cdf(t, k, m).
        let expected = [
            (1, 20, 0.05, 0.641_514_077_591_457_8),
            (2, 19, 0.4, 0.999_475_950_623_591),
            (19, 2, 0.8, 0.069_175_290_276_410_88),
            (300, 700, 0.27, 0.017_705_797_143_575_213),
            (4000, 1000, 0.81, 0.962_744_872_670_145_9),
        ];
        for (k, m, t, expected) in expected {
            let probability = below_zero(&weights(&[(1.0 - t, k), (-t, m)]));
            assert!((probability - expected).abs() < 1e-11, "{k} {m} {t}: {probability}");
        }
    }

    #[test]
    fn sums_of_one_sign_are_certain() {
        assert_eq!(below_zero(&weights(&[(1.0, 3), (0.0, 1)])), 0.0);
        assert_eq!(below_zero(&weights(&[(-1.0, 3), (0.0, 1)])), 1.0);
        assert_eq!(below_zero(&weights(&[(0.0, 2)])), 1.0);
    }
}
