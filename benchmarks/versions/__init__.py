"""Parts of :mod:`benchmarks.duplicates`: other versions of works, works that nobody wrote, and what grouping holds."""
