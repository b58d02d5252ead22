//! How much a column may hold: normal types count the bytes of text and the items of lists in 32 bits.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::DataType;

/// What a row group or a piece should take of each column at most: half of what 32 bits count.
pub(super) const GROUP_LIMIT: usize = 1 << 30;

/// How many bytes of text and items of lists a table has, level by level of each column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sizes(Vec<usize>);

impl Sizes {
    /// Adds those of normal rows.
    pub(super) fn add(&mut self, rows: &RecordBatch) {
        let added = sizes(rows, 0..rows.num_rows());
        self.0.resize(added.len(), 0);
        self.0.iter_mut().zip(added).for_each(|(size, added)| *size += added);
    }

    /// How many of the rows may be added before something is over the limit.
    pub(super) fn fitting(&self, rows: &RecordBatch, limit: usize) -> usize {
        let fits = |count: usize| {
            let added = sizes(rows, 0..count);
            added.iter().enumerate().all(|(at, added)| self.0.get(at).unwrap_or(&0) + added <= limit)
        };
        if fits(rows.num_rows()) {
            return rows.num_rows();
        }
        let (mut fitting, mut over) = (0, rows.num_rows());
        while over - fitting > 1 {
            let middle = fitting.midpoint(over);
            if fits(middle) { fitting = middle } else { over = middle }
        }
        fitting
    }

    /// The first column of a table like `rows` that is over the limit.
    pub(super) fn first_over(&self, rows: &RecordBatch, limit: usize) -> Option<String> {
        let mut start = 0;
        rows.schema().fields().iter().zip(rows.columns()).find_map(|(field, column)| {
            let mut levels = Vec::new();
            measure(column, 0..0, &mut levels);
            let own = &self.0[start..start + levels.len()];
            start += levels.len();
            own.iter().any(|&size| size > limit).then(|| field.name().clone())
        })
    }
}

fn sizes(rows: &RecordBatch, range: Range<usize>) -> Vec<usize> {
    let mut sizes = Vec::new();
    rows.columns().iter().for_each(|column| measure(column, range.clone(), &mut sizes));
    sizes
}

/// One size a level that is counted in 32 bits.
fn measure(array: &ArrayRef, rows: Range<usize>, sizes: &mut Vec<usize>) {
    let within = |offsets: &[i32]| offsets[rows.start] as usize..offsets[rows.end] as usize;
    match array.data_type() {
        DataType::Utf8 => sizes.push(within(array.as_string::<i32>().value_offsets()).len()),
        DataType::Binary => sizes.push(within(array.as_binary::<i32>().value_offsets()).len()),
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            let items = within(lists.value_offsets());
            sizes.push(items.len());
            measure(lists.values(), items, sizes);
        }
        DataType::Map(..) => {
            let maps = array.as_map();
            let entries = within(maps.value_offsets());
            sizes.push(entries.len());
            maps.entries().columns().iter().for_each(|column| measure(column, entries.clone(), sizes));
        }
        DataType::Struct(_) => {
            array.as_struct().columns().iter().for_each(|column| measure(column, rows.clone(), sizes));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ListArray, StringArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn rows() -> RecordBatch {
        let words = StringArray::from(vec!["four", "", "seven77", "x"]);
        let lists =
            ListArray::from_iter_primitive::<Int32Type, _, _>([2, 0, 1, 5].map(|items| Some(vec![Some(0); items])));
        RecordBatch::try_from_iter([("w", Arc::new(words) as ArrayRef), ("l", Arc::new(lists) as _)]).unwrap()
    }

    #[test]
    fn what_rows_take_is_counted_wherever_they_begin() {
        let (mut whole, mut parts) = (Sizes::default(), Sizes::default());
        whole.add(&rows());
        parts.add(&rows().slice(0, 1));
        parts.add(&rows().slice(1, 3));
        assert_eq!(whole, Sizes(vec![12, 8]));
        assert_eq!(whole, parts);
    }

    #[test]
    fn as_many_rows_fit_as_the_longest_column_lets() {
        for (limit, fits) in [(100, 4), (12, 4), (11, 3), (10, 2), (3, 0)] {
            assert_eq!(Sizes::default().fitting(&rows(), limit), fits, "{limit}");
        }
        let mut sizes = Sizes::default();
        sizes.add(&rows());
        assert_eq!(sizes.fitting(&rows(), 16), 2);
    }

    #[test]
    fn the_column_that_is_too_long_is_named() {
        let mut sizes = Sizes::default();
        sizes.add(&rows());
        for (limit, column) in [(7, Some("w")), (11, Some("w")), (12, None)] {
            assert_eq!(sizes.first_over(&rows(), limit).as_deref(), column);
        }
        let lists = rows().project(&[1]).unwrap();
        let mut sizes = Sizes::default();
        sizes.add(&lists);
        assert_eq!(sizes.first_over(&lists, 7).as_deref(), Some("l"));
    }
}
