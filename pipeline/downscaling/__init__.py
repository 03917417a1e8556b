"""Refining an archive of coarse frames: what goes in, what comes out, and what is done of it."""
