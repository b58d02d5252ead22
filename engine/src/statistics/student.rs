//! Student's t distribution.

/// The 97.5 % quantile of Student's t with `freedom` degrees of freedom, at least 1.
pub(super) fn quantile(freedom: u32) -> f64 {
    let (mut low, mut high) = (1.9, 13.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if within(middle, freedom) < 0.95 { low = middle } else { high = middle }
    }
    high
}

/// P(−t < T < t), for whole degrees of freedom a finite sum (Abramowitz and Stegun, 26.7.3 and 26.7.4).
fn within(t: f64, freedom: u32) -> f64 {
    let angle = (t / f64::from(freedom).sqrt()).atan();
    let (sin, cos) = angle.sin_cos();
    let is_odd = freedom % 2 == 1;
    // The terms are cos^j with j odd or even, the factors (j − 1)/j or j/(j + 1).
    let mut term = if is_odd { cos } else { 1.0 };
    let mut sum = 0.0;
    let mut power = if is_odd { 1 } else { 0 };
    while power + 2 <= freedom {
        sum += term;
        power += 2;
        term *= cos * cos * f64::from(power - 1) / f64::from(power);
    }
    if is_odd { (angle + sin * sum) * std::f64::consts::FRAC_2_PI } else { sin * sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_scipys() {
        let expected = [
            (1, 12.706_204_736_174_694),
            (2, 4.302_652_729_749_462),
            (3, 3.182_446_305_283_707_8),
            (4, 2.776_445_105_197_793_4),
            (9, 2.262_157_162_798_205),
            (29, 2.045_229_642_132_703),
            (200, 1.971_896_223_633_908_8),
        ];
        for (freedom, expected) in expected {
            assert!((quantile(freedom) - expected).abs() < 1e-9, "{freedom}: {}", quantile(freedom));
        }
    }
}
