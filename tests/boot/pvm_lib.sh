#!/bin/sh
# Keys are made and trusted; versions of libraries come and go; what breaks a rule is not taken, and
# damage is found.
. /run/zooid/lib.sh
empty_store
set -eu

# refuses CODE TEXT COMMAND...: it must end with this code and say this.
refuses() {
    code=$1 text=$2
    shift 2
    status=0
    "$@" >out 2>&1 || status=$?
    cat out
    [ "$status" = "$code" ] || fail "$*: ended with $status, not $code"
    grep -qF -- "$text" out || fail "$*: does not say $text"
}

pvm key generate shop
[ "$(stat -c %a shop.key)" = 600 ] || fail "the secret is not secret"
refuses 1 "is there already" pvm key generate shop
refuses 1 "no key can have this name" pvm key generate ./
[ -z "$(pvm lib list --json | tr -d '[]\n')" ] || fail "libraries before any was added"

cp libraries/libbase.so libone.so
refuses 123 "signature rule: it has no manifest: sign it with --sign-with" pvm lib add libone.so
refuses 123 "is not trusted: \`pvm key trust\` lets" pvm lib add --version 1.0.0 --sign-with shop.key libone.so
refuses 1 "holds a public key: sign with" pvm lib add --version 1.0.0 --sign-with shop.pub libone.so
cp shop.key secret.pub
refuses 1 "holds a secret key, which is to be kept" pvm key trust secret.pub
pvm key trust shop.pub
pvm key list | grep "^shop  *$(cut -d ' ' -f 2 shop.pub)$" || fail "pvm key list"
pvm lib add --version 1.0.0 --sign-with shop.key --image libraries libone.so
pvm lib list | grep "^libone.so  *1.0.0 .* shop  *libraries  *all$" || fail "pvm lib list"
pvm lib inspect libone.so | grep "^images  *libraries$" || fail "pvm lib inspect"
pvm lib verify

# Versions lie beside each other; one of them is one file.
refuses 123 "there is another file that is libone.so 1.0.0" \
    pvm lib add --version 1.0.0 --sign-with shop.key --name libone.so libraries/libfixed.so
pvm lib add --version 1.0.0 --sign-with shop.key --image httpd libone.so
pvm lib inspect libone.so | grep "^images  *httpd$" || fail "the same file with other rules"
pvm lib add --version 1.0.0 --sign-with shop.key --revoked libone.so
pvm lib inspect libone.so | grep "^revoked  *yes$" || fail "a revoked version"
pvm lib add --version 1.10.0 --sign-with shop.key libone.so
pvm lib add --version 1.9.0 --sign-with shop.key --name libone.so libraries/libfixed.so
[ "$(pvm lib list --json | tr , '\n' | grep '"version"' | tr -d '\n')" = '"version":"1.10.0""version":"1.9.0""version":"1.0.0"' ] ||
    fail "the versions: $(pvm lib list)"
pvm lib inspect libone.so@1.9.0 --json | json 'it["version"] == "1.9.0"'
pvm lib verify libone.so@1.9.0 | grep "^libone.so 1.9.0: good$" || fail "verify a version"
refuses 120 "there is no library libone.so@2.0.0" pvm lib verify libone.so@2.0.0
refuses 120 "there is no library libone.so@2.0.0" pvm lib inspect libone.so@2.0.0
pvm lib remove libone.so@1.0.0
refuses 120 "there is no library libone.so@1.0.0" pvm lib remove libone.so@1.0.0
[ "$(pvm lib inspect libone.so --json | tr , '\n' | grep '"version"')" = '"version":"1.10.0"' ] || fail "the highest version"

# A library that others have signed: nobody trusts that key here, then somebody does.
refuses 123 "is not trusted" pvm lib add libraries/libmiddle.so
trust_tests
pvm lib add libraries/libmiddle.so
refuses 123 "signature rule: the file is not the one that was signed" pvm lib add libraries/libmutated.so
refuses 123 "signature rule: the manifest is not what its signer has signed" pvm lib add libraries/libforged.so
refuses 123 "DT_TEXTREL" pvm lib add libraries/libtext.so
pvm lib add libraries/libredzone.so 2>out
grep -F "pVMs in guest kernel mode will refuse it, those in guest user mode take it: the code at 0x" out || fail "nobody warns of a red zone"
pvm lib list | grep "^libredzone.so .* red zone$" || fail "the list does not tell of a red zone"

# A disk that has lost something.
pvm lib verify
object=/var/lib/zooid/lib/objects/$(sha512sum libraries/libmiddle.so | cut -d ' ' -f 1)
cp "$object" kept
rm "$object"
printf x >"$object"
refuses 123 "libmiddle.so: signature rule: the file is not the one that was signed" pvm lib verify
grep "^libone.so 1.10.0: good$" out || fail "verify ends at the first"
pvm lib list | grep "^libmiddle.so .*damaged: signature rule: the file is not the one that was signed" || fail "the list does not tell of damage"
rm "$object"
cp kept "$object"

pvm lib remove libone.so
pvm lib remove libredzone.so
refuses 120 "there is no library libone.so" pvm lib remove libone.so
[ "$(ls -A /var/lib/zooid/lib)" = "$(printf 'libmiddle.so@1.0.0.manifest\nobjects')" ] || fail "something is left: $(ls -A /var/lib/zooid/lib)"
[ "$(ls -A /var/lib/zooid/lib/objects | wc -l)" = 1 ] || fail "an object is left"

# A file that is no key takes nothing from the others, and is named.
: >/etc/zooid/keys/empty.pub
mkfifo /etc/zooid/keys/pipe.pub
pvm lib add libraries/libbase.so 2>out
grep -F "warning: /etc/zooid/keys/empty.pub holds no public key" out || fail "nobody tells of an empty key"
grep -F "pipe.pub" out || fail "nobody tells of a pipe"
pvm key list 2>/dev/null | grep "^tests " || fail "the other key is not trusted"
rm /etc/zooid/keys/empty.pub /etc/zooid/keys/pipe.pub

# A full disk heals: what had no room leaves none of its pieces.
mkdir small
mount -t tmpfs -o size=400k tmpfs small
for _ in 1 2; do
    if pvm lib --store small add libraries/libbulk.so 2>out; then
        fail "1.3 MB in 400 KB"
    fi
    grep "No space left" out || fail "the reason: $(cat out)"
    [ -z "$(find small/objects -type f)" ] || fail "pieces are left: $(ls -lA small/objects)"
done
pvm lib --store small add libraries/libbase.so || fail "a small library has room"
umount small
