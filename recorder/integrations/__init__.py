"""Handlers and memories for other frameworks. Each needs its framework, and is imported by its own name."""
