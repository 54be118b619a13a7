//! Medians and quartiles, and how a count is written.

use std::fmt;

use serde::Serialize;

/// The median of some values, and between what half of them lie.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) quartile_1: f64,
    pub(crate) quartile_3: f64,
}

impl Spread {
    /// None of nothing, or of what is no number.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        values.sort_unstable_by(f64::total_cmp);
        Some(Spread {
            median: quantile(&values, 0.5),
            quartile_1: quantile(&values, 0.25),
            quartile_3: quantile(&values, 0.75),
        })
    }
}

/// Of sorted values, with a straight line between neighbours.
fn quantile(sorted: &[f64], at: f64) -> f64 {
    let place = at * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// A whole number with its thousands marked.
pub(crate) struct Count(pub(crate) f64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:.0}", self.0);
        let mut marked = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                marked.push(',');
            }
            marked.push(digit);
        }
        f.pad(&marked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_quartiles_lie_between_the_values() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0, 5.0]);
        assert_eq!(spread, Some(Spread { median: 3.0, quartile_1: 2.0, quartile_3: 4.0 }));
        let spread = Spread::of([1.0, 2.0]);
        assert_eq!(spread, Some(Spread { median: 1.5, quartile_1: 1.25, quartile_3: 1.75 }));
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN]), None);
    }
}
