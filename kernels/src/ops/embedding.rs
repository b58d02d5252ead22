//! Token embedding:  `x_t = E[token_t]`;  `dE[token_t] += dx_t`, in the order of the tokens.

use super::bias::Bias;
use crate::memory::{Cpu, Memory};

/// Looking rows up in a table, and adding into them.
pub trait Embedding: Memory {
    /// `x`: (N, C); `table`: (V, C); `tokens`: (N), each below V. Overwrites `x`, or adds into it with `add`.
    fn embedding(&self, x: &mut Self::F32, table: &Self::F32, tokens: &Self::U32, channels: usize, add: bool);
    /// Adds into `dtable`.
    fn embedding_backward(&self, dtable: &mut Self::F32, dx: &Self::F32, tokens: &Self::U32, channels: usize);
}

impl Embedding for Cpu {
    fn embedding(&self, x: &mut [f32], table: &[f32], tokens: &[u32], channels: usize, add: bool) {
        for (x, token) in x.chunks_exact_mut(channels).zip(tokens) {
            self.bias(x, &table[*token as usize * channels..][..channels], add);
        }
    }

    fn embedding_backward(&self, dtable: &mut [f32], dx: &[f32], tokens: &[u32], channels: usize) {
        for (dx, token) in dx.chunks_exact(channels).zip(tokens) {
            let row = &mut dtable[*token as usize * channels..][..channels];
            for (sum, value) in row.iter_mut().zip(dx) {
                *sum += value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;

    #[test]
    fn a_token_met_twice_gets_both_gradients() {
        let (cpu, table) = (Cpu::new(), noise(15, 1, 1.0));
        let (tokens, mut x) = ([4, 0, 4], vec![0.0; 9]);
        cpu.embedding(&mut x, &table, &tokens, 3, false);
        let once = [&table[12..15], &table[0..3], &table[12..15]].concat();
        assert_eq!(x, once);
        cpu.embedding(&mut x, &table, &tokens, 3, true);
        assert!(x.iter().zip(&once).all(|(twice, once)| *twice == once + once));
        let mut gradient = vec![1.0; 15];
        cpu.embedding_backward(&mut gradient, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], &tokens, 3);
        assert_eq!(gradient[12..], [9.0, 11.0, 13.0]);
        assert_eq!(gradient[..4], [5.0, 6.0, 7.0, 1.0]);
    }
}
