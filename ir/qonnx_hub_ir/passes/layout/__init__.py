"""Layouts: channels first, channels last, and the Transposes between."""
