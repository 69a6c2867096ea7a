"""Run the command line with ``python -m qonnx_hub``."""

from qonnx_hub.cli import main

if __name__ == "__main__":
    main()
