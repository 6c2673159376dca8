#!/bin/sh
# `make run` in dom0: starts the web server as a guest with plain xl, fetches pages from it, has it fork two workers that answer on addresses
# of their own, kills one, and shuts it down; then has a parent and two workers share a queue and a counter, and a library of a server replaced under load.
address=http://10.0.0.2
console=/var/log/xen/console/guest-httpd.log

now() {
    cut -d' ' -f1 /proc/uptime
}

# stage TITLE COMMAND...: says what is done and how long it took; a failure ends the run.
stage() {
    title=$1
    shift
    echo "run: $title ..."
    began=$(now)
    "$@" || {
        echo "run: $title: FAILED; the guest's console:"
        cat "$console"
        exit 1
    }
    echo "run: $title: done in $(echo "$began $(now)" | awk '{ printf "%.1f", $2 - $1 }') s"
}

wait_for_server() {
    curl --silent --output /dev/null --retry 100 --retry-all-errors --retry-delay 1 --retry-max-time 20 \
        --connect-timeout 1 $address/
}

fetch() {
    for path in / /about.txt /1k.txt /no-such-page; do
        curl --silent --output /root/out/page --max-time 10 \
            --write-out "  GET $path: status %{http_code}, %{size_download} bytes, %{time_total} s\n" \
            $address$path || return
    done
    curl --silent --fail --max-time 10 $address/ | head -n 20 | sed 's/^/  | /'
}

load() {
    ab -q -k -n 500 -c 10 $address/ >/root/out/ab.txt || return
    grep -E 'Complete requests|Failed requests|Requests per second' /root/out/ab.txt | sed 's/^/  /'
    grep -qE '^Failed requests: +0$' /root/out/ab.txt
}

show() {
    xl list | sed 's/^/  /'
    sed 's/^/  | /' "$console"
}

# addresses: where the workers say that they answer.
addresses() {
    sed -n 's/^worker on \(http:.*\)\/\r*$/\1/p' /var/log/xen/console/guest-httpd-*.log
}

# with_bridge: the daemon anew, with network devices for children.
with_bridge() {
    kill "$(pidof pvmd)"
    while pidof pvmd >/dev/null; do usleep 10000; done
    start-pvmd --child-bridge xenbr0
}

fork_workers() {
    sed 's/^extra *= *"/&WORKERS=2 /' /opt/zooid/guests/httpd.cfg >/root/workers.cfg
    : >"$console"
    xl create -q /root/workers.cfg || return
    limit=$(($(date +%s) + 30))
    while [ "$(addresses 2>/dev/null | wc -l)" -lt 2 ]; do
        [ "$(date +%s)" -lt "$limit" ] || return
        usleep 100000
    done
    pvm list --tree | sed 's/^/  /'
}

ask_all() {
    for server in $address $(addresses); do
        curl --silent --fail --max-time 10 --output /root/out/page \
            --write-out "  GET $server/: status %{http_code}, %{size_download} bytes\n" "$server/" || return
    done
}

kill_worker() {
    worker=$(sed -n 's/^worker \([0-9]*\) was forked.*/\1/p' "$console" | head -n 1)
    pvm kill "$worker" && pvm wait "$worker"
    limit=$(($(date +%s) + 10))
    until grep -q "worker $worker has ended" "$console"; do
        [ "$(date +%s)" -lt "$limit" ] || return
        usleep 50000
    done
    sed 's/^/  | /' "$console"
    pvm list --tree | sed 's/^/  /'
    curl --silent --fail --max-time 10 --output /root/out/page \
        --write-out "  GET $address/: status %{http_code}, %{size_download} bytes\n" $address/
}

end_family() {
    pvm kill --family httpd || return
    while [ "$(xl list | wc -l)" -gt 2 ]; do
        usleep 50000
    done
    xl list | sed 's/^/  /'
}

share() {
    pvm run -a workers >/root/out/workers.txt || return
    sed 's/^/  | /' /root/out/workers.txt
    grep -q 'the sum is 500500,' /root/out/workers.txt
}

# serve_by_library: a server whose pages a library of the host's store renders.
serve_by_library() {
    mkdir -p /root/libraries && tar -xf /run/zooid/libraries.tar -C /root/libraries && cd /root/libraries || return
    sed -n 's/^signer //p' libpage.so.1.manifest >/root/tests.pub
    pvm key trust /root/tests.pub >/dev/null || return
    pvm lib add libpage.so.1 >/dev/null || return
    sed 's/httpd/page_server/' /opt/zooid/guests/httpd.cfg >/root/page_server.cfg
    pvm run /root/page_server.cfg >/dev/null && wait_for_server || return
    pvm lib add --name libpage.so.1 libpage.so.1@2.0.0 >/dev/null || return
    pvm lib list | sed 's/^/  /'
}

replace_library() {
    python3 -S /root/page_client.py 10.0.0.2 50 20 page_server >/root/out/library.txt 2>&1 || {
        cat /root/out/library.txt
        return 1
    }
    grep ' updates, ' /root/out/library.txt | sed 's/^/  /'
    grep library /var/log/xen/console/guest-page_server.log | tail -n 2 | sed 's/^/  | /'
}

# refuse_unsigned: the store does not take it.
refuse_unsigned() {
    pvm lib add libunsigned.so >/root/out/unsigned.txt 2>&1 && return 1
    sed 's/^/  /' /root/out/unsigned.txt
    pvm kill page_server
}

shut_down() {
    xl shutdown -w httpd 2>&1 | grep 'reason code 0' || return
    # xl's monitor removes the domain a moment after it has ended.
    while xl domid httpd >/dev/null 2>&1; do
        usleep 50000
    done
}

mkdir -p /root/out
stage "xl create httpd" xl create -q /opt/zooid/guests/httpd.cfg
stage "wait until it answers at $address" wait_for_server
stage "fetch pages with curl" fetch
stage "500 requests with ab, 10 at a time" load
stage "domains and the guest's console" show
stage "xl shutdown httpd" shut_down
stage "pvmd gives children network devices from now on" with_bridge
stage "httpd forks two workers" fork_workers
stage "all three answer" ask_all
stage "kill a worker; the others answer on" kill_worker
stage "end the family" end_family
stage "a parent and two workers share a queue and a counter" share
stage "a server gets its pages from a library of the store" serve_by_library
stage "the library is replaced 30 times under 50 connections" replace_library
stage "a library that nobody has signed is refused" refuse_unsigned
