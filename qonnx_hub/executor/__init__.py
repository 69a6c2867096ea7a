"""The numpy executor: a graph becomes a plan once, then runs many times."""
