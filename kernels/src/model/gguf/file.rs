//! The container: metadata by key, tensors by name. Every length is checked before it is believed.

use super::quants::Kind;
use crate::{Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A file's table of contents.
pub(super) struct File<'a> {
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) tensors: BTreeMap<String, Stored<'a>>,
}

/// A tensor as the file keeps it.
pub(super) struct Stored<'a> {
    /// The slowest dimension first.
    pub(super) shape: Vec<usize>,
    pub(super) kind: Kind,
    pub(super) bytes: &'a [u8],
}

impl<'a> File<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut reader = Reader { bytes, at: 0 };
        if reader.take(4)? != b"GGUF" {
            return Err(Error::Config("not a GGUF file: it does not start with `GGUF`".into()));
        }
        let version = u32::from_le_bytes(reader.array()?);
        if (2..=3).contains(&version.swap_bytes()) {
            return Err(Error::Config("a big-endian GGUF file, which is not supported".into()));
        }
        if !(2..=3).contains(&version) {
            return Err(Error::Config(format!("GGUF version {version} is not supported: 2 and 3 are")));
        }
        let (tensors, entries) = (reader.count()?, reader.count()?);
        let mut metadata = BTreeMap::new();
        for _ in 0..entries {
            let (key, kind) = (reader.text()?, u32::from_le_bytes(reader.array()?));
            let value = reader.value(kind, 0)?;
            if value.is_null() {
                return Err(Error::Config(format!("damaged: `{key}` is no finite number")));
            }
            if metadata.insert(key.clone(), value).is_some() {
                return Err(Error::Config(format!("damaged: `{key}` stands in it twice")));
            }
        }
        let mut described = Vec::new();
        for _ in 0..tensors {
            let name = reader.text()?;
            let dimensions = u32::from_le_bytes(reader.array()?);
            if dimensions > MOST_DIMENSIONS {
                return Err(Error::Config(format!("damaged: tensor `{name}` has {dimensions} dimensions")));
            }
            let mut shape = (0..dimensions).map(|_| reader.count()).collect::<Result<Vec<usize>>>()?;
            shape.reverse();
            let (kind, offset) = (u32::from_le_bytes(reader.array()?), reader.count()?);
            let kind = Kind::from_number(kind).ok_or_else(|| {
                Error::Config(format!(
                    "tensor `{name}` is of type {kind}, which is not supported: {} are",
                    Kind::SUPPORTED
                ))
            })?;
            described.push((name, shape, kind, offset));
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(value) => {
                value.as_u64().filter(|size| size.is_power_of_two() && *size <= LARGEST_ALIGNMENT).ok_or_else(|| {
                    Error::Config(format!("damaged: `general.alignment` is {value}, must be a power of two"))
                })?
            }
        };
        let start = (reader.at as u64).next_multiple_of(alignment) as usize;
        let mut tensors = BTreeMap::new();
        let mut places = Vec::with_capacity(described.len());
        for (name, shape, kind, offset) in described {
            let numbers = shape.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
            let length = numbers.and_then(|numbers| kind.bytes(numbers)).ok_or_else(|| {
                Error::Config(format!("tensor `{name}` of shape {shape:?} is not made of whole {kind:?} blocks"))
            })?;
            if !(offset as u64).is_multiple_of(alignment) {
                return Err(Error::Config(format!(
                    "damaged: tensor `{name}` begins at {offset}, which is no multiple of {alignment}"
                )));
            }
            let from = start.saturating_add(offset);
            let data = bytes.get(from..from.saturating_add(length)).ok_or_else(|| {
                let length = bytes.len();
                Error::Config(format!(
                    "cut short: tensor `{name}` of shape {shape:?} ends after byte {length}, where the file ends"
                ))
            })?;
            places.push((offset, offset + length, name.clone()));
            if tensors.insert(name.clone(), Stored { shape, kind, bytes: data }).is_some() {
                return Err(Error::Config(format!("damaged: tensor `{name}` stands in it twice")));
            }
        }
        places.sort();
        if let Some(pair) = places.windows(2).find(|pair| pair[1].0 < pair[0].1) {
            let (one, other) = (&pair[0].2, &pair[1].2);
            return Err(Error::Config(format!("damaged: tensors `{one}` and `{other}` overlap")));
        }
        Ok(Self { metadata, tensors })
    }
}

/// What the format allows.
const MOST_DIMENSIONS: u32 = 4;
const LARGEST_ALIGNMENT: u64 = 1 << 20;
/// Numbers in an array of the metadata: more than any vocabulary has.
const MOST_NUMBERS: usize = 1 << 22;

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| {
            Error::Config(format!("cut short: {length} bytes are wanted at {} of {}", self.at, self.bytes.len()))
        })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn count(&mut self) -> Result<usize> {
        let count = u64::from_le_bytes(self.array()?);
        usize::try_from(count).map_err(|_| Error::Config(format!("damaged: a count of {count}")))
    }

    fn text(&mut self) -> Result<String> {
        let length = self.count()?;
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value> {
        Ok(match kind {
            0 => json!(u8::from_le_bytes(self.array()?)),
            1 => json!(i8::from_le_bytes(self.array()?)),
            2 => json!(u16::from_le_bytes(self.array()?)),
            3 => json!(i16::from_le_bytes(self.array()?)),
            4 => json!(u32::from_le_bytes(self.array()?)),
            5 => json!(i32::from_le_bytes(self.array()?)),
            6 => json!(f32::from_le_bytes(self.array()?)),
            7 => json!(self.take(1)?[0] != 0),
            8 => json!(self.text()?),
            9 if depth < 4 => {
                let (kind, length) = (u32::from_le_bytes(self.array()?), self.count()?);
                if length > MOST_NUMBERS && !matches!(kind, 8 | 9) {
                    return Err(Error::Config(format!("damaged: an array of {length} numbers at byte {}", self.at)));
                }
                // Collected one by one: a false length runs into the file's end before it fills the memory.
                (0..length).map(|_| self.value(kind, depth + 1)).collect::<Result<Vec<_>>>()?.into()
            }
            10 => json!(u64::from_le_bytes(self.array()?)),
            11 => json!(i64::from_le_bytes(self.array()?)),
            12 => json!(f64::from_le_bytes(self.array()?)),
            other => return Err(Error::Config(format!("damaged: metadata of type {other} at byte {}", self.at))),
        })
    }
}
