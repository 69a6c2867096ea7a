"""Opsets: old operators raised to those the IR is written in."""
