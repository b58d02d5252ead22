//! The bias of a linear layer:  `y_n = b`, or `y_n += b` under a residual;  `db += Σ_n dy_n`, in the order of the rows.
//!
//! It comes before the matrix product, which then adds to it: an element stays one chain of multiply-adds.

use crate::memory::{Cpu, Memory};

/// Putting one vector under every row.
pub trait Bias: Memory {
    /// `y`: (N, O); `b`: (O). Overwrites `y`, or adds into it with `add`.
    fn bias(&self, y: &mut Self::F32, b: &Self::F32, add: bool);
    /// Adds the rows of `dy` (N, O) into `db` (O).
    fn bias_backward(&self, db: &mut Self::F32, dy: &Self::F32);
}

impl Bias for Cpu {
    fn bias(&self, y: &mut [f32], b: &[f32], add: bool) {
        for y in y.chunks_exact_mut(b.len()) {
            if add {
                y.iter_mut().zip(b).for_each(|(y, b)| *y += b);
            } else {
                y.copy_from_slice(b);
            }
        }
    }

    fn bias_backward(&self, db: &mut [f32], dy: &[f32]) {
        for dy in dy.chunks_exact(db.len()) {
            db.iter_mut().zip(dy).for_each(|(db, dy)| *db += dy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, finite_differences, noise, weighted, wide};

    #[test]
    fn every_row_gets_it_and_gives_its_gradient_back() {
        let (rows, outputs) = (4, 5);
        let (x, b, dy) = (noise(rows * outputs, 1, 1.0), noise(outputs, 2, 1.0), noise(rows * outputs, 3, 1.0));
        let reference =
            |b: &[f64]| -> Vec<f64> { x.iter().zip(b.iter().cycle()).map(|(x, b)| f64::from(*x) + b).collect() };
        let mut y = x.clone();
        Cpu::new().bias(&mut y, &b, true);
        assert_close(&y, &reference(&wide(&b)), 1e-6);
        Cpu::new().bias(&mut y, &b, false);
        assert_eq!(y, b.repeat(rows));
        let mut db = vec![0.0; outputs];
        Cpu::new().bias_backward(&mut db, &dy);
        assert_close(&db, &finite_differences(&wide(&b), |b| weighted(&reference(b), &dy)), 1e-5);
    }
}
