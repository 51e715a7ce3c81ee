.PHONY: demo test check bench

demo:  ## train a small BERT on text that comes with Python
	./scripts/demo.sh

test:  ## the fast tests
	./scripts/test.sh

check:  ## lint, format, types, tests
	./scripts/check.sh

bench:  ## lmctl against transformers.Trainer, tokens per CPU-second
	./scripts/setup.sh
	.venv/bin/python scripts/bench/mlm.py
