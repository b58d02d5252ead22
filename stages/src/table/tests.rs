use tracetune_engine::stage::Params as _;
use tracetune_engine::table::read_table_file;

use super::*;

/// Reads files as a stage with these keys would; the table as text.
fn read(files: &[(&str, &str)], params: &str) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    stage(folder.path(), params).map(|table| text(&table))
}

fn stage(folder: &Path, params: &str) -> Result<RecordBatch, String> {
    let mut params: Params = toml::from_str(params).map_err(|error| error.to_string())?;
    params.validate().map_err(|error| error.message)?;
    params.resolve(&Setup::new(folder)).map_err(|error| error.message)?;
    let scratch = tempfile::tempdir().unwrap();
    let cx = Context { scratch: scratch.path().to_owned(), ..crate::testing::context(folder) };
    let mut outputs = TableKind::run(&params, &Inputs::default(), &cx).map_err(|error| error.to_string())?;
    let Some(Artifact::File(path)) = outputs.remove("rows") else { panic!("a file") };
    let table = read_table_file(path).unwrap();
    if let Some(columns) = params.columns {
        assert_eq!(table.schema(), columns, "the columns that the pipeline is checked with");
    }
    Ok(table)
}

fn text(table: &RecordBatch) -> String {
    let types: Vec<String> =
        table.schema().fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    let row = |row: usize| -> String {
        let value = |column: &arrow::array::ArrayRef| match column.is_null(row) {
            true => "-".to_owned(),
            false => arrow::util::display::array_value_to_string(column, row).unwrap(),
        };
        table.columns().iter().map(value).collect::<Vec<_>>().join("|")
    };
    format!("{}\n{}", types.join(", "), (0..table.num_rows()).map(row).collect::<Vec<_>>().join("\n"))
}

/// Tables that other programs wrote.
fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/table/fixtures")
}

#[test]
fn a_csv_file_is_read_as_its_values_are() {
    let text = "\u{feff}id,n,x,ok,t\r\na,1,0.5,true,007\r\n\"b, \"\"c\"\"\",,2,false,\"x\ny\"\r\n";
    let expected = "id Utf8, n Int64, x Float64, ok Boolean, t Utf8\na|1|0.5|true|007\nb, \"c\"|-|2.0|false|x\ny";
    assert_eq!(read(&[("a.csv", text)], "path = \"a.csv\"").unwrap(), expected);
}

#[test]
fn types_and_delimiters_may_be_said() {
    let text = "zip;n\n01234;1\n";
    let params = "path = \"a.csv\"\ndelimiter = \";\"\ntypes = { zip = \"string\" }";
    assert_eq!(read(&[("a.csv", text)], params).unwrap(), "zip Utf8, n Int64\n01234|1");
    let tsv = "path = \"a.tsv\"\nheader = false";
    assert_eq!(read(&[("a.tsv", "1\tx\n2\ty\n")], tsv).unwrap(), "column_1 Int64, column_2 Utf8\n1|x\n2|y");
}

#[test]
fn json_lines_are_read_whatever_fields_each_has() {
    let text = "{\"a\": 1, \"b\": [\"x\", null]}\n{\"a\": 2.5, \"c\": \"y\"}\n";
    let found = read(&[("a.jsonl", text)], "path = \"a.jsonl\"").unwrap();
    assert!(found.starts_with("a Float64, b List") && found.ends_with("1.0|[x, ]|-\n2.5|-|y"), "{found}");
}

#[test]
fn a_glob_is_its_files_one_behind_the_other() {
    let files = [("d/b.csv", "n,t\n2,x\n"), ("d/a.csv", "n,t\n1,y\n"), ("d/c.txt", "no")];
    assert_eq!(read(&files, "path = \"d/*.csv\"").unwrap(), "n Int64, t Utf8\n1|y\n2|x");
}

#[test]
fn columns_are_found_by_name_in_every_file_of_a_glob() {
    let csv = [("a.csv", "from,to\n1,2\n"), ("b.csv", "to,from\n4,3\n")];
    assert_eq!(read(&csv, "path = \"*.csv\"").unwrap(), "from Int64, to Int64\n1|2\n3|4");
}

#[test]
fn a_number_that_its_column_would_change_is_an_error() {
    let whole = ("a.jsonl", "{\"n\": 1}\n");
    for (files, params, message) in [
        (
            &[whole, ("b.jsonl", "{\"n\": 2}\n\n{\"n\": 2.5}\n")][..],
            "",
            "`b.jsonl`: line 3: `n` is 2.5, which its column of type Int64",
        ),
        (&[("a.jsonl", "{\"n\": 1e300}\n")], "types = { n = \"int64\" }", "`n` is 1e+300, which"),
        (&[("a.jsonl", "{\"n\": 18446744073709551615}\n")], "", "line 1: `n` is 18446744073709551615, which"),
        (&[("a.jsonl", "{\"n\": 9007199254740993}\n{\"n\": 0.5}\n")], "", "`types = { n = \"float64\" }` rounds it"),
        (
            &[("a.jsonl", "{\"s\": [{\"n\": 9007199254740993}, {\"n\": 0.5}]}\n")],
            "",
            "line 1: `s.n` is 9007199254740993",
        ),
    ] {
        let error = read(files, &format!("path = \"*.jsonl\"\n{params}")).unwrap_err();
        assert!(error.contains(message), "{message}: {error}");
    }
}

#[test]
fn numbers_that_their_columns_hold_are_read() {
    for (text, params, expected) in [
        ("{\"n\": 9007199254740993}\n{\"n\": 1}\n", "", "n Int64\n9007199254740993\n1"),
        ("{\"n\": 2.0}\n{\"n\": 1}\n", "types = { n = \"int64\" }", "n Int64\n2\n1"),
        ("{\"n\": 9007199254740993}\n", "types = { n = \"float64\" }", "n Float64\n9007199254740992.0"),
        ("{\"s\": {\"n\": 9007199254740993, \"x\": 0.5}}\n", "", "{n: 9007199254740993, x: 0.5}"),
    ] {
        let found = read(&[("a.jsonl", text)], &format!("path = \"a.jsonl\"\n{params}")).unwrap();
        assert!(found.ends_with(expected), "{expected}: {found}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_file() {
    for (files, params, message) in [
        (
            &[("a.csv", "n\n1\n"), ("b.csv", "m\n1\n")][..],
            "path = \"*.csv\"",
            "`b.csv`: it lacks the column `n` that is in `a.csv`",
        ),
        (&[("a.csv", "n\n1\n"), ("b.csv", "n\nx\n")], "path = \"*.csv\"", "`b.csv`: "),
        (&[("a.csv", "n,n\n1,2\n")], "path = \"a.csv\"", "two columns are called `n`"),
        (&[("a.csv", "n,m\n1\n")], "path = \"a.csv\"", "`a.csv`: "),
        (
            &[("a.csv", "n\n1\n1\n")],
            "path = \"a.csv\"\nkey = [\"n\"]",
            "rows 0 and 1 have the same n, which `key` names",
        ),
        (&[("a.csv", "n\n1\n")], "path = \"a.csv\"\nkey = [\"m\"]", "there is no column `m`, which `key` names"),
        (
            &[("a.csv", "n\n1\n")],
            "path = \"a.csv\"\ntypes = { m = \"string\" }",
            "it has no column `m`, which `types` names",
        ),
        (&[("a.parquet", "n\n1\n")], "path = \"a.parquet\"", "not a Parquet file"),
        (&[("a.jsonl", "{\"a\": 1}\n{\"a\": \n")], "path = \"a.jsonl\"", "`a.jsonl`: "),
        (&[("a.csv", "n\n1\n")], "path = \"b.csv\"", "can't read `b.csv`"),
        (&[], "path = \"a.xlsx\"", "does not say its format"),
        (&[], "path = []", "names no file"),
        (&[("a.csv", "n\n1\n")], "path = [\"a.csv\", \"b.xlsx\"]", "`b.xlsx` does not say its format"),
        (&[("a.csv", "n\n1\n")], "path = [\"a.csv\", \"b.csv\"]", "can't read `b.csv`"),
        (
            &[("a.csv", "n\n1\n")],
            "path = [\"a.csv\", \"*.csv\"]",
            "`path` names `a.csv` twice, the second time as `*.csv`",
        ),
        (&[("a.arrow", "")], "path = \"a.arrow\"", "`a.arrow`: is empty"),
        (&[("a.feather", "FEA1..")], "path = \"a.feather\"", "is of Feather's version 1"),
        (&[("a.arrow", "PAR1..")], "path = \"a.arrow\"", "is a Parquet file"),
        (&[("a.arrow", "n\n1\n")], "path = \"a.arrow\"", "no Arrow IPC file or stream"),
    ] {
        let error = read(files, params).unwrap_err();
        assert!(error.contains(message), "{message}: {error}");
    }
}

#[test]
fn arrow_files_and_streams_are_the_table_that_parquet_is() {
    let expected = stage(&fixtures(), "path = \"rows.parquet\"").unwrap();
    let fields: Vec<String> = expected.schema().fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(fields, ["FixedSizeBinary(16)", r#"Timestamp(µs, "Europe/Berlin")"#, "Utf8", "Int64"]);
    assert_eq!(expected.schema().field(0).extension_type_name(), Some("arrow.uuid"));
    for name in ["lz4.feather", "zstd.arrow", "stream.arrow"] {
        assert_eq!(stage(&fixtures(), &format!("path = {name:?}")).unwrap(), expected, "{name}");
    }
    let polars = stage(&fixtures(), "path = \"polars.arrow\"").unwrap();
    assert_eq!(polars, expected.project(&[1, 2, 3]).unwrap());
}

#[test]
fn paths_may_be_a_list_and_are_read_in_its_order() {
    let csv = |name, n| (name, if n == 1 { "n,t\n1,x\n" } else { "t,n\ny,2\n" });
    let files = [csv("b/2.csv", 2), csv("a.csv", 1), csv("b/1.csv", 1), ("c.jsonl", "{\"n\": 3, \"t\": \"z\"}\n")];
    let params = "path = [\"c.jsonl\", \"b/*.csv\", \"a.csv\"]";
    assert_eq!(read(&files, params).unwrap(), "n Int64, t Utf8\n3|z\n1|x\n2|y\n1|x");
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.csv", "b.csv"] {
        std::fs::write(folder.path().join(name), "n\n1\n").unwrap();
    }
    let key = |params: &str| {
        let setup = Setup::new(folder.path());
        TableKind::environment(&toml::from_str(params).unwrap(), &setup).unwrap()
    };
    let names: Vec<String> = key("path = [\"b.csv\", \"a.csv\"]").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["file b.csv", "file a.csv"]);
    assert_eq!(key("path = \"a.csv\"")[0].0, "file");
}

#[test]
fn an_index_of_pandas_that_is_in_no_column_is_noted() {
    let notes = crate::testing::Notes::default();
    let scratch = tempfile::tempdir().unwrap();
    let cx = crate::testing::context(&fixtures());
    let cx = Context { reporter: std::sync::Arc::new(notes.clone()), scratch: scratch.path().to_owned(), ..cx };
    let params: Params = toml::from_str("path = \"range.parquet\"").unwrap();
    TableKind::run(&params, &Inputs::default(), &cx).unwrap();
    assert!(notes.all()[0].starts_with("`range.parquet`: its pandas index, range(2, 4, 1), is in no column"));
}

#[test]
fn an_order_that_can_not_be_kept_is_left_out_where_types_say_so() {
    for (name, whose) in [("ordered.parquet", "an ordered categorical"), ("enum.arrow", "a Polars enum")] {
        let error = stage(&fixtures(), &format!("path = {name:?}")).unwrap_err();
        assert!(error.starts_with(&format!("`{name}`: column `size` holds values of {whose}, whose order")), "{error}");
        assert!(error.ends_with("`types = { size = \"string\" }` reads the text alone"), "{error}");
        let table = stage(&fixtures(), &format!("path = {name:?}\ntypes = {{ size = \"string\", n = \"int64\" }}"));
        assert_eq!(text(&table.unwrap()), "size Utf8, n Int64\nlow|1\nhigh|2");
    }
    for (types, message) in [
        ("size = \"int64\"", "column `size` is Utf8, which can't be read as Int64"),
        ("x = \"int64\"", "it has no column `x`, which `types` names"),
    ] {
        let types = format!("path = \"ordered.parquet\"\ntypes = {{ size = \"string\", {types} }}");
        let error = stage(&fixtures(), &types.replace("size = \"string\", size", "size")).unwrap_err();
        assert!(error.ends_with(message), "{error}");
    }
    let error = stage(&fixtures(), "path = \"duration.arrow\"").unwrap_err();
    assert!(error.starts_with("`duration.arrow`: column `d` holds durations"), "{error}");
}

#[test]
fn files_of_other_extension_types_are_not_put_together() {
    let folder = tempfile::tempdir().unwrap();
    let with = stage(&fixtures(), "path = \"rows.parquet\"").unwrap();
    let id = with.column(0);
    let without = RecordBatch::try_from_iter([("id", std::sync::Arc::clone(id))]).unwrap();
    for (name, table) in [("a.parquet", &with.project(&[0]).unwrap()), ("b.parquet", &without)] {
        let bytes = tracetune_engine::table::table_to_bytes(table).unwrap();
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let error = stage(folder.path(), "path = \"*.parquet\"").unwrap_err();
    let message = "`b.parquet`: column `id` is of no extension type, and arrow.uuid in `a.parquet`";
    assert_eq!(error, message);
}
