#!/usr/bin/env bash
# Runs inside a network namespace: two apps, the control plane, Envoy as the gateway `front`, and requests through it.
# Arguments: the outrigger program, Envoy, a folder with manifests/ and envoy.json. Prints a line for each request.
set -u
outrigger=$1 envoy=$2 folder=$3
ip link set lo up
exec 2>>"$folder/log"
HOST=127.0.0.1 PORT=8081 "$outrigger" sample echo --name one >>"$folder/log" &
HOST=127.0.0.1 PORT=8082 "$outrigger" sample echo --name two >>"$folder/log" &
"$outrigger" control --manifests "$folder/manifests" >>"$folder/log" &
"$envoy" --config-path "$folder/envoy.json" --concurrency 1 --disable-hot-restart --log-level warning >>"$folder/log" &

# Status and body.
ask() {
    local path=$1
    shift
    curl --silent --max-time 10 --write-out '\n%{http_code}' "$@" "http://127.0.0.1:9080$path" |
        { mapfile -t lines; echo "${lines[-1]} ${lines[0]}"; }
}

# Until instance $1 answers /first/page, within a minute or never.
until_it_is() {
    for _ in $(seq 600); do
        case $(ask /first/page) in "200 {\"instance\":\"$1\""*) return ;; esac
        sleep 0.1
    done
    echo "never: $1"
    exit 1
}

until_it_is one
echo "first: $(ask /first/page)"
echo "header: $(ask /first/page --header 'version: two')"
echo "rewritten: $(ask /old/page)"
echo "nowhere: $(ask /nowhere)"
# The weights change places, and the header its name: one file, one change.
sed -e 's/name: one, port: 80, weight: 1/name: one, port: 80, weight: 0/' \
    -e 's/name: two, port: 80, weight: 0/name: two, port: 80, weight: 1/' \
    -e 's/{name: x-route, value: one}/{name: x-other, value: one}/' \
    "$folder/manifests/mesh.yaml" >"$folder/manifests/new~"
mv "$folder/manifests/new~" "$folder/manifests/mesh.yaml"
until_it_is two
echo "edited: $(ask /first/page)"
