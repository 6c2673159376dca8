//! The figures of a benchmark, computed from samples.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::rows::{Anchor, Better, Row};

/// Least number of samples of a value that was measured in dom0.
const MIN_SAMPLES: usize = 5;

/// The measured values, by row.
#[derive(Debug, Default, PartialEq)]
pub struct Samples {
    ours: HashMap<String, Vec<f64>>,
    anchors: HashMap<String, Vec<f64>>,
}

impl Samples {
    /// Reads lines "ROW ours|anchor VALUE".
    pub fn parse(text: &str) -> Result<Self> {
        let mut samples = Samples::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let (Some(row), Some(side), Some(value), None) = (words.next(), words.next(), words.next(), words.next())
            else {
                bail!("a sample has three words: {line:?}");
            };
            let value = value.parse().with_context(|| format!("sample {line:?}"))?;
            let values = match side {
                "ours" => &mut samples.ours,
                "anchor" => &mut samples.anchors,
                _ => bail!("a sample is ours or the anchor's: {line:?}"),
            };
            values.entry(row.to_owned()).or_default().push(value);
        }
        samples.ours.retain(|_, values| values.len() >= MIN_SAMPLES);
        samples.anchors.retain(|_, values| values.len() >= MIN_SAMPLES);
        Ok(samples)
    }

    /// Adds a value that needs no second sample.
    pub fn add_ours(&mut self, row: &str, value: f64) {
        self.ours.insert(row.to_owned(), vec![value]);
    }

    /// Adds all of `more`.
    pub fn extend(&mut self, more: Samples) {
        self.ours.extend(more.ours);
        self.anchors.extend(more.anchors);
    }
}

/// One entry of `target/bench.json`.
#[derive(Debug, PartialEq, Serialize)]
pub struct Figure {
    name: &'static str,
    /// Median.
    ours: f64,
    /// Median.
    anchor: Option<f64>,
    anchor_name: Option<&'static str>,
    /// Ours beside the anchor's: below 1 is better than the anchor.
    ratio: Option<f64>,
    goal: Option<f64>,
    unit: &'static str,
    /// (largest - smallest) / median of the samples, ours or the anchor's, whichever is more.
    spread: f64,
}

impl Figure {
    /// The figure of `row`, if there are enough samples.
    pub fn of(row: &Row, samples: &Samples) -> Option<Self> {
        let (ours, our_spread) = median_and_spread(samples.ours.get(row.name)?);
        let (anchor, anchor_name, anchor_spread) = match row.anchor {
            Anchor::None => (None, None, 0.0),
            Anchor::Fixed(value, name) => (Some(value), Some(name), 0.0),
            Anchor::Measured(name) => {
                let (median, spread) = median_and_spread(samples.anchors.get(row.name)?);
                (Some(median), Some(name), spread)
            }
        };
        let ratio = anchor.map(|anchor| match row.better {
            Better::Less => ours / anchor,
            Better::More => anchor / ours,
        });
        let spread = our_spread.max(anchor_spread);
        Some(Figure { name: row.name, ours, anchor, anchor_name, ratio, goal: row.goal, unit: row.unit, spread })
    }

    /// True if it meets the row's goal; `None` if the row has no goal.
    fn meets_goal(&self) -> Option<bool> {
        self.goal.map(|goal| self.ratio.unwrap_or(self.ours) <= goal)
    }
}

/// The figures for a reader.
pub fn table(figures: &[Figure]) -> String {
    let mut table = format!(
        "{:<16} {:>10} {:>10} {:<11} {:>7} {:>8}  {:<4} {:>7}  anchor\n",
        "row", "ours", "anchor", "unit", "ratio", "goal", "met", "spread"
    );
    for figure in figures {
        let or_dash = |value: Option<f64>| value.map_or("-".to_owned(), short);
        let met = figure.meets_goal().map_or("-", |met| if met { "yes" } else { "no" });
        table += &format!(
            "{:<16} {:>10} {:>10} {:<11} {:>7} {:>8}  {met:<4} {:>6.1}%  {}\n",
            figure.name,
            short(figure.ours),
            or_dash(figure.anchor),
            figure.unit,
            figure.ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.3}")),
            or_dash(figure.goal),
            figure.spread * 100.0,
            figure.anchor_name.unwrap_or("-"),
        );
    }
    table
}

/// A value with a useful number of digits.
fn short(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.3}"),
        10.0..1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The median of `samples`, which are not empty, and their range in parts of it.
fn median_and_spread(samples: &[f64]) -> (f64, f64) {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
    (median, (sorted[sorted.len() - 1] - sorted[0]) / median)
}

#[cfg(test)]
mod tests {
    use super::super::rows::Source;
    use super::*;

    const ROW: Row = Row {
        name: "r",
        unit: "ms",
        goal: Some(0.5),
        better: Better::Less,
        anchor: Anchor::Measured("peer"),
        source: Source::Dom0(&[]),
    };

    fn samples() -> Samples {
        let ours = [2, 1, 3, 2, 2].map(|value| format!("r ours {value}\n"));
        let anchor = [4, 4, 5, 4, 4].map(|value| format!("r anchor {value}.0\n"));
        Samples::parse(&(ours.concat() + &anchor.concat())).unwrap()
    }

    #[test]
    fn a_cost_below_the_anchors_is_below_one() {
        let figure = Figure::of(&ROW, &samples()).unwrap();
        assert_eq!((figure.ours, figure.anchor, figure.ratio), (2.0, Some(4.0), Some(0.5)));
        assert_eq!(figure.spread, 1.0);
        assert_eq!(figure.meets_goal(), Some(true));
    }

    #[test]
    fn a_throughput_below_the_anchors_is_above_one() {
        let figure = Figure::of(&Row { better: Better::More, ..ROW }, &samples()).unwrap();
        assert_eq!(figure.ratio, Some(2.0));
        assert_eq!(figure.meets_goal(), Some(false));
    }

    #[test]
    fn without_an_anchor_the_goal_is_absolute() {
        let row = Row { anchor: Anchor::None, goal: Some(2.0), ..ROW };
        let figure = Figure::of(&row, &samples()).unwrap();
        assert_eq!((figure.anchor, figure.anchor_name, figure.ratio), (None, None, None));
        assert_eq!(figure.meets_goal(), Some(true));
    }

    #[test]
    fn json_has_the_promised_members() {
        let figure = Figure::of(&ROW, &samples()).unwrap();
        assert_eq!(
            serde_json::to_string(&figure).unwrap(),
            r#"{"name":"r","ours":2.0,"anchor":4.0,"anchor_name":"peer","ratio":0.5,"goal":0.5,"unit":"ms","spread":1.0}"#
        );
    }

    #[test]
    fn too_few_samples_are_no_figure() {
        let few = Samples::parse("r ours 1\nr ours 1\nr ours 1\nr ours 1\n").unwrap();
        assert_eq!(Figure::of(&ROW, &few), None);
        assert_eq!(Figure::of(&ROW, &Samples::default()), None);
    }

    #[test]
    fn bad_samples_are_refused() {
        for line in ["r ours", "r ours x", "r theirs 1", "r ours 1 2"] {
            assert!(Samples::parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median_and_spread(&[1.0, 2.0, 4.0, 3.0]).0, 2.5);
    }
}
