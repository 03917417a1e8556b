"""From foreign files to a field store: what `jobs/ingest.py` does."""
