"""What a run cost: prices, and an estimate of the usage that a provider did not report."""
