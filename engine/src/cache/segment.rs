//! Segments: finished rows of a row stage, with their keys, in Parquet objects.
//!
//! A segment holds the columns that the stage adds, all nullable, behind three of its own: `_key` (the row key, 32
//! bytes), `_part` and `_count`. An item with n output rows has n rows, each with `_count` = n; an item without any
//! has one row, `_count` 0 and the rest null. One small record a segment, below the signature's folder, says that it
//! is there: nothing is ever rewritten, so any number of processes may add.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, FixedSizeBinaryArray, Int32Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{interleave, take};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use super::{CacheError, Destination, Digest, Signature, Store};
use crate::stage::RowKey;
use crate::table::{TableError, columns_from_bytes, normalised, table_from_bytes};

/// A segment's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The object.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
    /// Items in it: rows and parts.
    pub items: u64,
}

/// The finished rows under one signature.
pub struct Segments {
    contents: Vec<Content>,
    places: HashMap<RowKey, Place>,
}

/// Where an item's output rows are.
struct Place {
    segment: usize,
    first: usize,
    rows: u32,
}

enum Content {
    /// A Parquet file's bytes, checked.
    Stored(Vec<u8>),
    /// Computed just now: the added columns, nullable, and placeholders for items without rows.
    Fresh(RecordBatch),
}

impl Store {
    /// What is known under a signature. Segments that are gone or damaged are forgotten.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn segments(&self, signature: &Signature) -> Result<Segments, CacheError> {
        let mut segments = Segments { contents: Vec::new(), places: HashMap::new() };
        for segment in self.segment_records(signature)? {
            let bytes = match self.bytes(&segment.digest) {
                Ok(bytes) => bytes,
                Err(CacheError::Lost { .. }) => {
                    let path = self.segment_path(signature, &segment.digest);
                    std::fs::remove_file(&path).map_err(CacheError::io("remove", path))?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let index = columns_from_bytes(bytes.clone(), &["_key", "_count"])?;
            let keys = index.column(0).as_fixed_size_binary();
            let counts = index.column(1).as_primitive::<Int32Type>();
            let mut row = 0;
            while row < index.num_rows() {
                let key = RowKey(keys.value(row).try_into().expect("keys have 32 bytes"));
                let rows = counts.value(row).unsigned_abs();
                segments.places.entry(key).or_insert(Place { segment: segments.contents.len(), first: row, rows });
                row += rows.max(1) as usize;
            }
            segments.contents.push(Content::Stored(bytes));
        }
        Ok(segments)
    }

    /// The records of a signature's segments, sorted.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn segment_records(&self, signature: &Signature) -> Result<Vec<Segment>, CacheError> {
        let folder = self.fanned("segments", &signature.to_string());
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(CacheError::io("read", folder)(error)),
        };
        let mut segments = Vec::new();
        for entry in entries {
            let path = entry.map_err(CacheError::io("read", &folder))?.path();
            let text = std::fs::read(&path).map_err(CacheError::io("read", &path))?;
            match serde_json::from_slice::<Segment>(&text) {
                Ok(segment) => segments.push(segment),
                Err(error) => tracing::warn!(path = %path.display(), %error, "a segment's record can't be read"),
            }
        }
        segments.sort_by_key(|segment| segment.digest);
        Ok(segments)
    }

    /// Stores finished items at once: after this they are never computed again. `counts[i]` rows of `added` belong
    /// to `keys[i]`.
    ///
    /// # Errors
    /// The disk is full, or the store can't be written; nothing is kept then.
    pub fn put_segment(
        &self,
        signature: &Signature,
        segments: &mut Segments,
        (keys, parts, counts): (&[RowKey], &[i32], &[u32]),
        added: &RecordBatch,
    ) -> Result<Segment, CacheError> {
        let with_placeholders = with_placeholders(added, counts)?;
        let table = with_bookkeeping(&with_placeholders, keys, parts, counts)?;
        let output = self.put_table(&table)?;
        let segment = Segment { digest: output.digest, bytes: output.bytes, items: keys.len() as u64 };
        let record = serde_json::to_vec(&segment).expect("a record is plain data");
        self.write_file(Destination::Record(self.segment_path(signature, &segment.digest)), &record)?;
        let mut first = 0;
        for (&key, &rows) in keys.iter().zip(counts) {
            segments.places.entry(key).or_insert(Place { segment: segments.contents.len(), first, rows });
            first += rows.max(1) as usize;
        }
        segments.contents.push(Content::Fresh(with_placeholders));
        Ok(segment)
    }

    fn segment_path(&self, signature: &Signature, digest: &Digest) -> std::path::PathBuf {
        self.fanned("segments", &signature.to_string()).join(format!("{digest}.json"))
    }
}

impl Segments {
    /// Whether the item was computed.
    pub fn contains(&self, key: &RowKey) -> bool {
        self.places.contains_key(key)
    }

    /// The output rows of all items, in their order, and how many belong to each. All must be known.
    ///
    /// # Errors
    /// A segment has other columns than `schema`: the kind changed and its version did not.
    pub fn gather(&self, keys: &[RowKey], schema: &SchemaRef) -> Result<(RecordBatch, Vec<u32>), CacheError> {
        let places: Vec<&Place> = keys.iter().map(|key| &self.places[key]).collect();
        let mut used: HashMap<usize, usize> = HashMap::new();
        let mut tables: Vec<RecordBatch> = Vec::new();
        for place in &places {
            if let std::collections::hash_map::Entry::Vacant(entry) = used.entry(place.segment) {
                entry.insert(tables.len());
                tables.push(match &self.contents[place.segment] {
                    Content::Stored(bytes) => table_from_bytes(bytes.clone())?,
                    Content::Fresh(batch) => batch.clone(),
                });
            }
        }
        let counts = places.iter().map(|place| place.rows).collect();
        let rows: Vec<(usize, usize)> = places
            .iter()
            .flat_map(|place| (0..place.rows as usize).map(|row| (used[&place.segment], place.first + row)))
            .collect();
        if rows.is_empty() {
            return Ok((RecordBatch::new_empty(Arc::clone(schema)), counts));
        }
        let columns = schema
            .fields()
            .iter()
            .map(|field| {
                let missing = || crate::table::RecordError::MissingColumn(field.name().clone());
                let arrays: Vec<&dyn arrow::array::Array> = tables
                    .iter()
                    .map(|table| table.column_by_name(field.name()).map(AsRef::as_ref).ok_or_else(missing))
                    .collect::<Result<_, _>>()
                    .map_err(TableError::from)?;
                Ok(interleave(&arrays, &rows).map_err(TableError::from)?)
            })
            .collect::<Result<Vec<ArrayRef>, CacheError>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options);
        Ok((batch.map_err(TableError::from)?, counts))
    }
}

/// The table with all columns nullable and a row of nulls for each item without rows.
fn with_placeholders(added: &RecordBatch, counts: &[u32]) -> Result<RecordBatch, TableError> {
    let added = normalised(added)?;
    let mut next = 0;
    let rows: UInt32Array = counts
        .iter()
        .flat_map(|&count| {
            let first = next;
            next += count;
            let placeholder = (count == 0).then_some(None);
            (first..next).map(Some).chain(placeholder)
        })
        .collect();
    let fields: Vec<Field> =
        added.schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let columns = added.columns().iter().map(|column| take(column, &rows, None)).collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

fn with_bookkeeping(
    rows: &RecordBatch,
    keys: &[RowKey],
    parts: &[i32],
    counts: &[u32],
) -> Result<RecordBatch, TableError> {
    /// Each item's value, once for each of its rows (once for an item without rows).
    fn spread<'a, T: Copy>(values: &'a [T], counts: &'a [u32]) -> impl Iterator<Item = T> + 'a {
        values.iter().zip(counts).flat_map(|(&value, &count)| std::iter::repeat_n(value, count.max(1) as usize))
    }
    let key_bytes: Vec<u8> = spread(keys, counts).flat_map(|key| key.0).collect();
    let key_array = FixedSizeBinaryArray::try_new(32, key_bytes.into(), None)?;
    let part_array: Int32Array = spread(parts, counts).map(Some).collect();
    let signed: Vec<i32> = counts.iter().map(|&count| count as i32).collect();
    let count_array: Int32Array = spread(&signed, counts).map(Some).collect();
    let own = [
        Field::new("_key", DataType::FixedSizeBinary(32), false),
        Field::new("_part", DataType::Int32, false),
        Field::new("_count", DataType::Int32, false),
    ];
    let fields: Vec<Arc<Field>> = own.map(Arc::new).into_iter().chain(rows.schema().fields().iter().cloned()).collect();
    let own: [ArrayRef; 3] = [Arc::new(key_array), Arc::new(part_array), Arc::new(count_array)];
    let columns = own.into_iter().chain(rows.columns().iter().cloned()).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
