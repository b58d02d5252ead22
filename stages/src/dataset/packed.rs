//! LiveCodeBench's packed test cases: base64 of zlib of a pickle of a text.
//!
//! A pickle is a program for Python that may call anything, so none is ever run: a reader accepts the one program that
//! a text makes, and refuses every other instruction.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;

/// What packed test cases may grow to, in bytes.
const MOST_BYTES: u64 = 1 << 30;

/// The text that is packed, or what is wrong with it.
pub(super) fn unpacked(packed: &str) -> Result<String, String> {
    let zipped = STANDARD.decode(packed.trim()).map_err(|error| format!("is neither JSON nor base64: {error}"))?;
    let mut bytes = Vec::new();
    let mut reader = ZlibDecoder::new(zipped.as_slice()).take(MOST_BYTES + 1);
    reader.read_to_end(&mut bytes).map_err(|error| format!("is not zlib data in base64: {error}"))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("unpacks to more than {} MiB", MOST_BYTES >> 20));
    }
    pickled_text(&bytes).map(str::to_owned)
}

/// The text in a pickle that holds one text and nothing else, of any protocol from 1 on.
fn pickled_text(pickle: &[u8]) -> Result<&str, String> {
    let cut_short = || "is a pickle that ends too soon".to_owned();
    let mut text = None;
    let mut rest = pickle;
    loop {
        let (&opcode, after) = rest.split_first().ok_or_else(cut_short)?;
        // Bytes of a text's length, or of an argument that does not matter.
        let (length_bytes, argument) = match opcode {
            b'.' => return text.ok_or_else(|| "is a pickle without a text".to_owned()), // STOP
            0x94 => (0, 0),                                                             // MEMOIZE
            0x80 | b'q' => (0, 1),                                                      // PROTO, BINPUT
            b'r' => (0, 4),                                                             // LONG_BINPUT
            0x95 => (0, 8),                                                             // FRAME
            0x8c if text.is_none() => (1, 0),                                           // SHORT_BINUNICODE
            b'X' if text.is_none() => (4, 0),                                           // BINUNICODE
            0x8d if text.is_none() => (8, 0),                                           // BINUNICODE8
            _ => {
                let place = pickle.len() - rest.len();
                return Err(format!(
                    "is a pickle of something else than one text (instruction {opcode:#04x} at byte {place}), \
                     which is not run"
                ));
            }
        };
        let (length, after) = after.split_at_checked(length_bytes).ok_or_else(cut_short)?;
        let length = length.iter().rev().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
        let length = usize::try_from(length).map_err(|_| cut_short())?;
        let (bytes, after) = after.split_at_checked(length).ok_or_else(cut_short)?;
        if length_bytes > 0 {
            text = Some(std::str::from_utf8(bytes).map_err(|_| "is a pickle of a text that is not UTF-8".to_owned())?);
        }
        (_, rest) = after.split_at_checked(argument).ok_or_else(cut_short)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // `pickle.dumps("[]é", protocol=n)` of CPython 3.11.
    #[test]
    fn a_pickled_text_is_read_in_every_protocol() {
        let texts: [&[u8]; 3] = [
            b"X\x04\x00\x00\x00[]\xc3\xa9q\x00.",
            b"\x80\x02X\x04\x00\x00\x00[]\xc3\xa9q\x00.",
            b"\x80\x04\x95\x08\x00\x00\x00\x00\x00\x00\x00\x8c\x04[]\xc3\xa9\x94.",
        ];
        for pickle in texts {
            assert_eq!(pickled_text(pickle).unwrap(), "[]é");
        }
    }

    /// `cposix\nsystem\n(...)`, as `pickle.loads` would run it.
    #[test]
    fn a_pickle_that_calls_something_is_refused() {
        let error = pickled_text(b"cposix\nsystem\n(S'echo'\ntR.").unwrap_err();
        assert!(error.contains("instruction 0x63 at byte 0"), "{error}");
        let error = pickled_text(b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93.").unwrap_err();
        assert!(error.contains("instruction 0x8c at byte 10"), "{error}");
    }

    #[test]
    fn a_pickle_that_is_cut_short_is_refused() {
        for pickle in [&b""[..], b"\x80", b"X\x09\x00\x00\x00[]", b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff"] {
            assert_eq!(pickled_text(pickle).unwrap_err(), "is a pickle that ends too soon");
        }
    }
}
