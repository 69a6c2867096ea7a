"""Constants: who reads them, and in which type."""
