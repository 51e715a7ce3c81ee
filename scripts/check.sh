#!/bin/sh
# Everything a change must pass, for people and machines alike: lint, format, types, the quick tests and one slow one.
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
run python scripts/reference.py --check
# Of the slow tests one has its turn with each commit, so that in time all of them have.
[ "${1:-}" = --fast ] || ./scripts/test.sh --turn "$(git rev-list --count HEAD 2>/dev/null || echo 0)"
