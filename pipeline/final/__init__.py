"""The training of one pair's final model: with the values of a recipe, on any number of workers."""
