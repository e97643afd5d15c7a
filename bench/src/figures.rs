//! Several runs of one side, as one figure and its spread. Pure.

/// The middle of `runs`, and the mean of the middle two where their number is even; `None` of none.
pub fn median(runs: &[f64]) -> Option<f64> {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some((sorted[sorted.len() / 2 - 1] + upper) / 2.0)
}

/// The least and the greatest; `None` of none.
pub fn spread(runs: &[f64]) -> Option<(f64, f64)> {
    let least = runs.iter().copied().min_by(f64::total_cmp)?;
    let greatest = runs.iter().copied().max_by(f64::total_cmp)?;
    Some((least, greatest))
}

/// Three significant digits at least, and never more decimals than that takes.
pub fn shown(figure: f64) -> String {
    let decimals = match figure.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{figure:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_heed_one_bad_run() {
        assert_eq!(median(&[3.0, 1.0, 900.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 900.0]), Some(3.0));
        assert_eq!(median(&[]), None);
        assert_eq!(spread(&[3.0, 1.0, 900.0]), Some((1.0, 900.0)));
    }

    #[test]
    fn figures_have_the_digits_that_matter() {
        let table = [(1234.5, "1234"), (58.25, "58.2"), (2.0, "2.00"), (0.0371, "0.037"), (0.0, "0.000")];
        for (figure, text) in table {
            assert_eq!(shown(figure), text);
        }
    }
}
