//! How results are shown: as a table for people, as JSON or YAML for programs.

use anyhow::Context;
use clap::ValueEnum;
use comfy_table::{Cell, Table, presets};
use serde_json::{Map, Value};

/// The form of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Table,
    /// One JSON array of objects
    Json,
    /// YAML
    Yaml,
}

/// Rows with the same columns, in order.
pub(super) struct Rows {
    /// The names of the columns.
    pub(super) columns: Vec<&'static str>,
    /// Each with as many values as there are columns.
    pub(super) rows: Vec<Vec<Value>>,
}

impl Rows {
    /// In this form. `paint` colours a cell of the table by its column; colours appear only on a terminal.
    pub(super) fn show(
        &self,
        format: Format,
        paint: impl Fn(&str, &Value, Cell) -> Cell,
    ) -> anyhow::Result<String> {
        match format {
            Format::Table => Ok(self.table(paint)),
            Format::Json => json(&self.objects()),
            Format::Yaml => yaml(&self.objects()),
        }
    }

    fn table(&self, paint: impl Fn(&str, &Value, Cell) -> Cell) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_FULL_CONDENSED).set_header(self.columns.clone());
        for row in &self.rows {
            table.add_row(
                self.columns
                    .iter()
                    .zip(row)
                    .map(|(column, value)| paint(column, value, Cell::new(shown(value)))),
            );
        }
        format!("{table}\n")
    }

    fn objects(&self) -> Value {
        let object = |row: &Vec<Value>| -> Value {
            let pairs = self.columns.iter().zip(row).filter(|(_, value)| !value.is_null());
            Value::Object(
                pairs.map(|(column, value)| ((*column).to_owned(), value.clone())).collect::<Map<_, _>>(),
            )
        };
        self.rows.iter().map(object).collect()
    }
}

/// Indented, with a final newline.
pub(super) fn json(value: &Value) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value).context("cannot write the result as JSON")? + "\n")
}

/// As people write it.
pub(super) fn yaml(value: &Value) -> anyhow::Result<String> {
    serde_saphyr::to_string(value).context("cannot write the result as YAML")
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Object(map) => {
            map.iter().map(|(key, value)| format!("{key}: {}", shown(value))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}
