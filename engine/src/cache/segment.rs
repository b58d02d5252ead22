//! Segments: finished rows of a row stage, with their keys, in Parquet objects.
//!
//! A segment holds the columns that the stage adds, all nullable, behind three of its own: `_key` (the row key, 32
//! bytes), `_part` and `_count`. An item with n output rows has n rows, each with `_count` = n; an item without any
//! has one row, `_count` 0 and the rest null. One small record a segment, below the signature's folder, says that it
//! is there: nothing is ever rewritten, so any number of processes may add.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::io::ErrorKind;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, Int32Array, RecordBatch, RecordBatchOptions, UInt32Array,
};
use arrow::compute::{interleave, take};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use super::{CacheError, Destination, Digest, Signature, Store};
use crate::stage::RowKey;
use crate::table::{RecordError, TableError, columns_from_bytes, normalised};

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

/// The finished rows under one signature: an index in memory, and the contents of the segments used last.
pub struct Segments {
    files: Vec<Digest>,
    /// The same, to be asked for.
    known: HashSet<Digest>,
    places: HashMap<ShortKey, Place, BuildHasherDefault<FirstBytes>>,
    recent: Recent,
}

/// The first half of a row key: still too long for two keys to share it by chance.
#[derive(PartialEq, Eq)]
struct ShortKey([u64; 2]);

impl From<&RowKey> for ShortKey {
    fn from(key: &RowKey) -> Self {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| key.0[at + byte]));
        Self([word(0), word(8)])
    }
}

impl std::hash::Hash for ShortKey {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.0[0]);
    }
}

/// Keys are hashes already.
#[derive(Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, _: &[u8]) {
        unreachable!("short keys are hashed as one number");
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// Where an item's output rows begin.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    segment: u32,
    first: u32,
}

/// The contents of segments, `_count` and the added columns: as many as fit, the one used last at the end.
#[derive(Default)]
struct Recent {
    tables: VecDeque<(u32, RecordBatch)>,
    bytes: usize,
}

impl Recent {
    const BYTES: usize = 128 << 20;

    fn get(&mut self, segment: u32) -> Option<RecordBatch> {
        let at = self.tables.iter().position(|(known, _)| *known == segment)?;
        let entry = self.tables.remove(at)?;
        self.tables.push_back(entry.clone());
        Some(entry.1)
    }

    fn put(&mut self, segment: u32, table: RecordBatch) {
        self.bytes += table.get_array_memory_size();
        self.tables.push_back((segment, table));
        while self.bytes > Self::BYTES && self.tables.len() > 1 {
            let oldest = self.tables.pop_front();
            self.bytes -= oldest.map_or(0, |(_, table)| table.get_array_memory_size());
        }
    }
}

impl Store {
    /// What is known under a signature. Segments that are gone or damaged are forgotten.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn segments(&self, signature: &Signature) -> Result<Segments, CacheError> {
        let records = self.segment_records(signature)?;
        let items: u64 = records.iter().map(|segment| segment.items).sum();
        let mut segments = Segments::new();
        segments.expect(usize::try_from(items).unwrap_or_default());
        for segment in records {
            self.add_segment(signature, &segment.digest, &mut segments)?;
        }
        Ok(segments)
    }

    /// Adds the segments that other processes have recorded since.
    ///
    /// # Errors
    /// The store can't be read.
    pub(crate) fn refresh_segments(&self, signature: &Signature, segments: &mut Segments) -> Result<(), CacheError> {
        let folder = self.fanned("segments", &signature.to_string());
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(CacheError::io("read", folder)(error)),
        };
        for entry in entries {
            let name = entry.map_err(CacheError::io("read", &folder))?.file_name();
            let digest = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok());
            if let Some(digest) = digest.filter(|digest| !segments.known.contains(digest)) {
                self.add_segment(signature, &digest, segments)?;
            }
        }
        Ok(())
    }

    /// Forgets segments whose rows were computed anew, but those that came out the same.
    ///
    /// # Errors
    /// A record can't be removed.
    pub(crate) fn remove_segments(
        &self,
        signature: &Signature,
        replaced: &[Segment],
        by: &Segments,
    ) -> Result<(), CacheError> {
        for segment in replaced.iter().filter(|segment| !by.known.contains(&segment.digest)) {
            let path = self.segment_path(signature, &segment.digest);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(CacheError::io("remove", path)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Enters a segment, unless its bytes are gone or damaged: then it is forgotten.
    fn add_segment(&self, signature: &Signature, digest: &Digest, segments: &mut Segments) -> Result<(), CacheError> {
        let bytes = match self.bytes(digest) {
            Ok(bytes) => bytes,
            Err(CacheError::Lost { .. }) => {
                let path = self.segment_path(signature, digest);
                return match std::fs::remove_file(&path) {
                    // Another process found the same.
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                    removed => removed.map_err(CacheError::io("remove", path)),
                };
            }
            Err(error) => return Err(error),
        };
        let index = columns_from_bytes(bytes, &["_key", "_count"])?;
        let keys = index.column(0).as_fixed_size_binary();
        let keys = (0..index.num_rows()).map(|row| RowKey(keys.value(row).try_into().expect("keys have 32 bytes")));
        segments.add(*digest, keys, index.column(1).as_primitive::<Int32Type>());
        Ok(())
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
        items: (&[RowKey], &[i32], &[u32]),
        added: &RecordBatch,
    ) -> Result<Segment, CacheError> {
        let written = self.write_segment(signature, items, added)?;
        let segment = written.segment.clone();
        segments.enter(written)?;
        Ok(segment)
    }

    /// As [`Store::put_segment`]; what it gives is still to be entered.
    ///
    /// # Errors
    /// As [`Store::put_segment`].
    pub(crate) fn write_segment(
        &self,
        signature: &Signature,
        (keys, parts, counts): (&[RowKey], &[i32], &[u32]),
        added: &RecordBatch,
    ) -> Result<WrittenSegment, CacheError> {
        let table = with_bookkeeping(&with_placeholders(added, counts)?, keys, parts, counts)?;
        let output = self.put_table(&table)?;
        let segment = Segment { digest: output.digest, bytes: output.bytes, items: keys.len() as u64 };
        self.record_segment(signature, &segment)?;
        Ok(WrittenSegment { segment, keys: spread(keys, counts).collect(), table })
    }

    /// Takes all segments of a signature over from another store.
    ///
    /// # Errors
    /// An object is not there, or can't be written here.
    pub(crate) fn take_segments(&self, from: &Self, signature: &Signature) -> Result<(), CacheError> {
        for segment in from.segment_records(signature)? {
            self.take_object(from, &segment.digest)?;
            self.record_segment(signature, &segment)?;
        }
        Ok(())
    }

    /// Says that a segment is there, once its object is on the disk.
    fn record_segment(&self, signature: &Signature, segment: &Segment) -> Result<(), CacheError> {
        self.sync_object(&segment.digest)?;
        let record = serde_json::to_vec(segment).expect("a record is plain data");
        self.write_file(Destination::Record(self.segment_path(signature, &segment.digest)), &record)
    }

    fn segment_path(&self, signature: &Signature, digest: &Digest) -> std::path::PathBuf {
        self.fanned("segments", &signature.to_string()).join(format!("{digest}.json"))
    }
}

/// A segment that is stored.
pub(crate) struct WrittenSegment {
    segment: Segment,
    /// Of each row of the table.
    keys: Vec<RowKey>,
    table: RecordBatch,
}

impl Segments {
    /// None.
    pub(crate) fn new() -> Self {
        Self { files: Vec::new(), known: HashSet::new(), places: HashMap::default(), recent: Recent::default() }
    }

    /// Enters a segment that was written just now, whose rows need not be read again.
    ///
    /// # Errors
    /// Its columns are not a segment's.
    pub(crate) fn enter(&mut self, written: WrittenSegment) -> Result<(), CacheError> {
        let WrittenSegment { segment, keys, table } = written;
        // A look at the folder may have been quicker.
        if self.known.contains(&segment.digest) {
            return Ok(());
        }
        let counts = table.column_by_name("_count").expect("it was put there").as_primitive::<Int32Type>();
        let number = self.add(segment.digest, keys.into_iter(), counts);
        let columns: Vec<usize> = (2..table.num_columns()).collect();
        self.recent.put(number, table.project(&columns).map_err(TableError::from)?);
        Ok(())
    }

    /// Makes room for that many items in all.
    pub fn expect(&mut self, items: usize) {
        self.places.reserve(items.saturating_sub(self.places.len()));
    }

    /// Enters a segment's items, given the columns `_key` and `_count`; gives the segment's number here.
    fn add(&mut self, digest: Digest, keys: impl Iterator<Item = RowKey>, counts: &Int32Array) -> u32 {
        let segment = u32::try_from(self.files.len()).expect("there are fewer segments than that");
        self.files.push(digest);
        self.known.insert(digest);
        let mut next = 0;
        for (row, key) in keys.enumerate() {
            if row == next {
                let first = u32::try_from(row).expect("a segment has fewer rows than that");
                self.places.entry(ShortKey::from(&key)).or_insert(Place { segment, first });
                next += counts.value(row).max(1) as usize;
            }
        }
        segment
    }

    /// Where an item's output rows are, if it was computed.
    pub fn find(&self, key: &RowKey) -> Option<Place> {
        self.places.get(&ShortKey::from(key)).copied()
    }

    /// The output rows of the items, in their order, and how many belong to each.
    ///
    /// # Errors
    /// A segment is gone by now ([`CacheError::Lost`]), or has other columns than `schema`: the kind changed and its
    /// version did not.
    pub fn gather(
        &mut self,
        store: &Store,
        places: &[Place],
        schema: &SchemaRef,
    ) -> Result<(RecordBatch, Vec<u32>), CacheError> {
        let mut used: HashMap<u32, usize> = HashMap::new();
        let mut tables: Vec<RecordBatch> = Vec::new();
        let mut counts = Vec::with_capacity(places.len());
        let mut rows = Vec::with_capacity(places.len());
        for &Place { segment, first } in places {
            let table = match used.get(&segment) {
                Some(&table) => table,
                None => {
                    tables.push(self.table(store, segment, schema)?);
                    used.insert(segment, tables.len() - 1);
                    tables.len() - 1
                }
            };
            let count = tables[table].column(0).as_primitive::<Int32Type>().value(first as usize).unsigned_abs();
            counts.push(count);
            rows.extend((first..first + count).map(|row| (table, row as usize)));
        }
        if rows.is_empty() {
            return Ok((RecordBatch::new_empty(Arc::clone(schema)), counts));
        }
        let columns = schema
            .fields()
            .iter()
            .map(|field| {
                let arrays: Vec<&dyn Array> = tables
                    .iter()
                    .map(|table| Ok(column(table, field.name())?.as_ref()))
                    .collect::<Result<_, TableError>>()?;
                Ok(interleave(&arrays, &rows).map_err(TableError::from)?)
            })
            .collect::<Result<Vec<ArrayRef>, CacheError>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options);
        Ok((batch.map_err(TableError::from)?, counts))
    }

    /// `_count` and the added columns of a segment.
    fn table(&mut self, store: &Store, segment: u32, schema: &Schema) -> Result<RecordBatch, CacheError> {
        if let Some(table) = self.recent.get(segment) {
            return Ok(table);
        }
        let mut columns = vec!["_count"];
        columns.extend(schema.fields().iter().map(|field| field.name().as_str()));
        let table = columns_from_bytes(store.bytes(&self.files[segment as usize])?, &columns)?;
        self.recent.put(segment, table.clone());
        Ok(table)
    }
}

fn column<'a>(table: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, TableError> {
    table.column_by_name(name).ok_or_else(|| RecordError::MissingColumn(name.to_owned()).into())
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

/// Each item's value, once for each of its rows (once for an item without rows).
fn spread<'a, T: Copy>(values: &'a [T], counts: &'a [u32]) -> impl Iterator<Item = T> + 'a {
    values.iter().zip(counts).flat_map(|(&value, &count)| std::iter::repeat_n(value, count.max(1) as usize))
}

fn with_bookkeeping(
    rows: &RecordBatch,
    keys: &[RowKey],
    parts: &[i32],
    counts: &[u32],
) -> Result<RecordBatch, TableError> {
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
