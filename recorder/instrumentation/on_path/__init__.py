"""The folder that `recorder run` puts on PYTHONPATH."""
