//! Messages between the supervisor and a job: a list of byte strings with their lengths.
//!
//! The far end may be a hostile program: lengths, numbers of frames and memory are held to what the caller accepts.

use super::call::Bounds;

/// The longest frame that is read, unless the caller says otherwise.
pub(crate) const MAX_FRAME: usize = 4 << 20;

/// A received frame: its fields, the first of which is its tag.
pub(crate) type Frame = Vec<Vec<u8>>;

/// The bytes of a frame: a length, then each field with its own; lengths are 32 bits, little endian.
pub(crate) fn encode<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    for field in fields {
        bytes.extend((field.len() as u32).to_le_bytes());
        bytes.extend(field);
    }
    let length = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// The far end sent something that is no frame, or more than is accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Memory that a frame and a field of it take beside their bytes.
const FRAME_COST: usize = 64;
const FIELD_COST: usize = 48;

/// Collects bytes and returns the frames they make, as many as the caller accepts.
#[derive(Default)]
pub(crate) struct Decoder {
    bounds: Bounds,
    /// Received and not yet returned, from `start` on.
    bytes: Vec<u8>,
    start: usize,
    received: usize,
    frames: usize,
    /// Memory that the returned frames take.
    taken: usize,
}

impl Decoder {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Adds received bytes. [`Decoder::next`] is to be called before more are added: it refuses what is too long.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.received += bytes.len();
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend(bytes);
    }

    /// How many bytes came in all.
    pub(crate) fn received(&self) -> usize {
        self.received
    }

    /// The next whole frame, if there is one; an error from the first one on that is more than is accepted.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Malformed> {
        let unread = &self.bytes[self.start..];
        if unread.is_empty() {
            return Ok(None);
        }
        if self.frames >= self.bounds.frames {
            return Err(Malformed);
        }
        let Some(length) = take_length(unread) else { return Ok(None) };
        if length > self.bounds.frame_bytes {
            return Err(Malformed);
        }
        let Some(mut body) = unread.get(4..4 + length) else { return Ok(None) };
        let mut fields = Frame::new();
        let mut taken = self.taken + FRAME_COST;
        while !body.is_empty() {
            let length = take_length(body).ok_or(Malformed)?;
            let field = body.get(4..4 + length).ok_or(Malformed)?;
            taken += FIELD_COST + field.len();
            if taken > self.bounds.bytes {
                return Err(Malformed);
            }
            fields.push(field.to_vec());
            body = &body[4 + length..];
        }
        if fields.is_empty() {
            return Err(Malformed);
        }
        self.start += 4 + length;
        self.taken = taken;
        self.frames += 1;
        Ok(Some(fields))
    }
}

fn take_length(bytes: &[u8]) -> Option<usize> {
    bytes.first_chunk::<4>().map(|length| u32::from_le_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let bytes: Vec<u8> = [encode([&b"a"[..], b"", b"long field"]), encode([&b"done"[..]])].concat();
        for cut in 0..bytes.len() {
            let mut decoder = Decoder::default();
            let mut frames = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                decoder.push(part);
                while let Some(frame) = decoder.next().unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(frames, [vec![b"a".to_vec(), b"".to_vec(), b"long field".to_vec()], vec![b"done".to_vec()]]);
        }
    }

    #[test]
    fn a_lying_length_is_refused() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_le_bytes());
        assert_eq!(decoder.next(), Err(Malformed));
        let mut decoder = Decoder::default();
        decoder.push(&[8, 0, 0, 0, 255, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(decoder.next(), Err(Malformed));
    }
    fn accepted(bounds: Bounds, bytes: &[u8]) -> (usize, Result<Option<Frame>, Malformed>) {
        let mut decoder = Decoder::new(bounds);
        decoder.push(bytes);
        let mut frames = 0;
        loop {
            match decoder.next() {
                Ok(Some(_)) => frames += 1,
                end => return (frames, end),
            }
        }
    }

    #[test]
    fn frames_beyond_those_asked_for_are_refused() {
        let flood = encode([&b"x"[..]]).repeat(5);
        assert_eq!(accepted(Bounds::frames(5), &flood), (5, Ok(None)));
        assert_eq!(accepted(Bounds::frames(4), &flood), (4, Err(Malformed)));
    }

    #[test]
    fn a_frame_that_is_longer_than_asked_for_is_refused_before_it_has_come() {
        let bounds = Bounds { frame_bytes: 100, ..Bounds::default() };
        assert_eq!(accepted(bounds, &101_u32.to_le_bytes()), (0, Err(Malformed)));
    }

    #[test]
    fn empty_fields_count_as_the_memory_they_take() {
        let bounds = Bounds { bytes: 10_000, ..Bounds::default() };
        assert_eq!(accepted(bounds, &encode([&b""[..]; 100])), (1, Ok(None)));
        assert_eq!(accepted(bounds, &encode([&b""[..]; 1000])), (0, Err(Malformed)));
    }
}
