//! Arrow IPC: files (Feather version 2) and streams.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::ipc::reader::{FileReader, StreamReader};
use tracetune_engine::table::{kept_schema, normal_pieces, pandas_left_out};

use super::{Opened, ROWS, told};

pub(super) fn open(path: &Path, values: &[&str]) -> Result<Opened, String> {
    let io = |error: std::io::Error| error.to_string();
    let mut file = BufReader::new(File::open(path).map_err(io)?);
    let mut start = Vec::new();
    Read::by_ref(&mut file).take(6).read_to_end(&mut start).map_err(io)?;
    file.rewind().map_err(io)?;
    let unreadable = |error: arrow::error::ArrowError| format!("no Arrow IPC file or stream: {error}");
    let batches: Box<dyn RecordBatchReader> = match &start[..] {
        [] => return Err("is empty, not an Arrow IPC file".to_owned()),
        b"ARROW1" => Box::new(FileReader::try_new(file, None).map_err(unreadable)?),
        [b'F', b'E', b'A', b'1', ..] => {
            return Err(
                "is of Feather's version 1, which can't be read: write it with version 2 or as Parquet".to_owned()
            );
        }
        [b'P', b'A', b'R', b'1', ..] => return Err("is a Parquet file: call it `.parquet`".to_owned()),
        _ => Box::new(StreamReader::try_new(file, None).map_err(unreadable)?),
    };
    let written = batches.schema();
    let schema = kept_schema(&written, values).map_err(|error| told(error.into()))?;
    let left_out = written.metadata().get("pandas").and_then(|pandas| pandas_left_out(pandas));
    let pieces = batches.flat_map(|batch| match batch {
        Ok(batch) => Box::new(normal_pieces(batch, ROWS).map(|piece| piece.map_err(|error| error.to_string()))),
        Err(error) => {
            let failed: Box<dyn Iterator<Item = Result<RecordBatch, String>>> =
                Box::new(std::iter::once(Err(error.to_string())));
            failed
        }
    });
    Ok(Opened { schema, pieces: Box::new(pieces), left_out })
}
