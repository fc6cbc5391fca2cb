#!/usr/bin/env bash
# A Flink cluster on this machine that runs Beam pipelines: a JobManager, TaskManagers, and Beam's job server.
#
#   cluster.sh start     installs what is missing (see get.sh), starts everything, waits until jobs can be submitted
#   cluster.sh stop      stops it and every worker it started; touches nothing else on the machine
#   cluster.sh status    shows what is running; exits with 1 unless everything is
#
# Flink listens on 127.0.0.1 only, but Beam's job server and its endpoints for workers listen on every interface. Beam
# has no option for that, so keep it off untrusted networks. Settings, as environment variables, with their defaults:
#   CLUSTER_DIR                 .flink in the project   what get.sh installed
#   CLUSTER_RUN                 $CLUSTER_DIR/run        process ids, logs, configuration; one per cluster
#   CLUSTER_PYTHON              the project's .venv     Python of the workers; needs the client's version of Beam
#   CLUSTER_JAVA                java                    11 or 17
#   CLUSTER_JAVA_FLAGS          -XX:TieredStopAtLevel=1 -XX:+UseSerialGC
#   CLUSTER_TASKMANAGERS        2                       number of TaskManagers
#   CLUSTER_SLOTS               1                       slots per TaskManager; the parallelism is their product
#   CLUSTER_REST_PORT           8081                    Flink's web page and REST interface (--flink_master)
#   CLUSTER_RPC_PORT            6123                    the JobManager
#   CLUSTER_JOB_PORT            8099                    Beam's job server (--job_endpoint)
#   CLUSTER_ARTIFACT_PORT       8098                    Beam's job server, for files that clients send
#   CLUSTER_JOBMANAGER_MEMORY   512                     heap, MB
#   CLUSTER_TASKMANAGER_MEMORY  640                     heap of each, MB; Python workers need 250 to 350 MB more
#   CLUSTER_JOB_SERVER_MEMORY   512                     heap, MB
#   CLUSTER_RESTART_ATTEMPTS    3                       how often a job is restarted after a failure
#   CLUSTER_RESTART_DELAY       4 s                     delay before each restart
#   CLUSTER_START_SECONDS       90                      timeout of start
#   FLINK_VERSION, BEAM_JAVA_VERSION                    see get.sh
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/flink/settings.sh
source "$here/settings.sh"

log=$CLUSTER_RUN/log
conf=$CLUSTER_RUN/conf

fail() {
  echo "cluster.sh: $*" >&2
  exit 1
}

# --- processes -------------------------------------------------------------------------------------------------------

# Start time of a process, in clock ticks since boot: guards against a recorded id that was reused.
start_time() {
  local stat
  { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
  stat=${stat##*) } # the name before it may contain anything, even ") "
  set -- $stat
  [[ $1 != Z ]] && echo "${20}"
}

is_running() {
  local pid started
  [[ -f $CLUSTER_RUN/$1.pid ]] && read -r pid started <"$CLUSTER_RUN/$1.pid" && [[ $(start_time "$pid") == "$started" ]]
}

# launch NAME COMMAND...: in a new session, so that Ctrl-C in this terminal does not reach it.
launch() {
  local name=$1
  shift
  BEAM_CIFAR_CLUSTER_ID=$(<"$CLUSTER_RUN/id") setsid "$@" >"$log/$name.log" 2>&1 </dev/null &
  echo "$! $(start_time $!)" >"$CLUSTER_RUN/$name.pid"
}

names() {
  local file
  for file in "$CLUSTER_RUN"/*.pid; do
    [[ -f $file ]] && basename "$file" .pid
  done
  return 0
}

# end NAME: terminates it, and kills it after ten seconds.
end() {
  local pid _
  if is_running "$1"; then
    read -r pid _ <"$CLUSTER_RUN/$1.pid"
    kill -TERM "$pid" 2>/dev/null || true
    for _ in {1..100}; do
      is_running "$1" || break
      sleep 0.1
    done
    if is_running "$1"; then kill -KILL "$pid" 2>/dev/null || true; fi
  fi
  rm -f "$CLUSTER_RUN/$1.pid"
}

# Workers inherit the cluster's id in their environment, so every process that has it belongs to this cluster.
workers() {
  local id file
  id=$(<"$CLUSTER_RUN/id")
  for file in /proc/[0-9]*/environ; do
    if grep -qzxF "BEAM_CIFAR_CLUSTER_ID=$id" "$file" 2>/dev/null; then
      file=${file#/proc/}
      echo "${file%/environ}"
    fi
  done
}

# --- configuration ---------------------------------------------------------------------------------------------------

write_configuration() {
  mkdir -p "$conf"
  cat >"$conf/flink-conf.yaml" <<YAML
jobmanager.rpc.address: 127.0.0.1
jobmanager.rpc.port: $CLUSTER_RPC_PORT
jobmanager.bind-host: 127.0.0.1
jobmanager.execution.failover-strategy: region
rest.address: 127.0.0.1
rest.bind-address: 127.0.0.1
rest.port: $CLUSTER_REST_PORT
taskmanager.host: 127.0.0.1
taskmanager.bind-host: 127.0.0.1
taskmanager.numberOfTaskSlots: $CLUSTER_SLOTS
taskmanager.cpu.cores: $CLUSTER_SLOTS
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.task.heap.size: $((CLUSTER_TASKMANAGER_MEMORY - 128))m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.task.off-heap.size: 64m
taskmanager.memory.network.min: 256m
taskmanager.memory.network.max: 256m
taskmanager.memory.managed.size: 256m
taskmanager.memory.jvm-metaspace.size: 384m
taskmanager.memory.jvm-overhead.min: 192m
taskmanager.memory.jvm-overhead.max: 192m
parallelism.default: 1
# A killed TaskManager is noticed after ten seconds instead of fifty.
heartbeat.interval: 2000
heartbeat.timeout: 10000
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: $CLUSTER_RESTART_ATTEMPTS
restart-strategy.fixed-delay.delay: $CLUSTER_RESTART_DELAY
io.tmp.dirs: $CLUSTER_RUN/tmp
blob.storage.directory: $CLUSTER_RUN/tmp
# Beam's classes are loaded once, with Flink's: only then do workers outlive a job (--environment_cache_millis).
classloader.resolve-order: parent-first
classloader.check-leaked-classloader: false
YAML
  cat >"$conf/log4j.properties" <<PROPERTIES
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = console
appender.console.name = console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd HH:mm:ss,SSS} %-5p %c{1} - %m%n
PROPERTIES
  # The command of the PROCESS environment must be a single file without arguments.
  printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$CLUSTER_PYTHON" "$project/deploy/flink/boot.py" >"$CLUSTER_RUN/boot"
  chmod +x "$CLUSTER_RUN/boot"
}

java_flags() {
  local package
  common_flags
  for package in lang lang.reflect io net nio text time util util.concurrent util.concurrent.atomic \
    util.concurrent.locks; do
    echo "--add-opens=java.base/java.$package=ALL-UNNAMED"
  done
  echo --add-opens=java.base/sun.nio.ch=ALL-UNNAMED
  echo --add-exports=java.base/sun.net.util=ALL-UNNAMED
  echo --add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED
  echo --add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED
  echo "-Dlog4j.configurationFile=file:$conf/log4j.properties"
  # A JVM that is out of memory must exit, because the others would wait for it.
  echo -XX:+ExitOnOutOfMemoryError
}

common_flags() {
  [[ -z $CLUSTER_JAVA_FLAGS ]] || tr -s ' ' '\n' <<<"$CLUSTER_JAVA_FLAGS"
}

class_path() {
  local jar path=
  # Beam's jar comes after Flink's, because it contains some of the same classes.
  for jar in "$FLINK_LIB"/flink-dist-*.jar "$FLINK_LIB"/log4j-*.jar "$JOB_SERVER_JAR"; do
    path+=${path:+:}$jar
  done
  echo "$path"
}

# --- commands --------------------------------------------------------------------------------------------------------

check_port() {
  if (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null; then
    fail "port $2 is in use; stop what listens there, or set $1 to a free port"
  fi
}

check_start() {
  local name
  for name in $(names); do
    ! is_running "$name" || fail "$name of this cluster is already running; see $0 status, or $0 stop"
  done
  command -v "$CLUSTER_JAVA" >/dev/null || fail "$CLUSTER_JAVA not found; install Java 11 or 17, or set CLUSTER_JAVA"
  "$CLUSTER_PYTHON" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("apache_beam") is None)' 2>/dev/null ||
    fail "$CLUSTER_PYTHON has no apache_beam; run make, or set CLUSTER_PYTHON to a Python that has it"
  check_port CLUSTER_REST_PORT "$CLUSTER_REST_PORT"
  check_port CLUSTER_RPC_PORT "$CLUSTER_RPC_PORT"
  check_port CLUSTER_JOB_PORT "$CLUSTER_JOB_PORT"
  check_port CLUSTER_ARTIFACT_PORT "$CLUSTER_ARTIFACT_PORT"
}

launch_all() {
  local flags number path
  path=$(class_path)
  mapfile -t flags < <(java_flags)
  launch jobmanager "$CLUSTER_JAVA" "-Xmx${CLUSTER_JOBMANAGER_MEMORY}m" "${flags[@]}" -cp "$path" \
    org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint --configDir "$conf"
  for ((number = 1; number <= CLUSTER_TASKMANAGERS; number++)); do
    launch_taskmanager "$number" "$path" "${flags[@]}"
  done
  mapfile -t flags < <(common_flags)
  launch job-server "$CLUSTER_JAVA" "-Xmx${CLUSTER_JOB_SERVER_MEMORY}m" "${flags[@]}" -jar "$JOB_SERVER_JAR" \
    --flink-master "http://127.0.0.1:$CLUSTER_REST_PORT" --artifacts-dir "$CLUSTER_RUN/artifacts" \
    --job-host 127.0.0.1 --job-port "$CLUSTER_JOB_PORT" --artifact-port "$CLUSTER_ARTIFACT_PORT" --expansion-port -1
}

# launch_taskmanager NUMBER CLASS_PATH FLAG...
launch_taskmanager() {
  local number=$1 path=$2
  shift 2
  launch "taskmanager-$number" "$CLUSTER_JAVA" "-Xmx${CLUSTER_TASKMANAGER_MEMORY}m" -Xms256m \
    -XX:MaxDirectMemorySize=512m -XX:MaxMetaspaceSize=384m "$@" -cp "$path" \
    org.apache.flink.runtime.taskexecutor.TaskManagerRunner --configDir "$conf" \
    -D "taskmanager.resource-id=taskmanager-$number"
}

# get PORT PATH: over HTTP, without curl or wget, which may not be installed.
get() {
  {
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf 'GET %s HTTP/1.0\r\nConnection: close\r\n\r\n' "$2" >&3
    cat <&3
  } 2>/dev/null
}

registered() {
  local answer
  answer=$(get "$CLUSTER_REST_PORT" /overview) || return 1
  [[ $answer =~ \"taskmanagers\":([0-9]+) ]] && ((BASH_REMATCH[1] >= CLUSTER_TASKMANAGERS))
}

is_ready() {
  registered && (exec 3<>"/dev/tcp/127.0.0.1/$CLUSTER_JOB_PORT") 2>/dev/null
}

wait_until_ready() {
  local name deadline=$((SECONDS + CLUSTER_START_SECONDS))
  until is_ready; do
    for name in $(names); do
      is_running "$name" || fail "$name exited during start-up; see $log/$name.log"
    done
    ((SECONDS < deadline)) || fail "not ready after $CLUSTER_START_SECONDS s; see the logs in $log"
    sleep 0.25
  done
}

start() {
  check_start
  "$here/get.sh"
  if [[ ! -d $conf && (-e $CLUSTER_RUN/tmp || -e $CLUSTER_RUN/artifacts || -e $log) ]]; then
    fail "$CLUSTER_RUN contains files that are not from a cluster; set CLUSTER_RUN to another directory"
  fi
  rm -rf "$CLUSTER_RUN/tmp" "$CLUSTER_RUN/artifacts" "$log"
  mkdir -p "$log" "$CLUSTER_RUN/tmp" "$CLUSTER_RUN/artifacts"
  echo "$$-$(start_time $$)-$RANDOM$RANDOM" >"$CLUSTER_RUN/id"
  write_configuration
  trap stop EXIT # also when interrupted
  launch_all
  wait_until_ready
  trap - EXIT
  cat >"$CLUSTER_RUN/cluster.json" <<JSON
{"job_endpoint": "127.0.0.1:$CLUSTER_JOB_PORT", "flink_master": "127.0.0.1:$CLUSTER_REST_PORT",
 "boot": "$CLUSTER_RUN/boot", "job_server_jar": "$JOB_SERVER_JAR", "taskmanagers": $CLUSTER_TASKMANAGERS}
JSON
  echo "Flink $FLINK_VERSION is running with $CLUSTER_TASKMANAGERS TaskManagers; logs: $log. Flags for beam-cifar:"
  echo "  --runner=PortableRunner --job_endpoint=127.0.0.1:$CLUSTER_JOB_PORT" \
    "--flink_master=127.0.0.1:$CLUSTER_REST_PORT --environment_type=PROCESS" \
    "--environment_config='{\"command\": \"$CLUSTER_RUN/boot\"}' --environment_cache_millis=1500" \
    "--execution_mode_for_batch=BATCH --parallelism=$((CLUSTER_TASKMANAGERS * CLUSTER_SLOTS))"
}

stop() {
  local name pid
  [[ -f $CLUSTER_RUN/id ]] || return 0
  # The job server first, so that no job arrives; TaskManagers before the JobManager, so that they shut down cleanly.
  for name in $(names | sort); do
    [[ $name == jobmanager ]] || end "$name"
  done
  end jobmanager
  for pid in $(workers); do
    kill -KILL "$pid" 2>/dev/null || true
  done
  rm -rf "$CLUSTER_RUN/tmp" "$CLUSTER_RUN/artifacts" "$CLUSTER_RUN/cluster.json" "$CLUSTER_RUN/id"
}

status() {
  local name all=0 pid _
  for name in $(names); do
    if is_running "$name"; then
      read -r pid _ <"$CLUSTER_RUN/$name.pid"
      echo "$name is running, process $pid"
    else
      echo "$name is not running; see $log/$name.log"
      all=1
    fi
  done
  [[ -n $(names) ]] || fail "no cluster is running in $CLUSTER_RUN"
  is_ready || fail "the cluster is not ready; see the logs in $log"
  return "$all"
}

case ${1:-} in
  start) start ;;
  stop) stop ;;
  status) status ;;
  *) fail "usage: cluster.sh start|stop|status" ;;
esac
