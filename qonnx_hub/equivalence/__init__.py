"""Whether two models compute the same: inputs, runners, comparison, report."""
