"""Fields: where they are kept, how they are brought in, and the windows that models learn from."""
