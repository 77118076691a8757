"""Tests of recorder.costs."""
