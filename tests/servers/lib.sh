# What the installers share: sourced by each of them, never run.
#
# An installer puts one thing into a folder of the cache that is named after it and its version, once, and prints the
# path to use; everything else it says goes to stderr. It ends with 3 where something it needs is missing on this
# machine, after it has said what to install, in the file $LACKS too where that is set.
set -euo pipefail

me=$(basename "$0")
servers=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/spec-driven-ai
# shellcheck source=versions
. "$servers/versions"

missing() {
  echo "$me: $*" >&2
  [ -z "${LACKS:-}" ] || echo "$me: $*" >"$LACKS"
  exit 3
}

# install_once FOLDER COMMAND…: unless the cache has FOLDER, runs the command with the path of an empty folder that
# becomes FOLDER if it succeeds. Of several who ask at once one installs, the others wait.
install_once() {
  local folder=$cache/$1
  shift
  [ -d "$folder" ] && return
  mkdir -p "$cache/locks"
  exec {lock}>"$cache/locks/$(basename "$folder")"
  flock "$lock"
  if [ ! -d "$folder" ]; then
    echo "$me: installing into $folder" >&2
    partial=$(mktemp -d "$cache/partial.XXXXXX")
    trap 'rm -rf "$partial"' EXIT
    "$@" "$partial" >&2
    chmod 755 "$partial"
    mv -T "$partial" "$folder"
  fi
  exec {lock}>&-
}

# unpack_debian FOLDER PACKAGE…: unpacks the packages and whatever they need that this machine lacks, without
# installing them, so that no root is needed.
unpack_debian() {
  local folder=$1 wanted
  shift
  { command -v apt-get && command -v dpkg; } >/dev/null || missing "no Debian packages on this machine; install $1 and put it on PATH"
  if ! apt-get -s install --no-install-recommends "$@" >/dev/null 2>&1; then
    [ "$(id -u)" = 0 ] || missing "no package index; as root: apt-get update"
    apt-get -qq update
  fi
  mapfile -t wanted < <({
    printf '%s\n' "$@"
    apt-get -s install --no-install-recommends "$@" | awk '$1 == "Inst" { print $2 }'
  } | sort -u)
  mkdir "$folder/packages"
  (cd "$folder/packages" && apt-get -qq -o APT::Sandbox::User=root download "${wanted[@]}")
  local package
  for package in "$folder"/packages/*.deb; do dpkg -x "$package" "$folder"; done
  rm -r "$folder/packages"
}
