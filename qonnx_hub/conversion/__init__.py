"""What a conversion must pass before anything is written."""
