"""Measures of the engine's own cost; see docs/internals/benchmarks.md."""
