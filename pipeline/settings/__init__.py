"""The parts of the configuration; `pipeline.config` is the tree."""
