"""Graphs: built, rewritten, asked, cut."""
