"""Channels: removed from layers, with everything that belongs to them."""
