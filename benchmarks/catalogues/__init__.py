"""Parts of the benchmarks of catalogues."""
