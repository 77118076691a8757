"""Wire formats: bytes to frames, frames to deltas, deltas to a reply, and back. No I/O."""
