"""From a field store to batches of windows: pairs, splits, scaling, order, covariates."""
