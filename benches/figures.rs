//! Figures of one case, their ranks, their targets, and what the books of the writer said. Runs nothing.

use serde_json::{Value, json};

/// What is measured in one line of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    /// Its name, with the case.
    pub(crate) name: &'static str,
    /// Seconds, milliseconds, MiB or percent of a core.
    pub(crate) unit: &'static str,
    /// Digits behind the point.
    pub(crate) digits: usize,
    /// What it should stay below.
    pub(crate) target: Target,
}

/// What the figures should stay below.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// Nothing was promised.
    None,
    /// The median and the 95th percentile.
    Ranks(f64, f64),
    /// Every single one.
    Below(f64),
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) measure: Measure,
    pub(crate) figures: Vec<f64>,
}

/// What the writer's books and the watcher said at the end of a case.
#[derive(Clone, Debug)]
pub(crate) struct Books {
    /// Acknowledged, and gone.
    pub(crate) lost: usize,
    /// There twice, or there although refused.
    pub(crate) false_rows: usize,
    /// Refused, or left without an answer.
    pub(crate) errors: usize,
    /// Moments with two writable primaries.
    pub(crate) overlaps: usize,
    /// Whether the mode promises that nothing is lost.
    pub(crate) promised: bool,
}

/// What came of one case.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) case: &'static str,
    pub(crate) rows: Vec<Row>,
    /// `None` where nobody wrote.
    pub(crate) books: Option<Books>,
    /// The runs that failed, and why.
    pub(crate) faults: Vec<String>,
}

impl Row {
    pub(crate) fn new(measure: Measure) -> Self {
        Row { measure, figures: Vec::new() }
    }

    /// The smallest figure that `percent` of all do not exceed; `None` without figures. With few figures the 95th
    /// percentile is the largest.
    pub(crate) fn rank(&self, percent: usize) -> Option<f64> {
        let mut sorted = self.figures.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    }

    /// Whether the target was met; `None` without a target or without figures.
    pub(crate) fn is_met(&self) -> Option<bool> {
        match self.measure.target {
            Target::None => None,
            Target::Ranks(half, most) => Some(self.rank(50)? <= half && self.rank(95)? <= most),
            Target::Below(limit) => Some(self.rank(100)? < limit),
        }
    }

    /// Its name and its median.
    pub(crate) fn summary(&self) -> String {
        let half = self.rank(50).map_or_else(|| "no figures".to_owned(), |half| self.with_unit(half));
        format!("{}: {half}", self.measure.name)
    }

    /// One figure with its unit.
    pub(crate) fn with_unit(&self, figure: f64) -> String {
        format!("{figure:.*} {}", self.measure.digits, self.measure.unit)
    }
}

impl Books {
    fn are_good(&self) -> bool {
        (self.lost == 0 || !self.promised) && self.false_rows == 0 && self.overlaps == 0
    }
}

impl Outcome {
    /// A case that did not even begin.
    pub(crate) fn broken(case: &'static str, fault: &anyhow::Error) -> Self {
        let mut outcome = Outcome { case, rows: Vec::new(), books: None, faults: Vec::new() };
        outcome.failed(format!("{fault:#}"));
        outcome
    }

    /// Takes note of a run that failed, and says so.
    pub(crate) fn failed(&mut self, fault: String) {
        println!("  failed: {fault}");
        self.faults.push(fault);
    }

    /// Whether every run succeeded and every promise was kept. A missed target is no fault: machines differ.
    pub(crate) fn is_good(&self) -> bool {
        self.faults.is_empty() && self.books.as_ref().is_none_or(Books::are_good)
    }

    /// Everything, with each single figure.
    pub(crate) fn to_json(&self) -> Value {
        let row =
            |row: &Row| json!({"name": row.measure.name, "unit": row.measure.unit, "figures": row.figures});
        let books = self.books.as_ref().map(|books| {
            json!({
                "lost": books.lost,
                "false_rows": books.false_rows,
                "errors": books.errors,
                "overlaps": books.overlaps,
            })
        });
        let rows: Vec<Value> = self.rows.iter().map(row).collect();
        json!({"case": self.case, "rows": rows, "books": books, "faults": self.faults})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: Measure = Measure { name: "gap", unit: "s", digits: 2, target: Target::Ranks(0.5, 1.0) };

    fn row(figures: &[f64]) -> Row {
        Row { measure: SECONDS, figures: figures.to_vec() }
    }

    #[test]
    fn ranks_are_figures_that_were_measured() {
        let ten = row(&[0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.6, 0.4, 0.5, 1.0]);
        assert_eq!((ten.rank(0), ten.rank(50), ten.rank(95)), (Some(0.1), Some(0.5), Some(1.0)));
        assert_eq!(row(&[0.3]).rank(50), Some(0.3));
        assert_eq!(row(&[]).rank(50), None);
    }

    #[test]
    fn a_target_of_two_ranks_wants_both() {
        assert_eq!(row(&[0.4, 0.5, 0.9]).is_met(), Some(true));
        assert_eq!(row(&[0.4, 0.6, 0.9]).is_met(), Some(false));
        assert_eq!(row(&[0.4, 0.5, 1.1]).is_met(), Some(false));
        assert_eq!(row(&[]).is_met(), None);
    }

    #[test]
    fn a_lost_row_is_a_fault_only_where_none_was_promised_to_be_lost() {
        let books = Books { lost: 1, false_rows: 0, errors: 3, overlaps: 0, promised: true };
        assert!(!books.are_good());
        assert!(Books { promised: false, ..books.clone() }.are_good());
        assert!(!Books { promised: false, overlaps: 1, ..books.clone() }.are_good());
        assert!(!Books { promised: false, false_rows: 1, ..books }.are_good());
    }
}
