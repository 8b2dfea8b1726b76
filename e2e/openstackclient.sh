#!/usr/bin/env bash
# Runs the stock OpenStack command line against a cloud: list, show, create and delete of everything that carrying
# clusters takes. The cloud may be the sandbox or a real one; nothing is left in it.
#
#   OS_CLIENT_CONFIG_FILE=clouds.yaml OS_CLOUD=sandbox e2e/openstackclient.sh
#
# Settings (environment):
#   OPENSTACK        the client (default: openstack, of python-openstackclient with python-octaviaclient)
#   EXTERNAL         the external network (default: the first one)
#   IMAGE, FLAVOR    what a server is made of (default: the first active image, the first flavor)
#   STRANGER_CLOUD   a cloud entry of another project; if given, it must not see what is made here
#   SKIP             words: volume, loadbalancer, image (where a cloud lacks a service or forbids uploads)
set -euo pipefail

: "${OS_CLOUD:?name a cloud of clouds.yaml}"
OPENSTACK=${OPENSTACK:-openstack}
SKIP=${SKIP:-}
P="e2e-osc-$$"
work=$(mktemp -d)
deadline_s=${DEADLINE_S:-300}

os() { "$OPENSTACK" "$@"; }
say() { printf '%s\n' "== $*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
skip() { case " $SKIP " in *" $1 "*) return 0 ;; esac; return 1; }

field() { local f=$1; shift; os "$@" -f value -c "$f"; }

# await WANT FIELD show-command...: waits until the field has the value; ERROR ends the wait.
await() {
    local want=$1 f=$2 got='' start=$SECONDS
    shift 2
    while [ $((SECONDS - start)) -lt "$deadline_s" ]; do
        got=$(field "$f" "$@") || true
        [ "$got" = "$want" ] && return 0
        [ "$got" = ERROR ] && [ "$want" != ERROR ] && fail "$*: $f is ERROR"
        sleep 1
    done
    fail "$*: $f is '$got', not '$want', after $deadline_s s"
}

# gone show-command...: waits until it fails.
gone() {
    local start=$SECONDS
    while [ $((SECONDS - start)) -lt "$deadline_s" ]; do
        "$OPENSTACK" "$@" >/dev/null 2>&1 || return 0
        sleep 1
    done
    fail "$*: still there after $deadline_s s"
}

# Readers read to the end: one that stops early ends its writer with SIGPIPE.
has() { grep -xF -- "$1" >/dev/null || fail "$2 is not in the list"; }
refused() { if "$OPENSTACK" "$@" >"$work/refused" 2>&1; then fail "$*: should have been refused"; fi; }

cleanup() {
    local code=$?
    set +e
    if [ "$code" -ne 0 ]; then
        printf 'cleaning up after a failure\n' >&2
        "$OPENSTACK" server delete --wait "$P-server" 
        "$OPENSTACK" loadbalancer delete --cascade --wait "$P-lb"
        [ -n "${fip:-}" ] && "$OPENSTACK" floating ip delete "$fip"
        "$OPENSTACK" volume delete "$P-volume"
        "$OPENSTACK" port delete "$P-port"
        "$OPENSTACK" router remove subnet "$P-router" "$P-subnet"
        "$OPENSTACK" router delete "$P-router"
        "$OPENSTACK" network delete "$P-net"
        "$OPENSTACK" security group delete "$P-sg"
        "$OPENSTACK" keypair delete "$P-key" "$P-made"
        "$OPENSTACK" image delete "$P-image"
    fi >/dev/null 2>&1
    rm -rf "$work"
    exit "$code"
}
trap cleanup EXIT

say token, catalog
os token issue -f value -c id >/dev/null
os catalog list -f value -c Type | grep -x compute >/dev/null || fail 'the catalog has no compute service'

say flavor, image, availability zone
FLAVOR=${FLAVOR:-$(os flavor list -f value -c Name | sed -n 1p)}
field name flavor show "$FLAVOR" >/dev/null
IMAGE=${IMAGE:-$(os image list --status active -f value -c Name | sed -n 1p)}
[ "$(field status image show "$IMAGE")" = active ] || fail "image $IMAGE is not active"
os availability zone list --compute -f value -c 'Zone Name' >/dev/null
if ! skip image; then
    head -c 4096 /dev/zero >"$work/image"
    os image create --disk-format raw --container-format bare --file "$work/image" --property os_type=linux "$P-image" >/dev/null
    await active status image show "$P-image"
    os image list -f value -c Name | has "$P-image" image
    [ "$(field size image show "$P-image")" = 4096 ] || fail 'the image has another size'
    os image set --tag e2e "$P-image"
    os image delete "$P-image"
    gone image show "$P-image"
fi

say keypair
ssh_key="ssh-ed25519 $(printf '\0\0\0\013ssh-ed25519\0\0\0\040%s' 'abcdefghijklmnopqrstuvwxyz012345' | base64 -w0) e2e"
printf '%s\n' "$ssh_key" >"$work/key.pub"
os keypair create --public-key "$work/key.pub" "$P-key" >/dev/null
os keypair list -f value -c Name | has "$P-key" keypair
os keypair show "$P-key" >/dev/null
os keypair create "$P-made" >"$work/made.pem"
chmod 600 "$work/made.pem"
ssh-keygen -y -f "$work/made.pem" >/dev/null
os keypair delete "$P-made"

say network, subnet
EXTERNAL=${EXTERNAL:-$(os network list --external -f value -c Name | sed -n 1p)}
[ "$(field router:external network show "$EXTERNAL")" = True ] || [ "$(field router:external network show "$EXTERNAL")" = External ] || fail "$EXTERNAL is not external"
os network create --description 'made by e2e' "$P-net" >/dev/null
os network set --tag "$P" "$P-net"
os network list --tags "$P" -f value -c Name | has "$P-net" network
os subnet create --network "$P-net" --subnet-range 10.99.0.0/24 --dns-nameserver 192.0.2.53 "$P-subnet" >/dev/null
os subnet list --network "$P-net" -f value -c Name | has "$P-subnet" subnet
[ "$(field gateway_ip subnet show "$P-subnet")" = 10.99.0.1 ] || fail 'the subnet has another gateway'
refused subnet create --network "$P-net" --subnet-range 10.99.0.128/25 "$P-overlap"

say router
os router create "$P-router" >/dev/null
os router set --external-gateway "$EXTERNAL" "$P-router"
os router add subnet "$P-router" "$P-subnet"
os router list -f value -c Name | has "$P-router" router
refused subnet delete "$P-subnet"
refused router delete "$P-router"

say security group, rules
os security group create "$P-sg" >/dev/null
os security group rule create --protocol tcp --dst-port 6443 --remote-ip 0.0.0.0/0 "$P-sg" >/dev/null
os security group rule create --protocol tcp --dst-port 30000:32767 --remote-group "$P-sg" "$P-sg" >/dev/null
refused security group rule create --protocol tcp --dst-port 6443 --remote-ip 0.0.0.0/0 "$P-sg"
[ "$(os security group rule list "$P-sg" -f value -c ID | wc -l)" -ge 4 ] || fail 'the group has less than four rules'
os security group rule delete "$(os security group rule list --ingress "$P-sg" -f value -c ID | sed -n 1p)"
os security group list -f value -c Name | has "$P-sg" 'security group'
os security group show "$P-sg" >/dev/null

say port
os port create --network "$P-net" --security-group "$P-sg" --fixed-ip ip-address=10.99.0.20 "$P-port" >/dev/null
os port list --network "$P-net" -f value -c Name | has "$P-port" port
os port show "$P-port" | grep 10.99.0.20 >/dev/null || fail 'the port has another address'
refused port create --network "$P-net" --fixed-ip ip-address=10.99.0.20 "$P-twin"
refused security group delete "$P-sg"

say server
printf '#cloud-config\n' >"$work/user-data"
os server create --flavor "$FLAVOR" --image "$IMAGE" --key-name "$P-key" --port "$P-port" --user-data "$work/user-data" \
    --property purpose=e2e --wait "$P-server" >/dev/null
[ "$(field status server show "$P-server")" = ACTIVE ] || fail 'the server is not ACTIVE'
os server list -f value -c Name | has "$P-server" server
os server show "$P-server" -f value -c addresses | grep 10.99.0.20 >/dev/null || fail 'the server has another address'
os server set --property more=yes "$P-server"
refused network delete "$P-net"

say floating ip
fip=$(os floating ip create "$EXTERNAL" -f value -c floating_ip_address)
os floating ip set --port "$P-port" "$fip"
await ACTIVE status floating ip show "$fip"
os floating ip list -f value -c 'Floating IP Address' | has "$fip" 'floating ip'
os server show "$P-server" -f value -c addresses | grep -F "$fip" >/dev/null || fail 'the server does not show its floating IP'
refused router remove subnet "$P-router" "$P-subnet"
os floating ip unset --port "$fip"

if ! skip volume; then
    say volume
    os volume create --size 1 "$P-volume" >/dev/null
    await available status volume show "$P-volume"
    os volume list -f value -c Name | has "$P-volume" volume
    os server add volume "$P-server" "$P-volume" >/dev/null
    await in-use status volume show "$P-volume"
    refused volume delete "$P-volume"
    os server remove volume "$P-server" "$P-volume"
    await available status volume show "$P-volume"
    os volume delete "$P-volume"
    gone volume show "$P-volume"
fi

if ! skip loadbalancer; then
    say load balancer
    os loadbalancer provider list -f value -c name >/dev/null
    os loadbalancer create --name "$P-lb" --vip-subnet-id "$P-subnet" >/dev/null
    await ACTIVE provisioning_status loadbalancer show "$P-lb"
    os loadbalancer list -f value -c name | has "$P-lb" 'load balancer'
    os loadbalancer listener create --name "$P-listener" --protocol TCP --protocol-port 6443 "$P-lb" >/dev/null
    await ACTIVE provisioning_status loadbalancer show "$P-lb"
    os loadbalancer pool create --name "$P-pool" --listener "$P-listener" --protocol TCP --lb-algorithm ROUND_ROBIN >/dev/null
    await ACTIVE provisioning_status loadbalancer show "$P-lb"
    os loadbalancer healthmonitor create --name "$P-monitor" --type TCP --delay 10 --timeout 5 --max-retries 5 "$P-pool" >/dev/null
    await ACTIVE provisioning_status loadbalancer show "$P-lb"
    os loadbalancer member create --name "$P-member" --address 10.99.0.20 --protocol-port 6443 "$P-pool" >/dev/null
    await ACTIVE provisioning_status loadbalancer show "$P-lb"
    os loadbalancer member list "$P-pool" -f value -c name | has "$P-member" member
    os loadbalancer listener show "$P-listener" >/dev/null
    vip_port=$(field vip_port_id loadbalancer show "$P-lb")
    os floating ip set --port "$vip_port" "$fip"
    await ACTIVE status floating ip show "$fip"
    refused loadbalancer delete "$P-lb"
    os floating ip unset --port "$fip"
    os loadbalancer delete --cascade "$P-lb"
    gone loadbalancer show "$P-lb"
fi

if [ -n "${STRANGER_CLOUD:-}" ]; then
    say another project sees nothing of it
    for kind in server network router 'security group'; do
        # shellcheck disable=SC2086
        if "$OPENSTACK" --os-cloud "$STRANGER_CLOUD" $kind list -f value -c Name | grep "^$P" >/dev/null; then
            fail "another project sees the $kind"
        fi
    done
fi

say delete
os floating ip delete "$fip"
os server delete --wait "$P-server"
gone server show "$P-server"
os port delete "$P-port"
os router remove subnet "$P-router" "$P-subnet"
os router delete "$P-router"
os subnet delete "$P-subnet"
os network delete "$P-net"
os security group delete "$P-sg"
os keypair delete "$P-key"
for kind in server network router port 'security group' keypair; do
    # shellcheck disable=SC2086
    if os $kind list -f value -c Name | grep "^$P" >/dev/null; then fail "a $kind is left"; fi
done
say passed
