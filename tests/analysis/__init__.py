"""Tests of `recorder.analysis`."""
