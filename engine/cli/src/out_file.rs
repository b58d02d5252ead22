//! Tables that a user asks for with `--out`: whole, or not there at all.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use tracetune_engine::table::TableWriter;

/// Writes a table whose rows come in pieces; gives their number. What stands at `path` is replaced at the end, if
/// nothing went wrong.
pub(crate) fn write_table(
    path: &Path,
    schema: &Schema,
    pieces: impl IntoIterator<Item = anyhow::Result<RecordBatch>>,
) -> anyhow::Result<u64> {
    write(path, schema, pieces).with_context(|| format!("`{}` was not written", path.display()))
}

fn write(
    path: &Path,
    schema: &Schema,
    pieces: impl IntoIterator<Item = anyhow::Result<RecordBatch>>,
) -> anyhow::Result<u64> {
    if path.exists() && !path.is_file() {
        // A pipe or a device can't be replaced.
        return fill(fs_err::OpenOptions::new().write(true).open(path)?, schema, pieces);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.prefix(".tracetune-").tempfile_in(folder)?;
    let rows = fill(file.as_file_mut(), schema, pieces)?;
    file.persist(path)?;
    Ok(rows)
}

fn fill(
    file: impl Write + Send,
    schema: &Schema,
    pieces: impl IntoIterator<Item = anyhow::Result<RecordBatch>>,
) -> anyhow::Result<u64> {
    let mut writer = TableWriter::new(schema, file)?;
    for piece in pieces {
        writer.write(&piece?)?;
    }
    Ok(writer.finish()?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;

    use super::*;

    #[test]
    fn a_table_that_can_not_be_written_leaves_the_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.parquet");
        let rows = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1, 2])) as _)]).unwrap();
        assert_eq!(write_table(&path, &rows.schema(), [Ok(rows.clone()), Ok(rows.clone())]).unwrap(), 4);
        let before = std::fs::read(&path).unwrap();
        let pieces = [Ok(rows.clone()), Err(anyhow::anyhow!("gone"))];
        let error = write_table(&path, &rows.schema(), pieces).unwrap_err();
        assert_eq!(format!("{error:#}"), format!("`{}` was not written: gone", path.display()));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_table(&folder.path().join("no/rows.parquet"), &rows.schema(), [Ok(rows.clone())]).is_err());
    }
}
