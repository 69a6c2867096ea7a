"""The result of a check: data, text, one HTML page."""
