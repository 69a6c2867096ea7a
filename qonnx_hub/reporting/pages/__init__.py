"""Pages for the browser: what they consist of, charts, graphs as pictures, templates."""
