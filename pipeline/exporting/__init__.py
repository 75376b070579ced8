"""The parts of `export` and `exported`: manifests, conversions, runtimes, parity (docs/export.md)."""
