"""Scales: taken out of quantizers and moved past linear layers."""
