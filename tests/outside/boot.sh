#!/bin/sh
# In dom0: starts the images that tests/runner/tests/literal_builds.rs has built. FILES brings them and lib.sh.
# shellcheck source=tests/boot/lib.sh
. /root/lib.sh
CFG=/root/guest.cfg

# guest IMAGE COMMAND_LINE: what `start` of lib.sh starts.
guest() {
    NAME=$1
    printf '%s\n' "name = '$1'" "kernel = '/root/$1'" "memory = 32" "vif = ['bridge=xenbr0']" "extra = '$2'" >"$CFG"
}

answers() {
    [ "$(nc -d -w 2 10.0.0.2 7)" = "Hello over TCP!" ]
}

for image in hello-debug hello-stripped; do
    guest "$image" ''
    start 'Hello from a pVM!'
    wait_end 0
done
guest greeter-debug 'NAME=reader'
start 'Hello, reader!'
wait_end 0
xl destroy "$NAME"
guest greeter-debug 'net=10.0.0.2/24 -- serve'
start serving
wait_until 10 answers
xl destroy "$NAME"
