"""What is measured, a module per subject: the statistic that is summed, and the metrics made from it."""
