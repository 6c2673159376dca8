#!/bin/sh
# 10,000 requests by 100 clients at once, none failed, with one connection for many requests.
. /run/zooid/lib.sh
start "httpd on"
ab -q -k -n 10000 -c 100 http://10.0.0.2/1k.txt >report || fail "ab: $(cat report)"
cat report
for line in 'Complete requests: *10000' 'Failed requests: *0' 'Keep-Alive requests: *10000' 'HTML transferred: *10240000'; do
    grep -q "^$line\>" report || fail "ab does not say $line"
done
grep -q '^Non-2xx' report && fail "answers other than 200"
still_serves /
