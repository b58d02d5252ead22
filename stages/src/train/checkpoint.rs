//! A training checkpoint: the steps so far and the trainer's state in one file, so that neither is ahead of the other.

use tracetune_kernels::train::StepReport;

/// Goes up when the layout changes; a file of another version is not read.
const MAGIC: &[u8; 24] = b"tracetune training v2\n\0\0";

/// Version, length of the curve, the curve as JSON, the state.
pub(super) fn to_bytes(curve: &[StepReport], state: &[u8]) -> Vec<u8> {
    let curve = serde_json::to_vec(curve).expect("reports are plain data");
    let length = (curve.len() as u64).to_le_bytes();
    [&MAGIC[..], &length, &curve, state].concat()
}

/// `None` for anything else.
pub(super) fn from_bytes(bytes: &[u8]) -> Option<(Vec<StepReport>, &[u8])> {
    let (length, rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk()?;
    let (curve, state) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    Some((serde_json::from_slice(curve).ok()?, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_comes_back_whole_or_not_at_all() {
        let bytes = to_bytes(&[], b"state");
        assert_eq!(from_bytes(&bytes).map(|(curve, state)| (curve.len(), state)), Some((0, &b"state"[..])));
        for length in 0..bytes.len() - b"state".len() {
            assert!(from_bytes(&bytes[..length]).is_none(), "{length}");
        }
        assert!(from_bytes(&[b"an older version".as_slice(), &bytes].concat()).is_none());
    }
}
