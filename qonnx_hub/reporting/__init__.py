"""What all reports have in common: tables, plain data, and how they are shown."""
