"""Files here or on an object store: written whole, held by one at a time, trouble told in one line."""
