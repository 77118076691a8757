"""Evaluates what is said while it streams: sentiment, and the application's own functions."""
