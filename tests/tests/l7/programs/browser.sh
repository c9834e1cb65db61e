#!/bin/sh
# Opens the page $1 in Chromium, with its profile in directory $2, until it says in its log what it has seen; prints that.
timeout -k 1 40 chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --ignore-certificate-errors \
    --user-data-dir="$2/profile" --enable-logging=stderr --v=0 "$1" >"$2/browser.log" 2>&1 &
browser=$!
tries=0
while [ $tries -lt 190 ] && ! grep -q 'WEBSOCKET' "$2/browser.log" && kill -0 $browser; do
    sleep 0.2
    tries=$((tries + 1))
done
kill $browser
wait $browser
cat "$2/browser.log"
