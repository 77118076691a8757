"""Runs and evaluations as OpenTelemetry has them, and how stored ones are sent to a collector."""
