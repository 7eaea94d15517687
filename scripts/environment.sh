# Sourced by demo.sh and test.sh from the repository root; afterwards `python` has what requirements.txt lists.
#
# An active virtual environment (venv or conda) is used as it is. Where none is active, .venv is made in the repository
# root, and made up to date when requirements.txt has changed since.

find_python() { # the first Python that the pinned versions run on
    local candidate
    for candidate in python3.11 python3 python3.12 python3.13; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "environment: no Python 3.11 or newer with venv was found (Debian, Ubuntu: apt install python3-venv)" >&2
    return 2
}

make_environment() { # .venv/requirements.txt is written last: a copy of what the environment was made from
    local python began=$SECONDS
    python=$(find_python) || exit $?
    echo "environment: installing requirements.txt into .venv (2 to 5 minutes, about 2 GB; with CUDA libraries more)"
    .venv/bin/python3 -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear .venv
    if [ -t 1 ]; then
        .venv/bin/python3 -m pip install -r requirements.txt
    else # a log needs no progress bars: one line for each package of requirements.txt, and when all are unpacked
        .venv/bin/python3 -m pip install --progress-bar off -r requirements.txt | awk '
            /\(from -r / { n = split($2, path, "/"); print "  " $1 " " path[n]; fflush() }
            /^Installing/ { print "  " $1 " " $2 " " $3; fflush() }'
    fi
    cp requirements.txt .venv/requirements.txt
    echo "environment: .venv is ready after $((SECONDS - began)) s"
}

check_environment() { # looks at the metadata alone, which takes no time
    python - requirements.txt <<'PYTHON'
import re, sys
from importlib.metadata import PackageNotFoundError, version

missing, other = [], []
for name, pinned in re.findall(r"^([\w.-]+)==(\S+)", open(sys.argv[1], encoding="utf-8").read(), re.M):
    try:
        found = version(name).partition("+")[0]  # torch says 2.13.0+cpu
    except PackageNotFoundError:
        missing.append(name)
    else:
        other += [f"{name} {found} (not {pinned})"] * (found != pinned)
if other:
    print(f"environment: other versions than in requirements.txt: {', '.join(other)}")
if missing:
    print(f"environment: {sys.prefix} is active and lacks {', '.join(missing)}.", file=sys.stderr)
    print("Install with: pip install -r requirements.txt\nor leave it, and .venv is made here.", file=sys.stderr)
    sys.exit(2)
PYTHON
}

if [ -z "${VIRTUAL_ENV:-}" ] && [ "${CONDA_DEFAULT_ENV:-base}" = base ]; then
    cmp -s requirements.txt .venv/requirements.txt || make_environment
    source .venv/bin/activate
fi
check_environment || exit $?
