#!/usr/bin/env bash
# Gets what the cluster is made of, once: Flink's jars, and Beam's job server for Flink, built with Maven.
#
#   get.sh          a second run does nothing
#
# Settings, as environment variables:
#   CLUSTER_DIR         where it is kept                      (.flink in the project)
#   CLUSTER_PYTHON      a Python with pip                     (.venv of the project, else python3)
#   FLINK_VERSION       of Flink                              (1.19.3)
#   BEAM_JAVA_VERSION   of the job server                     (2.62.0)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=deploy/flink/settings.sh
source "$here/settings.sh"

fail() {
  echo "get.sh: $*" >&2
  exit 1
}

# Flink's jars come as the source distribution of a Python package; only pip is needed.
get_flink() {
  [[ -d $FLINK_LIB ]] && return
  local part=$CLUSTER_DIR/flink.part
  rm -rf "$part"
  mkdir -p "$part"
  echo "getting Flink $FLINK_VERSION (230 MB)"
  "$CLUSTER_PYTHON" -m pip download --quiet --no-deps --no-binary apache-flink-libraries --dest "$part" \
    "apache-flink-libraries==$FLINK_VERSION" >"$part/log" 2>&1 ||
    fail "Flink $FLINK_VERSION could not be downloaded; see $part/log"
  tar -xzf "$part"/apache*flink*libraries-"$FLINK_VERSION".tar.gz -C "$part" --wildcards --strip-components=3 \
    '*/deps/lib/flink-dist-*.jar' '*/deps/lib/log4j-*.jar'
  rm -f "$part"/*.tar.gz "$part/log"
  ls "$part"/flink-dist-*.jar >/dev/null || fail "apache-flink-libraries $FLINK_VERSION holds no flink-dist jar"
  mv "$part" "$FLINK_LIB" # last: a folder of this name is whole
}

get_job_server() {
  [[ -f $JOB_SERVER_JAR ]] && return
  local part=$CLUSTER_DIR/job-server.part
  rm -rf "$part"
  mkdir -p "$part"
  echo "building Beam's job server $BEAM_JAVA_VERSION for Flink $FLINK_MINOR (about a minute)"
  mvn -B -q -f "$here/job-server/pom.xml" -Dbeam.version="$BEAM_JAVA_VERSION" -Dflink.minor="$FLINK_MINOR" \
    -Dbuild.folder="$part" package >"$CLUSTER_DIR/job-server.log" 2>&1 ||
    fail "the job server could not be built; see $CLUSTER_DIR/job-server.log"
  mv "$part/job-server.jar" "$JOB_SERVER_JAR"
  rm -rf "$part"
}

mkdir -p "$CLUSTER_DIR"
# Two at once would take each other's files away.
exec 9>"$CLUSTER_DIR/get.lock"
flock 9
get_flink
get_job_server
