//! Tables: aligned text, and the rows of Arrow tables.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use tracetune_engine::table::shown;

use super::style;

/// A table of words: a header and rows, two spaces between columns.
pub(crate) struct Words {
    header: Vec<String>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Words {
    /// A table with these columns; a name that starts with `>` is right-aligned.
    pub(crate) fn new<S: AsRef<str>>(header: impl IntoIterator<Item = S>) -> Self {
        let (mut names, mut right) = (Vec::new(), Vec::new());
        for name in header {
            let name = name.as_ref();
            right.push(name.starts_with('>'));
            names.push(name.trim_start_matches('>').to_owned());
        }
        Self { header: names, right, rows: Vec::new() }
    }

    pub(crate) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The text; the last column is cut so that lines fit into `width`.
    pub(crate) fn text(mut self, width: usize) -> String {
        let last = self.header.len().saturating_sub(1);
        let used: usize = (0..last)
            .map(|column| {
                let cells = self.rows.iter().map(|row| console::measure_text_width(&row[column]));
                cells.chain([console::measure_text_width(&self.header[column])]).max().unwrap_or_default() + 2
            })
            .sum();
        let room = width.saturating_sub(used).max(20);
        for row in &mut self.rows {
            row[last] = cut(&row[last], room);
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(self.header);
        for row in self.rows {
            table.add_row(row);
        }
        for (column, right) in table.column_iter_mut().zip(self.right) {
            column.set_padding((0, 2));
            if right {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let text = table.to_string();
        let mut lines = text.lines().map(str::trim_end);
        let header = style::heading(lines.next().unwrap_or_default());
        std::iter::once(header).chain(lines.map(str::to_owned)).collect::<Vec<_>>().join("\n")
    }
}

/// No column that is shown is narrower, unless its values are.
const READABLE: usize = 12;

/// The first rows of a table, and the columns that had no room: the first column and those called `wanted` go before
/// the others, and of those the last.
pub(crate) fn rows(batch: &RecordBatch, limit: usize, wanted: &[&str], width: usize) -> (String, Vec<String>) {
    let schema = batch.schema();
    let shown = batch.slice(0, limit.min(batch.num_rows()));
    let columns: Vec<Vec<String>> = shown.columns().iter().map(|column| cells(column, true)).collect();
    let natural: Vec<usize> = schema
        .fields()
        .iter()
        .zip(&columns)
        .map(|(field, cells)| {
            let longest = cells.iter().map(|cell| console::measure_text_width(cell)).max().unwrap_or_default();
            longest.max(field.name().len()).max(1)
        })
        .collect();
    let room = width.saturating_sub(shown.num_rows().to_string().len().max(3));
    let mut order: Vec<usize> = (0..natural.len()).collect();
    // Columns that were added last say more about a row than those it came with.
    let rank = |column: usize| match column {
        0 => 0,
        _ if wanted.contains(&schema.field(column).name().as_str()) => 1,
        _ => 2 + natural.len() - column,
    };
    order.sort_by_key(|&column| rank(column));
    let mut kept = Vec::new();
    let mut used = 0;
    for column in order {
        let least = natural[column].min(READABLE) + 2;
        if used + least <= room || kept.is_empty() {
            used += least;
            kept.push(column);
        }
    }
    kept.sort_unstable();
    let widths = widths(&kept.iter().map(|&column| natural[column]).collect::<Vec<_>>(), room);
    let mut header = vec![">row".to_owned()];
    for (&column, &most) in kept.iter().zip(&widths) {
        let field = schema.field(column);
        let right = if field.data_type().is_numeric() { ">" } else { "" };
        header.push(format!("{right}{}", cut(field.name(), most)));
    }
    let shown_cells: Vec<(&Vec<String>, usize)> = kept.iter().map(|&column| &columns[column]).zip(widths).collect();
    let mut words = Words::new(header);
    for row in (0..).take(shown.num_rows()) {
        let cells = shown_cells.iter().map(|(cells, most)| cut(&cells[row], *most));
        words.row(std::iter::once(row.to_string()).chain(cells));
    }
    let hidden = (0..natural.len()).filter(|column| !kept.contains(column));
    (words.text(usize::MAX), hidden.map(|column| schema.field(column).name().clone()).collect())
}

/// One row in full: each column under its name, texts with their lines.
pub(crate) fn one_row(batch: &RecordBatch, row: usize) -> String {
    let schema = batch.schema();
    let one = batch.slice(row, 1);
    let longest = schema.fields().iter().map(|field| field.name().len()).max().unwrap_or_default();
    let mut text = String::new();
    for (field, column) in schema.fields().iter().zip(one.columns()) {
        let name = style::heading(&format!("{:<longest$}", field.name()));
        let items = items(column);
        match items.as_slice() {
            [] => text.push_str(&format!("{name}  (none)\n")),
            [value] if value.is_empty() => text.push_str(&format!("{name}  {}\n", style::dim("(empty)"))),
            [value] if !value.contains('\n') && value.len() <= 90 => text.push_str(&format!("{name}  {value}\n")),
            values => {
                let bullet = if matches!(column.data_type(), DataType::List(_)) { "- " } else { "" };
                text.push_str(&format!("{}\n", style::heading(field.name())));
                for line in values.iter().flat_map(|value| value.lines().enumerate()) {
                    let lead = if line.0 == 0 { bullet } else { &"  "[..bullet.len()] };
                    text.push_str(format!("    {lead}{}", line.1).trim_end());
                    text.push('\n');
                }
            }
        }
    }
    text.trim_end().to_owned()
}

/// A row as JSON, full values.
pub(crate) fn json_rows(batch: &RecordBatch) -> Vec<serde_json::Value> {
    let schema = batch.schema();
    let columns: Vec<Vec<serde_json::Value>> = batch.columns().iter().map(json_column).collect();
    (0..batch.num_rows())
        .map(|row| {
            let fields = schema.fields().iter().zip(&columns);
            serde_json::Value::Object(
                fields.map(|(field, column)| (field.name().clone(), column[row].clone())).collect(),
            )
        })
        .collect()
}

/// Cuts a text to `width` columns, on one line.
pub(crate) fn cut(text: &str, width: usize) -> String {
    console::truncate_str(text, width, "…").into_owned()
}

/// How wide each column may be: those that are short keep their width, the others share what is left.
fn widths(natural: &[usize], room: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..natural.len()).collect();
    order.sort_by_key(|&column| natural[column]);
    let mut left = room.saturating_sub(2 * natural.len());
    let mut widths = natural.to_vec();
    for (done, &column) in order.iter().enumerate() {
        let share = (left / (order.len() - done)).max(READABLE / 2);
        widths[column] = natural[column].min(share);
        left = left.saturating_sub(widths[column]);
    }
    widths
}

/// A column's values as text; `short`: on one line each.
fn cells(column: &ArrayRef, short: bool) -> Vec<String> {
    let options = FormatOptions::default().with_null("-");
    let column = &shown(column);
    match ArrayFormatter::try_new(column, &options) {
        Ok(formatter) => (0..column.len())
            .map(|row| {
                let text = formatter.value(row).to_string();
                if short { text.replace('\n', "⏎").replace('\t', " ") } else { text }
            })
            .collect(),
        Err(_) => vec!["?".to_owned(); column.len()],
    }
}

/// The value of a one-row column: a list's items each on their own.
fn items(column: &ArrayRef) -> Vec<String> {
    match column.as_any().downcast_ref::<arrow::array::ListArray>() {
        Some(list) if !list.is_null(0) => cells(&list.value(0), false),
        _ => cells(column, false),
    }
}

fn json_column(column: &ArrayRef) -> Vec<serde_json::Value> {
    use serde_json::{Value, json};
    if let Some(list) = column.as_any().downcast_ref::<arrow::array::ListArray>() {
        let item = |row| if list.is_null(row) { Value::Null } else { Value::Array(json_column(&list.value(row))) };
        return (0..list.len()).map(item).collect();
    }
    let texts = cells(column, false);
    (0..column.len())
        .map(|row| match column.data_type() {
            _ if column.is_null(row) => Value::Null,
            DataType::Boolean => json!(texts[row] == "true"),
            data_type if data_type.is_numeric() => texts[row].parse().map_or(json!(texts[row]), Value::Number),
            _ => json!(texts[row]),
        })
        .collect()
}
