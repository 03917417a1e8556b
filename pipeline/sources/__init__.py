"""Files of others: what is to be known about each kind (YAML), and readers that need no more than that."""
