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

# unpack_wheels FOLDER WHAT…: puts packages of Python's registry into FOLDER/wheel, with $python, or python3. WHAT is what
# `pip install` takes, --no-deps where nothing else is to come along.
unpack_wheels() {
  local folder=$1 python=${python:-python3}
  local pip=("$python" -m pip)
  shift
  command -v "$python" >/dev/null || missing "python3 is missing"
  if ! "${pip[@]}" --version >/dev/null 2>&1; then
    mkdir "$folder/pip"
    unpack_debian "$folder/pip" python3-pip
    pip=(env "PYTHONPATH=$folder/pip/usr/lib/python3/dist-packages" "$python" -m pip)
  fi
  "${pip[@]}" install --quiet --disable-pip-version-check --root-user-action=ignore --no-compile \
    --only-binary=:all: --target "$folder/wheel" "$@"
  rm -rf "$folder/pip"
}

# unpack_jars FOLDER GROUP:NAME:VERSION…: puts jars of Maven's registry, and all they need, into FOLDER/jars.
unpack_jars() {
  local folder=$1 group name version
  shift
  command -v mvn >/dev/null || missing "Maven is missing; on Debian: apt-get install maven"
  {
    echo '<project><modelVersion>4.0.0</modelVersion><groupId>local</groupId><artifactId>jars</artifactId>'
    echo '<version>1</version><packaging>pom</packaging><dependencies>'
    while IFS=: read -r group name version; do
      echo "<dependency><groupId>$group</groupId><artifactId>$name</artifactId><version>$version</version></dependency>"
    done < <(printf '%s\n' "$@")
    echo '</dependencies></project>'
  } >"$folder/pom.xml"
  # Else Java takes the home that the system knows of, which need not be $HOME.
  MAVEN_OPTS="${MAVEN_OPTS:-} -Duser.home=$HOME" mvn -q -B -Dstyle.color=never -Dmaven.artifact.threads=16 -f "$folder/pom.xml" \
    "org.apache.maven.plugins:maven-dependency-plugin:$MAVEN_DEPENDENCY_PLUGIN:copy-dependencies" \
    -DincludeScope=runtime "-DoutputDirectory=$folder/jars"
  rm "$folder/pom.xml"
}

# need_java: the JDK, not only what runs programs.
need_java() {
  local release
  release=$(javac -version 2>&1 | sed -n 's/^javac \([0-9]*\).*/\1/p') || true
  [ "${release:-0}" -ge "$JAVA_AT_LEAST" ] ||
    missing "a JDK, $JAVA_AT_LEAST or newer, is missing; on Debian: apt-get install openjdk-$JAVA_AT_LEAST-jdk-headless"
}
