# What scenarios are written in. Sourced by busybox's sh with `set -eu -o pipefail`: a command that
# fails ends the scenario, and the step it was in is its result.
#
#   A  the peer: its PCI address; Linux's own driver has it, as `lan` in the network namespace `lan`
#   B  under test: its PCI address; vfio-pci has it once `take_nic` has been called

# Times below are what a quiet machine needs at most. A busy one may take so many times as long.
PATIENCE=4

PEER=10.0.0.1
OURS=10.0.0.2
SITE=/tmp/site
# What B is set to by the programs below, such as `,vlan=5`.
SETTINGS=

# This shell would take busybox's own commands of these names before those in PATH.
ip() { /rig/bin/ip "$@"; }
tc() { /rig/bin/tc "$@"; }

# --- saying what happens -------------------------------------------------------------------------

# Names what is being tried from here on.
step() {
    echo "== [$(cut -d ' ' -f 1 /proc/uptime)] $*"
    echo "$*" >/tmp/step
}

fail() {
    echo "failed: $*" >&2
    # The first reason is the cause: in $(...) only the inner shell ends here.
    [ -e /tmp/why ] || echo "$*" >/tmp/why
    exit 1
}

skip() {
    echo "$*" >/tmp/skip
    exit 0
}

# want WHAT GOT OPERATOR EXPECTED, such as: want "frames lost" 0 -eq 0
want() {
    echo "   $1: $2 (want $3 $4)"
    test "$2" "$3" "$4" 2>/dev/null || fail "$1 is '$2', not $3 '$4'"
}

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
    local end=$(($(uptime_seconds) + $1 * PATIENCE))
    shift
    while ! "$@" >/dev/null 2>&1; do
        [ "$(uptime_seconds)" -lt "$end" ] || fail "not within its time: $*"
        usleep 100000
    done
}

uptime_seconds() {
    local up
    read -r up _ </proc/uptime
    echo "${up%.*}"
}

# refused COMMAND...: the command must fail.
refused() {
    ! "$@" || fail "was not refused: $*"
}

# --- the host --------------------------------------------------------------------------------------

# host link a|b up|down, host unplug a|b: done by the machine's monitor. It is asked once more where no
# answer comes; by the number it knows what it has done already.
host() {
    local answer number
    number=$(($(cat /run/asked 2>/dev/null || echo 0) + 1))
    echo "$number" >/run/asked
    exec 9<>/dev/ttyS1
    echo "do $number $*" >&9
    answered "$number" || {
        echo "   the host is asked again"
        echo "do $number $*" >&9
        answered "$number" || fail "host $*: no answer"
    }
    exec 9>&-
    [ "$answer" = ok ] || fail "host $*: $answer"
}

# answered NUMBER: waits for the host's answer to that request, and passes over late ones to earlier
# requests; it goes to $answer. The host itself gives its monitor ten seconds.
answered() {
    local to
    while read -r -t $((15 * PATIENCE)) to answer <&9; do
        [ "$to" != "$1" ] || return 0
    done
    return 1
}

# --- the NICs --------------------------------------------------------------------------------------

# First PCI function behind the root port of slot $1; virtual ones are not called 00.0.
behind() {
    ls "/sys/bus/pci/devices/0000:00:$1.0" | grep '^0000:.*:00\.0$'
}

A=$(behind 10 || true)
B=$(behind 11 || true)

peer() { ip netns exec lan "$@"; }

# The interface that the kernel made of a PCI function.
# Fails while there is none.
netdev() { ls "/sys/bus/pci/devices/$1/net" | grep .; }

driver_of() { basename "$(readlink "/sys/bus/pci/devices/$1/driver")"; }

group_of() { basename "$(readlink "/sys/bus/pci/devices/$1/iommu_group")"; }

# plug ADDRESS NETNS IP: gives a kernel's interface to a namespace, with the namespace's name.
plug() {
    ip netns add "$2"
    ip link set "$(netdev "$1")" name "$2" netns "$2"
    ip -n "$2" link set lo up
    # As the kernel has them by itself: the scenario before this one may have wanted others.
    ip -n "$2" link set "$2" mtu 1500 gro_max_size 65536
    ip -n "$2" address add "$3/24" dev "$2"
    ip -n "$2" link set "$2" up
    wait_for 10 carrier "$2" "$2"
}

carrier() { ip netns exec "$1" cat "/sys/class/net/$2/carrier" | grep 1; }

peer_up() {
    step "the kernel brings its own NIC up"
    plug "$A" lan "$PEER"
}

# Takes a function from its driver without any help of ours.
vfio_bind() {
    echo vfio-pci >"/sys/bus/pci/devices/$1/driver_override"
    if [ -e "/sys/bus/pci/devices/$1/driver" ]; then
        echo "$1" >"/sys/bus/pci/devices/$1/driver/unbind"
    fi
    echo "$1" >/sys/bus/pci/drivers_probe
    want "driver of $1" "$(driver_of "$1")" = vfio-pci
}

# Gives a function back to the driver that its ids fit.
vfio_unbind() {
    [ -e "/sys/bus/pci/devices/$1" ] || return 0
    echo >"/sys/bus/pci/devices/$1/driver_override"
    if [ -e "/sys/bus/pci/devices/$1/driver" ]; then
        echo "$1" >"/sys/bus/pci/devices/$1/driver/unbind"
    fi
    echo "$1" >/sys/bus/pci/drivers_probe
}

# --- the program under test ------------------------------------------------------------------------

# Skips the scenario while the program says itself that none of its drivers fits the function $1. Any
# other failure lets the scenario run and fail.
needs_driver() {
    if barewire nic info "$1" | grep '^supported  *no$'; then
        skip "no driver of barewire fits $(cat "/sys/bus/pci/devices/$1/device")"
    fi
}

# Skips while `barewire $1` is no command of the program.
needs_command() {
    barewire "$1" --help >/dev/null 2>&1 || skip "barewire has no command \`$1\`"
}

# Both NICs as most scenarios want them: the kernel on A, B bound to vfio-pci.
take_nic() {
    needs_command nic
    needs_driver "$B"
    step "barewire takes the NIC from the kernel"
    barewire nic bind "$B"
    want "driver of $B" "$(driver_of "$B")" = vfio-pci
    peer_up
}

# background NAME COMMAND...: its output goes to $OUT/NAME, its pid to /tmp/NAME.pid.
background() {
    name=$1
    shift
    "$@" >"$OUT/$name" 2>&1 &
    echo $! >"/tmp/$name.pid"
}

pid_of() { cat "/tmp/$1.pid"; }

alive() { kill -0 "$(pid_of "$1")" 2>/dev/null; }

# listening NAME: waits for the ready line of a background `barewire`.
listening() {
    wait_for 15 ready "$1"
}

ready() {
    if grep -q '^listening on ' "$OUT/$1"; then return 0; fi
    alive "$1" || fail "$1 has ended: $(tail -n 3 "$OUT/$1")"
    return 1
}

# Waits until the link is up and we are heard. The kernel gives a connection up when nobody answers
# its question for our address for three seconds.
reachable() { wait_for 10 peer ping -c 1 -W 1 $OURS; }

# start_serving [OPTIONS...]: our server on B, with the files of make_site, until it listens.
start_serving() {
    background serve barewire serve --device "pci:$B$SETTINGS" --address $OURS/24 "$@" $SITE
    listening serve
}

# serve [OPTIONS...]: the same, until it is reached.
serve() {
    start_serving "$@"
    reachable
}

echo_server() {
    background echo barewire echo --device "pci:$B$SETTINGS" --address $OURS/24 "$@"
    listening echo
    reachable
}

# ended NAME SECONDS: waits until a background process has ended; its exit status is in $status.
ended() {
    wait_for "$2" gone "$1"
    status=0
    wait "$(pid_of "$1")" || status=$?
}

# True once the process has ended; a process nobody has waited for yet has ended too.
gone() {
    state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$(pid_of "$1")/status" 2>/dev/null)
    [ -z "$state" ] || [ "$state" = Z ]
}

# stop NAME: SIGTERM, as a user's service manager does it; it must end with status 0.
stop() {
    kill -TERM "$(pid_of "$1")"
    ended "$1" 15
    want "exit status of $1" "$status" -eq 0
}

# counter NAME NAME-OF-COUNTER: a device counter that a background `barewire` with --stats told last.
counter() {
    value=$(sed -n "s/^stat $2 \([0-9]*\)$/\1/p" "$OUT/$1" | tail -n 1)
    [ -n "$value" ] || fail "$1 told no counter $2"
    echo "$value"
}

# peek OFFSET: a register of B, read past the program and its driver.
peek() {
    base=$(sed -n '1s/ .*//p' "/sys/bus/pci/devices/$B/resource")
    devmem $((base + $1)) 32
}

# bits OFFSET MASK: those bits of a register of B that are set, in decimal.
bits() { echo $(($(peek "$1") & $2)); }

# --- traffic ---------------------------------------------------------------------------------------

# make_site MIB: an index page and a file of random bytes.
make_site() {
    mkdir -p $SITE
    echo "a page" >$SITE/index.html
    dd if=/dev/urandom of=$SITE/file bs=1M count="$1" 2>/dev/null
    SUM=$(sha256sum <$SITE/file)
}

# fetch PATH: by the kernel's client.
fetch() { peer timeout 240 wget -q -O - "http://$OURS/$1"; }

# The index page arrives.
page() { [ "$(peer timeout 20 wget -q -O - "http://$OURS/")" = "a page" ]; }

# fetch_checked: the whole file, and its sum must be right.
fetch_checked() {
    want "sum of the file" "$(fetch file | sha256sum)" = "$SUM"
}

# load NAME: the kernel's client fetches the file again and again, until something fails.
load() {
    background "$1" peer sh -c "while timeout 240 wget -q -O /dev/null http://$OURS/file; do :; done"
}

# flood FROM TO: the kernel sends short UDP datagrams from `lan` without end, as fast as it can.
flood() {
    neighbour=$(cat "/sys/bus/pci/devices/$B/net/"*/address 2>/dev/null || echo 52:54:00:00:00:0b)
    pktgen kpktgend_0 rem_device_all "add_device lan"
    pktgen lan "count 0" "pkt_size 60" "src_min $1" "src_max $1" "dst $2" "dst_mac $neighbour" \
        "udp_dst_min 9" "udp_dst_max 9" "delay 0"
    background flood peer sh -c "echo start >/proc/net/pktgen/pgctrl"
    wait_for 5 flooding
}

# pktgen FILE SETTING...
pktgen() {
    file=$1
    shift
    for setting; do
        peer sh -c "echo '$setting' >/proc/net/pktgen/$file"
    done
}

flooding() {
    sent=$(peer cat /sys/class/net/lan/statistics/tx_packets)
    usleep 100000
    [ "$(peer cat /sys/class/net/lan/statistics/tx_packets)" -gt "$((sent + 100))" ]
}

# ping_checked COUNT SIZE: the kernel pings us, every answer must come. Busybox's ping sums up twice
# where its timer fires while it does so; the last sum counts.
ping_checked() {
    received=$(peer ping -c "$1" -s "$2" -i 0.1 -w 60 $OURS |
        sed -n 's/.* \([0-9]*\) packets received.*/\1/p' | tail -n 1) || true
    want "answers to pings of $2 bytes" "${received:-0}" -eq "$1"
}

dmar_faults() { dmesg | grep -c 'DMAR: \[DMA' || true; }

# --- afterwards ------------------------------------------------------------------------------------

# Leaves nothing of a scenario behind: the next one in the same guest starts like the first.
clean_up() {
    kill -KILL -1 2>/dev/null || true
    for netns in $(ip netns list | cut -d ' ' -f 1); do
        # A connection whose peer is gone keeps its namespace for minutes, and its NIC with it.
        ip -n "$netns" link set "$netns" netns 1 || true
        ip netns delete "$netns"
    done
    for address in $A $B; do
        functions=/sys/bus/pci/devices/$address/sriov_numvfs
        [ ! -e "$functions" ] || echo 0 >"$functions" 2>/dev/null || true
        [ "$(driver_of "$address")" != vfio-pci ] || vfio_unbind "$address"
        [ ! -e "/sys/bus/pci/devices/$address" ] || wait_for 10 netdev "$address"
    done
    rm -rf /tmp/*
}
