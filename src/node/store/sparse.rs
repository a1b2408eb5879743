//! Which parts of a stretch of bytes are worth writing into a hole.

use std::ops::Range;

/// Holes are made of whole blocks of this many bytes, as file systems make them.
const BLOCK_BYTES: usize = 4096;
const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// The runs of blocks that hold a byte other than zero, as ranges of `bytes`. Blocks are counted
/// from the file's beginning; `offset` is where in the file the bytes go.
pub(crate) fn data_runs(offset: u64, bytes: &[u8]) -> Vec<Range<usize>> {
    let into_block = (offset % BLOCK_BYTES as u64) as usize;
    let (first, rest) = bytes.split_at((BLOCK_BYTES - into_block).min(bytes.len()));
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    for block in std::iter::once(first).chain(rest.chunks(BLOCK_BYTES)) {
        let end = start + block.len();
        match runs.last_mut() {
            _ if ZEROS.starts_with(block) => {}
            Some(run) if run.end == start => run.end = end,
            _ => runs.push(start..end),
        }
        start = end;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(offset: u64, bytes: &[u8]) -> Vec<(usize, usize)> {
        data_runs(offset, bytes).into_iter().map(|run| (run.start, run.end)).collect()
    }

    #[test]
    fn runs_are_blocks_of_the_file_and_not_of_the_piece() {
        let mut bytes = vec![0u8; 4 * BLOCK_BYTES];
        bytes[BLOCK_BYTES] = 1;
        assert_eq!(runs(0, &bytes), [(BLOCK_BYTES, 2 * BLOCK_BYTES)]);
        assert_eq!(runs(4095, &bytes), [(1, BLOCK_BYTES + 1)]);
        assert_eq!(runs(0, &[]), []);
    }

    #[test]
    fn neighbouring_blocks_are_one_run() {
        let mut bytes = vec![1u8; 3 * BLOCK_BYTES + 1];
        assert_eq!(runs(0, &bytes), [(0, 3 * BLOCK_BYTES + 1)]);
        bytes[BLOCK_BYTES..2 * BLOCK_BYTES].fill(0);
        let two = [(0, BLOCK_BYTES), (2 * BLOCK_BYTES, 3 * BLOCK_BYTES + 1)];
        assert_eq!(runs(0, &bytes), two);
    }
}
