"""Quantizers: in another form, inserted, stored, or removed."""
