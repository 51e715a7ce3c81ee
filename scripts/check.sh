#!/bin/sh
# Everything a change must pass, for people and machines alike: lint, format, types, tests.
#
#   ./scripts/check.sh           all of it
#   ./scripts/check.sh --fast    without the tests
set -eu

case "${1:-}" in
    "" | --fast) ;;
    *) echo "usage: $0 [--fast]" >&2; exit 2 ;;
esac

cd "$(dirname "$0")/.."
./scripts/setup.sh
run() { printf '== %s\n' "$*"; ".venv/bin/$@"; }
run ruff check .
run ruff format --check .
run mypy
[ "${1:-}" = --fast ] || ./scripts/test.sh
