#!/bin/sh
# Run the tests, setting up first where needed.
#
#   ./scripts/test.sh                        everything but the slow ones
#   ./scripts/test.sh -m slow                the slow ones
#   ./scripts/test.sh tests/test_install.py  whatever pytest understands
set -eu

cd "$(dirname "$0")/.."
./scripts/setup.sh
exec .venv/bin/python -m pytest "$@"
