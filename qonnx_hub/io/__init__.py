"""Files and sources: adapters by name, atomic writes, Python callables."""
