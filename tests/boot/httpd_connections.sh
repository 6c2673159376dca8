#!/bin/sh
# 2,000 or 10,000 requests by 100 clients at once, none failed, with a connection for each request.
. /run/zooid/lib.sh
start "httpd on"
requests=$(at_scale 2000 10000)
ab -q -n "$requests" -c 100 http://10.0.0.2/1k.txt >report || fail "ab: $(cat report)"
cat report
for line in "Complete requests: *$requests" 'Failed requests: *0' "HTML transferred: *$((requests * 1024))"; do
    grep -q "^$line\>" report || fail "ab does not say $line"
done
grep -q '^Non-2xx' report && fail "answers other than 200"
still_serves /
