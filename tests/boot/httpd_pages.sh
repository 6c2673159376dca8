#!/bin/sh
# Every page as curl gets it, and what is no page.
. /run/zooid/lib.sh
url=http://10.0.0.2
start "httpd on"

# fetch WANTED ARGUMENT...: curl's summary must be WANTED.
fetch() {
    wanted=$1
    shift
    got=$(curl -sS -m 10 -o body -w '%{http_version} %{response_code} %{size_download} %{content_type}' "$@")
    [ "$got" = "$wanted" ] || fail "curl $*: '$got', not '$wanted'"
}

fetch "1.1 200 $(curl -sS $url/ | wc -c) text/html; charset=utf-8" $url/
grep -qF 'Hello from a pVM' body || fail "the start page has other words"
fetch "1.1 200 79 text/plain; charset=utf-8" $url/about.txt
grep -qF 'one animal of a colony' body || fail "the about page has other words"
fetch "1.1 200 1024 text/plain; charset=utf-8" $url/1k.txt
[ "$(tr -d z <body | wc -c)" = 0 ] || fail "1k.txt has other bytes"
fetch "1.1 200 1024 text/plain; charset=utf-8" "$url/1k.txt?a=b"
fetch "1.1 200 1024 text/plain; charset=utf-8" -0 $url/1k.txt
fetch "1.1 200 0 text/plain; charset=utf-8" -I $url/1k.txt
fetch "1.1 404 14 text/plain" $url/no-such-page
fetch "1.1 404 0 text/plain" -I $url/no-such-page
fetch "1.1 405 23 text/plain" -X DELETE $url/
fetch "1.1 405 23 text/plain" -d 'a=b' $url/
fetch "1.1 405 23 text/plain" -X OPTIONS $url/
curl -sS -X PUT -i $url/ | grep -qi '^allow: GET, HEAD' || fail "405 without Allow"
curl -sS -I $url/1k.txt | grep -qi '^content-length: 1024' || fail "HEAD has another length than GET"
curl -sS -v $url/ $url/about.txt $url/nothing -o a -o b -o c 2>&1 | grep -c 'Re-using existing connection' >reused
[ "$(cat reused)" = 2 ] || fail "three pages did not share one connection"
curl -sS -v -0 $url/ 2>&1 | grep -qi 'closing connection' || fail "HTTP/1.0 keeps the connection"
