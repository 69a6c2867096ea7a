"""Layers: dense layers, their biases, and the normalizations behind them."""
