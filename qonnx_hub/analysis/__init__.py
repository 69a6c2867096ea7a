"""What a model holds, costs and would become elsewhere. Nothing is converted."""
