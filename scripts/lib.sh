# What the scripts share: where things are, and checks that say in one line what is missing.
# shellcheck shell=sh

# The directory of the project, whatever directory the caller is in.
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
me=$(basename -- "$0")

# Settings of the environment, with their defaults.
IMAGE=${IMAGE:-walbanger}
SERVICE=${SERVICE:-walbanger}
binary=$root/target/static/walbanger

# Exit statuses are those of walbanger itself: 2 for usage, 3 when the machine cannot do it.
usage_error() {
    echo "$me: $*; see $me --help" >&2
    exit 2
}

unable() {
    echo "$me: $*" >&2
    exit 3
}

# Prints the comment at the head of the script: its help is written once.
print_help() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
}

# Shows the help if that is asked for; refuses arguments where there are none.
help_only() {
    case ${1-} in
        '') ;;
        -h | --help)
            print_help
            exit 0
            ;;
        *) usage_error "unknown argument $1" ;;
    esac
}

need_docker() {
    command -v docker >/dev/null 2>&1 ||
        unable "there is no docker client; install it (Debian: apt-get install docker.io)"
    if ! engine_said=$(docker version --format '{{.Server.Version}}' 2>&1); then
        engine_said=$(printf '%s\n' "$engine_said" | grep . | tail -n 1)
        unable "the Docker Engine does not answer: $engine_said; start it (systemctl start docker)"
    fi
}

need_image() {
    docker image inspect "$IMAGE" >/dev/null 2>&1 ||
        unable "there is no image $IMAGE; build it: make image"
}

need_swarm() {
    case $(docker info --format '{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}') in
        'active true') ;;
        active*) unable "this node is no manager of its swarm; run it on one that is" ;;
        *) unable "the Engine is in no swarm; make one: docker swarm init --advertise-addr 127.0.0.1" ;;
    esac
}

need_fuse() {
    [ -c /dev/fuse ] || unable "there is no /dev/fuse; load it: modprobe fuse"
}

need_root() {
    [ "$(id -u)" = 0 ] || unable "$1 needs root; run it with sudo"
}

need_binary() {
    [ -x "$binary" ] || unable "there is no $binary; build it: make image"
}

need_number() {
    case $2 in
        '' | 0* | *[!0-9]*) usage_error "$1 must be a positive number, not '$2'" ;;
    esac
}

need_seconds() {
    case ${2%s} in
        '' | . | *[!0-9.]* | *.*.*) usage_error "$1 must be a number of seconds such as 1s, not '$2'" ;;
    esac
}

# Polls a condition, given as a command, for at most so many seconds.
wait_for() {
    left=$(($1 * 5))
    shift
    until "$@"; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 0.2
    done
}

# The user's directory for one database on both sides of a container's wall.
shared_directory() {
    printf '%s\n' "${WORKDIR:-${HOME:?is not set; name a directory by WORKDIR}/tmp}"
}

# Refuses what docker's --mount could not tell from its own syntax.
mount_source() {
    case $1 in
        *[,\"{}]*) usage_error "docker cannot mount $1; name a directory without , \" { } by WORKDIR" ;;
    esac
}

# Where a swarm over views keeps its volume, its views, and its daemon's papers.
need_state() {
    case $SERVICE in
        '' | -* | *[!A-Za-z0-9_-]*) usage_error "SERVICE must be letters, digits, _ and -, not '$SERVICE'" ;;
    esac
    WORKDIR=${WORKDIR:-/var/lib/walbanger}
    case $WORKDIR in
        /*) ;;
        *) WORKDIR=$PWD/$WORKDIR ;;
    esac
    mount_source "$WORKDIR"
    state=$WORKDIR/$SERVICE
    # shellcheck disable=SC2034 # The scripts use it.
    volume_name=$SERVICE-db
}

# The process id of the mount daemon, if it is running and really ours: process ids are used again.
daemon_pid() {
    pid=$(cat "$state/daemon.pid" 2>/dev/null) || return 1
    case $pid in
        '' | *[!0-9]*) return 1 ;;
    esac
    tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -Fqx "$state/volume" || return 1
    printf '%s\n' "$pid"
}

# The views of this state that are mounted, one a line.
mounted_views() {
    awk -v start="$state/view" '$3 == "fuse.walbanger" && index($2, start) == 1 { print $2 }' /proc/self/mounts
}
