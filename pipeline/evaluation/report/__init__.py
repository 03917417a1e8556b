"""The report that people read: a page of text, tables and figures in one file that needs no network."""
