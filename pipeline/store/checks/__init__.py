"""Checks of a field store: the catalogue, what each finds, and the report with its page of figures."""
