//! What the tests of the operations share: seeded inputs, comparison with float64, finite differences.

use crate::random;

/// n numbers close to normal, of the given spread.
pub(crate) fn noise(n: usize, seed: u64, spread: f32) -> Vec<f32> {
    (0..n).map(|i| random::normal(seed, i as u64) * spread).collect()
}

/// Panics at the first element that differs by more than `tolerance`, relative to 1 or to the value.
pub(crate) fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*f) - e).abs();
        assert!(error <= tolerance * e.abs().max(1.0), "element {i}: {f} instead of {e}");
    }
}

/// The float64 gradient of `f` at `x` by central differences.
pub(crate) fn finite_differences(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let step = 1e-5;
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let kept = x[i];
            x[i] = kept + step;
            let above = f(&x);
            x[i] = kept - step;
            let below = f(&x);
            x[i] = kept;
            (above - below) / (2.0 * step)
        })
        .collect()
}

/// The same numbers in float64.
pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|v| f64::from(*v)).collect()
}

/// Σ weights·values: a scalar whose gradient in `values` is `weights`.
pub(crate) fn weighted(values: &[f64], weights: &[f32]) -> f64 {
    values.iter().zip(weights).map(|(v, w)| v * f64::from(*w)).sum()
}

/// The same numbers bit for bit.
pub(crate) fn assert_same_bits(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (i, (x, y)) in a.iter().zip(b).enumerate() {
        assert!(x.to_bits() == y.to_bits(), "element {i}: {x:e} and {y:e}");
    }
}
