//! Messages between the supervisor and a job: a list of byte strings with their lengths.
//!
//! The far end may be a hostile program, so nothing here trusts a length beyond [`MAX_FRAME`].

/// The longest frame that is read.
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

/// The far end sent something that is no frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Collects bytes and gives the frames they make.
#[derive(Default)]
pub(crate) struct Decoder {
    bytes: Vec<u8>,
    received: usize,
}

impl Decoder {
    /// Adds received bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.received += bytes.len();
        self.bytes.extend(bytes);
    }

    /// How many bytes came in all.
    pub(crate) fn received(&self) -> usize {
        self.received
    }

    /// The next whole frame, if there is one.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Malformed> {
        let Some(length) = take_length(&self.bytes) else { return Ok(None) };
        if length > MAX_FRAME {
            return Err(Malformed);
        }
        if self.bytes.len() < 4 + length {
            return Ok(None);
        }
        let rest = self.bytes.split_off(4 + length);
        let frame = std::mem::replace(&mut self.bytes, rest);
        let mut body = &frame[4..];
        let mut fields = Frame::new();
        while !body.is_empty() {
            let length = take_length(body).ok_or(Malformed)?;
            let field = body.get(4..4 + length).ok_or(Malformed)?;
            fields.push(field.to_vec());
            body = &body[4 + length..];
        }
        if fields.is_empty() { Err(Malformed) } else { Ok(Some(fields)) }
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
}
