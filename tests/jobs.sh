# Starting and ending processes from the scripts of this project: sourced, never run.
#
# Each job gets a process group of its own and no input. Whatever a group still holds when its job is over, or when the
# script ends for whatever reason, is told to end.

declare -A groups=()

# start COMMAND…: starts a job and leaves its process id, which is also its group's, in $job.
start() {
  set -m
  "$@" </dev/null &
  job=$!
  set +m
  groups[$job]=1
}

# finish PID: waits for the job, ends what it left behind, and returns its status.
finish() {
  local status=0
  wait "$1" || status=$?
  kill -TERM -- "-$1" 2>/dev/null
  unset "groups[$1]"
  return "$status"
}

# run COMMAND…: a job from its start to its end.
run() {
  start "$@"
  finish "$job"
}

# end PID: tells a job to end and waits until it has.
end() {
  kill -TERM -- "-$1" 2>/dev/null
  wait "$1" 2>/dev/null
  unset "groups[$1]"
}

end_all() {
  trap '' INT TERM HUP
  local pid
  for pid in "${!groups[@]}"; do end "$pid"; done
}

trap end_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
