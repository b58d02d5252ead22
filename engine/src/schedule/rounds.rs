//! What a loop's metric decides: when it stops, and which round was best.

/// Whether the rounds end here: `patience` of them brought no new maximum. A round without a value brought none.
pub(crate) fn stops_after(values: &[Option<f64>], patience: usize) -> bool {
    let since_best = best(values).map_or(values.len(), |best| values.len() - 1 - best);
    since_best >= patience.max(1)
}

/// The round with the highest value, the earliest of several; `None` if no round has a value.
pub(crate) fn best(values: &[Option<f64>]) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (round, value) in values.iter().enumerate() {
        if let Some(value) = value.filter(|value| !value.is_nan())
            && best.is_none_or(|(_, highest)| value > highest)
        {
            best = Some((round, value));
        }
    }
    best.map(|(round, _)| round)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_of_equal_rounds_is_best() {
        assert_eq!(best(&[Some(0.1), Some(0.4), None, Some(0.4), Some(f64::NAN)]), Some(1));
        assert_eq!(best(&[None, Some(f64::NAN)]), None);
    }

    #[test]
    fn patience_counts_the_rounds_since_the_maximum() {
        let values = [Some(0.1), Some(0.4), Some(0.3), Some(0.4)];
        let stops: Vec<bool> = (1..=4).map(|rounds| stops_after(&values[..rounds], 2)).collect();
        assert_eq!(stops, [false, false, false, true]);
        assert!(stops_after(&[None], 1));
    }
}
