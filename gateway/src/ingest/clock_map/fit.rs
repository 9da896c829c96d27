//! A line through the exchanges of a connection.

use super::Rate;

/// What part of their lateness exchanges may be off by together: half, if it is all on one way.
const ONE_SIDED: f64 = 0.5;

/// A straight line through exchanges, by weighted least squares: offset, rate, and what part of their lateness late ones
/// are off by. What is in the way of a line is mostly in the way of one direction, so that late exchanges are all wrong
/// to the same side; which one it is, they tell together.
pub(super) struct Fit {
    sums: [[f64; 3]; 3],
    right: [f64; 3],
}

impl Fit {
    /// Before the first exchange: what is known of the rate.
    pub(super) fn new(ppb: f64, sigma_ppb: f64) -> Fit {
        let (rate, side) = (sigma_ppb.powi(-2), ONE_SIDED.powi(-2));
        Fit { sums: [[0.0; 3], [0.0, rate, 0.0], [0.0, 0.0, side]], right: [0.0, rate * ppb, 0.0] }
    }

    /// An exchange `x` seconds after the latest, whose round trip took `late` more than the shortest, and that is `y` off.
    pub(super) fn add(&mut self, x: f64, late: f64, y: f64, variance: f64) {
        let terms = [1.0, x, late];
        for (row, a) in terms.iter().enumerate() {
            self.right[row] += a * y / variance;
            for (column, b) in terms.iter().enumerate() {
                self.sums[row][column] += a * b / variance;
            }
        }
    }

    /// Offset at the latest exchange, in ns, and the rate.
    pub(super) fn solve(&self) -> (f64, Rate) {
        let m = &self.sums;
        let minor = |r: usize, c: usize| {
            let (r, c) = ([(r + 1) % 3, (r + 2) % 3], [(c + 1) % 3, (c + 2) % 3]);
            m[r[0]][c[0]] * m[r[1]][c[1]] - m[r[0]][c[1]] * m[r[1]][c[0]]
        };
        let determinant: f64 = (0..3).map(|at| m[0][at] * minor(0, at)).sum();
        let solution = |at: usize| -> f64 {
            (0..3).map(|row| minor(row, at) * self.right[row]).sum::<f64>() / determinant
        };
        (solution(0), Rate { ppb: solution(1), sigma_ppb: (minor(1, 1) / determinant).sqrt() })
    }
}
