# Two hosts with a wire between them, for the benchmarks that run over a network; read by their scripts,
# which have a trap that ends $near and $far. wire SERVER/PREFIX CLIENT/PREFIX makes them.
on_server() { nsenter --target "$near" --net -- "$@"; }
on_client() { nsenter --target "$far" --net -- "$@"; }
wire() {
    unshare --net sleep 100000 &
    near=$!
    unshare --net sleep 100000 &
    far=$!
    tries=0
    until [ "$(readlink /proc/$near/ns/net)" != "$(readlink /proc/$$/ns/net)" ] &&
        [ "$(readlink /proc/$far/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 1000 ] || exit 1
    done
    on_server ip link add wire0 type veth peer name wire1
    on_server ip link set wire1 netns "$far"
    on_server ip address add "$1" dev wire0
    on_server ip link set wire0 up
    on_server ip link set lo up
    on_client ip address add "$2" dev wire1
    on_client ip link set wire1 up
}
