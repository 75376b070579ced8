"""The parts of `distill` and `prune`: a smaller or a sparser model from a trained one (docs/export.md)."""
