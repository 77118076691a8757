"""Tests of `recorder.upkeep`."""
