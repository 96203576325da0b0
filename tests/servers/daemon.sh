# Starting and stopping a server whose data is in a folder: sourced by the scripts of the servers after lib.sh, never run.
#
#   NAME install [FLAVOR]     installs all that the flavors need, or one of them
#   NAME start DIR [FLAVOR]   starts a server on a free port of the loopback unless it runs, waits until it answers, and prints
#                             what a client must know as KEY=VALUE lines; on a used DIR the flavor is what it was
#   NAME stop DIR             stops it; harmless if it does not run
#
# The script sets $flavors, the default first, and $ready, a pattern of the lines in the log by which the server tells that it
# answers; it defines `install`, `configure`, which readies $dir and sets the array $command, and `describe`, which prints those lines.
# They have $flavor, $dir, $port, $password. The script ends with `main "$@"`.
patience=120
stop_signal=TERM

fail() {
  echo "$me: $*" >&2
  exit 1
}

random() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

# When a process started, nothing if it has ended: with that a number that was given to another one is told apart.
born() { sed -nE 's/^.*\) [^ZX]( [^ ]+){18} ([0-9]+) .*/\2/p' "/proc/$1/stat" 2>/dev/null || true; }

running() {
  local since
  [ -s "$dir/pid" ] && read -r pid since <"$dir/pid" && [ -n "$since" ] && [ "$(born "$pid")" = "$since" ]
}

# Of several who ask at once one acts, the others wait.
take_turn() {
  exec {turn}>"$dir/lock"
  flock -w $((5 * patience)) "$turn" || fail "another start or stop in $dir takes too long"
}

stop() {
  running || return 0
  local rest
  kill -s "$stop_signal" "$pid"
  for ((rest = 300; rest > 0; rest--)); do
    running || return 0
    sleep 0.1
  done
  kill -s KILL "$pid"
  while running; do sleep 0.1; done
}

start() {
  [ ! -s "$dir/flavor" ] || [ "$flavor" = "$(cat "$dir/flavor")" ] || fail "$dir has another flavor: $(cat "$dir/flavor")"
  if running; then
    cat "$dir/lines"
    return
  fi
  [ -s "$dir/password" ] || random >"$dir/password"
  password=$(cat "$dir/password")
  echo "$flavor" >"$dir/flavor"
  local attempt deadline
  for attempt in 1 2 3 4 5; do
    # Below what the kernel gives to clients; if it is taken, the server says so itself.
    port=$((20000 + RANDOM % 10000))
    configure
    # A session of its own and none of the caller's files: it outlives the caller, who need not wait for it.
    setsid "${command[@]}" >"$dir/log" 2>&1 </dev/null {turn}>&- &
    pid=$!
    echo "$pid $(born "$pid")" >"$dir/pid"
    deadline=$((SECONDS + patience))
    until grep -qE "$ready" "$dir/log"; do
      if ! running; then
        grep -qi 'already in use' "$dir/log" && continue 2
        tail -n 20 "$dir/log" >&2
        fail "it ended at its start"
      fi
      if [ "$SECONDS" -ge "$deadline" ]; then
        stop
        tail -n 20 "$dir/log" >&2
        fail "it does not answer after $patience s"
      fi
      sleep 0.05
    done
    { describe && echo "PID=$pid"; } >"$dir/lines"
    cat "$dir/lines"
    return
  done
  fail "no free port after $attempt attempts"
}

# certificates OWNER: in $dir/tls an authority, a certificate of a server on this machine, and one of a client called certuser.
certificates() {
  local name subject
  [ ! -d "$dir/tls" ] || return 0
  command -v openssl >/dev/null || missing "openssl is missing; on Debian: apt-get install openssl"
  rm -rf "$dir/tls.partial"
  mkdir "$dir/tls.partial"
  (
    cd "$dir/tls.partial"
    new=(openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
    "${new[@]}" -x509 -days 30 -keyout ca.key -out ca.crt -subj '/CN=authority of the tests'
    for name in server client; do
      [ "$name" = server ] && subject=localhost || subject=certuser
      "${new[@]}" -keyout "$name.key" -out "$name.csr" -subj "/CN=$subject"
      printf '%s\n' basicConstraints=critical,CA:FALSE subjectAltName=DNS:localhost,IP:127.0.0.1 >extensions
      openssl x509 -req -days 30 -in "$name.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -out "$name.crt" -extfile extensions
    done
    # Nobody signs with it again.
    rm ca.key extensions ./*.csr
    chmod 755 .
    chmod 644 ./*.crt
    chown "$1" server.key
    openssl verify -CAfile ca.crt server.crt client.crt
  ) >"$dir/tls.log" 2>&1 || { cat "$dir/tls.log" >&2; fail "no certificates"; }
  mv "$dir/tls.partial" "$dir/tls"
}

describe_certificates() {
  echo "CA=$dir/tls/ca.crt"
  echo "CLIENT_CERT=$dir/tls/client.crt"
  echo "CLIENT_KEY=$dir/tls/client.key"
}

main() {
  local action=${1:-} status=0
  case $action/$# in
    install/1)
      # Each on its own: what one lacks does not keep the others from being installed.
      for flavor in "${flavors[@]}"; do "$servers/$me" install "$flavor" || status=$?; done
      exit "$status"
      ;;
    install/2) flavor=$2 ;;
    start/2 | start/3 | stop/2)
      [ -d "$2" ] || fail "no folder $2"
      dir=$(cd "$2" && pwd -P)
      flavor=${3:-$(cat "$dir/flavor" 2>/dev/null || echo "${flavors[0]}")}
      ;;
    *) fail "usage: $me install [FLAVOR] | start DIR [FLAVOR] | stop DIR; flavors: ${flavors[*]}" ;;
  esac
  case " ${flavors[*]} " in *" $flavor "*) ;; *) fail "no flavor $flavor; there are: ${flavors[*]}" ;; esac
  case $action in
    install) install ;;
    stop) take_turn && stop ;;
    start)
      cd "$dir"
      take_turn
      running || install
      umask 077
      start
      ;;
  esac
}
