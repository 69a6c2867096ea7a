# The daily commands; each is one line that can be typed by itself.
PYTHON ?= python3.11

.PHONY: install quick test docs bench figures format

install:  ## an environment in .venv with the project, to be edited
	$(PYTHON) -m venv .venv && .venv/bin/pip install -q -e '.[ort]' pytest pytest-xdist hypothesis tox ruff mypy import-linter

quick:  ## the core tests on one Python, four minutes
	.venv/bin/tox run -e core-py311

test:  ## everything, as CI runs it
	.venv/bin/tox

docs:  ## the site
	.venv/bin/tox run -e docs

bench:  ## ratios against qonnx and onnxruntime, in one run
	.venv/bin/python -m benchmarks

MODELS ?= models

figures:  ## the data and the tables of the pages, from a folder of public models (an hour)
	.venv/bin/python benchmarks/proofs.py passes $(MODELS) --table docs/passes.csv
	.venv/bin/python -m benchmarks.keras_files $(MODELS) > docs/keras_files.csv
	.venv/bin/python benchmarks/tflite_files.py $$(find $(MODELS) -name '*.tflite') > docs/tflite_files.csv
	OPENBLAS_NUM_THREADS=1 .venv/bin/python -m benchmarks --models $(MODELS) --history
	.venv/bin/python -m benchmarks.page
	.venv/bin/python docs/figures.py

format:  ## what the linter can mend
	.venv/bin/ruff check --fix && .venv/bin/ruff format
