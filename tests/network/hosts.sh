#!/usr/bin/env bash
# Several hosts on one machine: network namespaces on a bridge, each link at a given rate, and a job of mpirun over them.
# The recipe for Open MPI 4.1: an agent in the place of ssh enters the namespace and gives it a host name of its own.
set -u

usage() {
  cat <<'EOF'
usage: hosts.sh [--hosts N] [--rate RATE] [--ranks-per-host R] [--link-down-after SECONDS] [--once] -- COMMAND ARG…

Runs COMMAND as N × R ranks of mpirun on N hosts (network namespaces), whose links carry RATE each way.
  --hosts N                  default 2
  --rate RATE                as tc writes it: 1gbit (default), 4gbit, 100mbit
  --ranks-per-host R         default 1
  --link-down-after SECONDS  cuts the last host's link so long after the job's start, and prints a line
  --once                     runs COMMAND once, on the first host; there "$PLAIT_RANKS" COMMAND2 ARG… starts a job of
                             N × R ranks, as often as it likes

Needs root, ip and tc (iproute2). Exit code: mpirun's; 77 if namespaces cannot be made here; 2 on wrong usage.
EOF
}

hosts=2 rate=1gbit ranks_per_host=1 link_down_after= once=
while [ $# -gt 0 ]; do
  case "$1" in
    --hosts) hosts=$2; shift 2 ;;
    --rate) rate=$2; shift 2 ;;
    --ranks-per-host) ranks_per_host=$2; shift 2 ;;
    --link-down-after) link_down_after=$2; shift 2 ;;
    --once) once=yes; shift ;;
    --help) usage; exit 0 ;;
    --) shift; break ;;
    *) echo "hosts.sh: unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
done
[ $# -gt 0 ] || { usage >&2; exit 2; }

skip() { echo "hosts.sh: skipped: $1"; exit 77; }
[ "$(id -u)" = 0 ] || skip "network namespaces need root"
command -v ip >/dev/null && command -v tc >/dev/null || skip "ip and tc (iproute2) are not installed"

# Names of this run alone, so that two runs at a time do not meet; interface names hold 15 characters.
id=$(printf '%x' $(($$ % 65536)))
bridge=plb$id
subnet=10.$((200 + $$ % 50)).$(($$ / 50 % 250))
work=$(mktemp -d)
host() { echo "plait${id}h$1"; }

cutter=
clean_up() {
  [ -n "$cutter" ] && kill "$cutter" 2>/dev/null
  for ((i = 0; i < hosts; ++i)); do
    ip netns del "$(host "$i")" 2>/dev/null
    rm -rf "/etc/netns/$(host "$i")"
  done
  ip link del "$bridge" 2>/dev/null
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

ip link add "$bridge" type bridge 2>/dev/null || skip "this kernel or container makes no bridges"
ip link set "$bridge" up
names=() slots=()
for ((i = 0; i < hosts; ++i)); do
  name=$(host "$i")
  ip netns add "$name" 2>/dev/null || skip "this kernel or container makes no network namespaces"
  ip link add "plv$id-$i" type veth peer name eth0 netns "$name" || exit 1
  ip link set "plv$id-$i" master "$bridge" up
  ip -n "$name" link set lo up
  ip -n "$name" addr add "$subnet.$((i + 1))/24" dev eth0
  ip -n "$name" link set eth0 up
  # mpirun's keepalive probes an idle connection only; with data under way to a host that is gone, TCP itself must give
  # up, after seconds and not its usual quarter of an hour.
  ip netns exec "$name" sysctl -q -w net.ipv4.tcp_retries2=5
  # Both ends: what leaves the host, and what the bridge sends to it.
  tc -n "$name" qdisc add dev eth0 root tbf rate "$rate" burst 128kb latency 50ms || exit 1
  tc qdisc add dev "plv$id-$i" root tbf rate "$rate" burst 128kb latency 50ms || exit 1
  names+=("$name")
  slots+=("$name:$ranks_per_host")
done
for name in "${names[@]}"; do
  mkdir -p "/etc/netns/$name"
  echo "127.0.0.1 localhost" > "/etc/netns/$name/hosts"
  for ((i = 0; i < hosts; ++i)); do echo "$subnet.$((i + 1)) $(host "$i")" >> "/etc/netns/$name/hosts"; done
done

# In the place of ssh: drops options, takes the host's name, runs the rest there under that name.
cat > "$work/agent" <<'EOF'
#!/usr/bin/env bash
while [ "${1#-}" != "$1" ]; do shift; done
host=$1; shift
exec ip netns exec "$host" unshare --uts bash -c "hostname $host; $*"
EOF
chmod +x "$work/agent"

if [ -n "$link_down_after" ]; then
  (
    sleep "$link_down_after"
    last=$((hosts - 1))
    ip link set "plv$id-$last" down
    echo "hosts.sh: the link of $(host "$last") is down"
  ) &
  cutter=$!
fi

# Starts a job of ranks; for use on the first host.
# The eager limit and the large sends let an exchange in both directions reach the link's rate; keepalive lets mpirun
# notice a host that is gone within 8 seconds, after the deadlines of ranks that are tested here.
cat > "$work/ranks" <<EOF
#!/usr/bin/env bash
exec mpirun \\
  --mca plm_rsh_agent "$work/agent" --host "$(IFS=,; echo "${slots[*]}")" -np $((hosts * ranks_per_host)) \\
  --mca pml ob1 --mca btl tcp,vader,self --mca btl_tcp_if_include $subnet.0/24 \\
  --mca oob_tcp_if_include $subnet.0/24 --bind-to none --mca mpi_yield_when_idle 1 \\
  --mca btl_tcp_eager_limit 16777216 --mca btl_tcp_max_send_size 16777216 --mca btl_tcp_flags 1 \\
  --mca btl_tcp_sndbuf 0 --mca btl_tcp_rcvbuf 0 \\
  --mca oob_tcp_keepalive_time 5 --mca oob_tcp_keepalive_intvl 1 --mca oob_tcp_keepalive_probes 3 \\
  -x OMP_NUM_THREADS "\$@"
EOF
chmod +x "$work/ranks"

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PLAIT_RANKS="$work/ranks"
command=("$PLAIT_RANKS" "$@")
[ -z "$once" ] || command=("$@")
"$work/agent" "${names[0]}" exec "$(printf '%q ' "${command[@]}")"
