#!/usr/bin/env bash
# Lint, format and tests; exit status 0 where all three are fine.
#
#     bash scripts/test.sh                          # all of it
#     bash scripts/test.sh tests/test_collator.py   # arguments go to pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh

# With the tests' tiny models, threads wait for each other longer than they compute.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

status=0
echo "ruff check" && python -m ruff check . || status=1
echo "ruff format --check" && python -m ruff format --check . || status=1
echo "pytest" && python -m pytest "$@" || status=1
exit "$status"
