//! What pandas notes of a table and no column holds.

use serde_json::Value;

/// What of pandas's metadata would be missed: an index that is a range, unless it merely counts the rows.
pub fn pandas_left_out(metadata: &str) -> Option<String> {
    let metadata: Value = serde_json::from_str(metadata).ok()?;
    metadata["index_columns"].as_array()?.iter().find_map(|index| {
        let [start, step] = ["start", "step"].map(|field| index[field].as_i64());
        let name = index["name"].as_str();
        if index["kind"] != "range" || (start, step, name) == (Some(0), Some(1), None) {
            return None;
        }
        let name = name.map(|name| format!(" `{name}`")).unwrap_or_default();
        let (start, stop, step) = (start?, index["stop"].as_i64()?, step?);
        Some(format!(
            "its pandas index{name}, range({start}, {stop}, {step}), is in no column and was left out: `reset_index()` before writing keeps it"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::TableFile;

    #[test]
    fn an_index_that_is_in_no_column_is_told() {
        let of = |name: &str| {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/table/fixtures");
            TableFile::open(folder.join(name)).unwrap().left_out()
        };
        assert!(of("pandas-range.parquet").unwrap().starts_with("its pandas index, range(2, 4, 1), is in no column"));
        for name in ["pandas-plain.parquet", "pandas-index.parquet", "pyarrow-plain.parquet"] {
            assert_eq!(of(name), None, "{name}");
        }
        assert_eq!(pandas_left_out("no JSON"), None);
        let named = r#"{"index_columns": [{"kind": "range", "name": "step", "start": 0, "stop": 9, "step": 1}]}"#;
        assert!(pandas_left_out(named).unwrap().contains("pandas index `step`, range(0, 9, 1)"));
    }
}
