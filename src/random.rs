//! Random numbers that follow from a seed.

/// One step of xorshift64*: enough to spread choices, and replayable from its seed.
pub fn next_random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D)
}
