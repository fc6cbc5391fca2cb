#!/usr/bin/env bash
# Gets what the cluster needs, once: downloads Flink's jars, and builds Beam's job server for Flink with Maven.
#
#   get.sh          does nothing if everything is already there
#
# Settings, as environment variables, with their defaults:
#   CLUSTER_DIR         directory to install to               (.flink in the project)
#   CLUSTER_PYTHON      a Python with pip                     (.venv of the project, else python3)
#   FLINK_VERSION       version of Flink                      (1.19.3)
#   BEAM_JAVA_VERSION   version of the job server             (2.62.0)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/flink/settings.sh
source "$here/settings.sh"

fail() {
  echo "get.sh: $*" >&2
  exit 1
}

# Flink's jars are in the source distribution of a Python package, so pip is all it takes.
get_flink() {
  [[ -d $FLINK_LIB ]] && return
  local part=$CLUSTER_DIR/flink.part
  rm -rf "$part"
  mkdir -p "$part"
  echo "downloading Flink $FLINK_VERSION (230 MB)"
  "$CLUSTER_PYTHON" -m pip download --quiet --no-deps --no-binary apache-flink-libraries --dest "$part" \
    "apache-flink-libraries==$FLINK_VERSION" >"$part/log" 2>&1 ||
    fail "cannot download Flink $FLINK_VERSION; see $part/log"
  tar -xzf "$part"/apache*flink*libraries-"$FLINK_VERSION".tar.gz -C "$part" --wildcards --strip-components=3 \
    '*/deps/lib/flink-dist-*.jar' '*/deps/lib/log4j-*.jar'
  rm -f "$part"/*.tar.gz "$part/log"
  ls "$part"/flink-dist-*.jar >/dev/null || fail "apache-flink-libraries $FLINK_VERSION has no flink-dist jar"
  mv "$part" "$FLINK_LIB" # last, so that a folder of this name is complete
}

get_job_server() {
  [[ -f $JOB_SERVER_JAR ]] && return
  local part=$CLUSTER_DIR/job-server.part
  rm -rf "$part"
  mkdir -p "$part"
  echo "building Beam's job server $BEAM_JAVA_VERSION for Flink $FLINK_MINOR (about a minute)"
  mvn -B -q -f "$here/job-server/pom.xml" -Dbeam.version="$BEAM_JAVA_VERSION" -Dflink.minor="$FLINK_MINOR" \
    -Dbuild.folder="$part" package >"$CLUSTER_DIR/job-server.log" 2>&1 ||
    fail "cannot build the job server; see $CLUSTER_DIR/job-server.log"
  mv "$part/job-server.jar" "$JOB_SERVER_JAR"
  rm -rf "$part"
}

mkdir -p "$CLUSTER_DIR"
# Two runs at once would remove each other's files.
exec 9>"$CLUSTER_DIR/get.lock"
flock 9
get_flink
get_job_server
