"""Wire formats: bytes to frames, frames to deltas, deltas to a reply, and the way back. No I/O."""
