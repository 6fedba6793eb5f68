"""Measures beside peers, one file a subject: ``python -m benchmarks.NAME [--json]``."""
