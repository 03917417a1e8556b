"""Readers of foreign files, all alike to `ingest`: grids, GeoTIFF, ODIM and other HDF5 images.

A source knows its header and hands out its frames in blocks; no file stays open in between, so that a year of
one-frame files is no problem. Whatever the libraries underneath raise becomes one line that names the file.
"""

from pipeline.sources.readers.base import Header, Selection, Source
from pipeline.sources.readers.opening import open_source
from pipeline.sources.readers.times import name_times

__all__ = ["Header", "Selection", "Source", "name_times", "open_source"]
