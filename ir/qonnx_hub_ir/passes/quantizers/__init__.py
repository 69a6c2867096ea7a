"""Quantizers: said in another form, put in, stored, or taken out."""
