//! The figures of all cases as one Markdown table. Measures nothing.

use std::fmt::Write as _;

use crate::figures::{Books, Outcome, Row, Target};

const HEAD: &str = "| case | runs | min | p50 | p95 | max | target | lost rows | errors | overlaps |\n\
                    |---|---:|---:|---:|---:|---:|---|---:|---:|---:|\n";

/// One line a measure. The books belong to the case, so they stand in its first line.
pub(crate) fn markdown(outcomes: &[Outcome]) -> String {
    let mut text = HEAD.to_owned();
    for outcome in outcomes {
        let mut books = outcome.books.as_ref();
        for row in &outcome.rows {
            line(&mut text, row, books.take());
        }
        for fault in &outcome.faults {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "| {}, failed: {} | | | | | | | | | |", outcome.case, one_cell(fault));
        }
    }
    text
}

fn line(text: &mut String, row: &Row, books: Option<&Books>) {
    let figure = |percent| row.rank(percent).map_or_else(String::new, |figure| row.with_unit(figure));
    let cells = [
        row.measure.name.to_owned(),
        row.figures.len().to_string(),
        figure(0),
        figure(50),
        figure(95),
        figure(100),
        target(row),
        books.map_or_else(String::new, |books| books.lost.to_string()),
        books.map_or_else(String::new, |books| books.errors.to_string()),
        books.map_or_else(String::new, |books| books.overlaps.to_string()),
    ];
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn target(row: &Row) -> String {
    let unit = row.measure.unit;
    let wanted = match row.measure.target {
        Target::None => return String::new(),
        Target::Ranks(half, most) => format!("p50 ≤ {half} {unit}, p95 ≤ {most} {unit}"),
        Target::Below(limit) => format!("< {limit} {unit}"),
    };
    match row.is_met() {
        Some(true) => format!("{wanted}: met"),
        Some(false) => format!("{wanted}: missed"),
        None => wanted,
    }
}

fn one_cell(text: &str) -> String {
    text.replace('|', "/").replace('\n', " ")
}
