"""Adapters: one package per foreign form, with how it is read and how it is written."""
