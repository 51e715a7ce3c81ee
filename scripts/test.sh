#!/bin/sh
# Run the tests, setting up first where needed.
#
#   ./scripts/test.sh                        everything but the slow ones
#   ./scripts/test.sh -m slow                the slow ones
#   ./scripts/test.sh tests/project/test_install.py  whatever pytest understands
#   ./scripts/test.sh -n 0 -x                one process instead of two
set -eu

cd "$(dirname "$0")/.."
./scripts/setup.sh
# Most of the time goes into commands that tests start, one thread each: two test processes keep two cores busy.
exec .venv/bin/python -m pytest -n 2 --dist worksteal "$@"
