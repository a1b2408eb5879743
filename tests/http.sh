#!/bin/bash
# The side door: what a master serves over HTTP, to curl, to a machine whose firmware is iPXE, and to a
# browser; its metrics, read by another's parser; and the page of a swarm of 1,000 nodes.
#
# SCREENSHOT=FILE keeps a picture of that page.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/vm/lib.sh"
need curl:curl jq:jq /usr/lib/python3/dist-packages/prometheus_client/openmetrics/parser.py:python3-prometheus-client
need_xget

http_port=20180
metrics_port=20181
url=http://127.0.0.1:$http_port
nodes=1000

# serve OPTION...: a master of src, which speaks HTTP by then
serve() {
    master - "$src" --listen 127.0.0.1 "$@" && wait_for 10 grep -q 'the status page on http:' "$(log master)" && return
    fail "the master starts" "$(log master)"
    finish
}
stop() { end KILL master; unset 'pid[master]'; }

# ---- what is served

src=$work/src
mkdir -p "$src/sub/deeper" "$work/elsewhere"
random_file "$src/image" 8M
truncate -s 64M "$src/big"              # more than waits in sockets
printf 'hello' > "$src/hello.txt"
: > "$src/empty"
printf 'odd' > "$src/a b&<c>%41.txt"
printf 'below' > "$src/sub/deeper/file"
printf 'secret' > "$work/elsewhere/secret"
ln -s deeper/file "$src/sub/link"
ln -s /sub/deeper "$src/sub/to-dir"
ln -s ../elsewhere/secret "$src/out"
ln -s loop "$src/loop"
serve --rescan 1 --http $http_port --metrics $metrics_port
check "it says where" grep -q "the status page on $url/.xget/" "$(log master)"

get() { curl -sS --max-time 60 --path-as-is "$@"; }
# code EXPECTED OPTION... PATH
code() {
    local expected=$1 got; shift
    got=$(get -o /dev/null -w '%{http_code}' "${@:1:$#-1}" "$url${!#}")
    echo "$got"
    [ "$got" = "$expected" ]
}
# header NAME OPTION... PATH: its value
header() {
    local name=$1; shift
    get -o /dev/null -D - "${@:1:$#-1}" "$url${!#}" | tr -d '\r' | sed -n "s/^$name: //Ip"
}
is() { echo "$1"; [ "$1" = "$2" ]; }

# ---- files

check "a file comes as it is" cmp <(get "$url/image") "$src/image"
check "two take one connection" is "$(get -o /dev/null -o /dev/null -w '%{num_connects}' "$url/hello.txt" "$url/image")" 10
check "an empty file is empty" is "$(get "$url/empty" | wc -c)" 0
check "HEAD says how long it is" is "$(header content-length -I /image)" $((8 << 20))
check "and sends nothing of it" is "$(get -I "$url/hello.txt" | grep -c hello)" 0
check "escapes are decoded" is "$(get "$url/a%20b%26%3Cc%3E%2541.txt")" odd
check "a link is followed" is "$(get "$url/sub/link")" below
check "and one from the root of the tree" is "$(get "$url/sub/to-dir/file")" below
check "not out of the tree" code 404 /out
check "and not for ever" code 404 /loop
for path in /../elsewhere/secret /%2e%2e/elsewhere/secret /sub/../hello.txt /sub%2fdeeper /a%00b /%zz /%; do
    check "$path is no path" code 400 "$path"
done
check "nothing there: 404" code 404 /nothing
check "in plain text" is "$(header content-type /nothing)" "text/plain; charset=utf-8"
for method in POST PUT DELETE OPTIONS TRACE BREW; do
    check "$method is not allowed" code 405 -X $method /hello.txt
done
garbage() { printf 'version please\r\n\r\n' > "/dev/tcp/127.0.0.1/$http_port"; code 200 /hello.txt; }
check "who sends garbage harms nobody" garbage
check "a head without an end is refused" code 431 -H "X: $(head -c 40000 /dev/zero | tr '\0' x)" /

# ---- parts, and what has not changed

part() { get -r "$1" "$url/image" | cmp - <(tail -c +$(($2 + 1)) "$src/image" | head -c "$3"); }
check "a range from the middle" part 1000000-1999999 1000000 1000000
check "one to the end" part 8000000- 8000000 1000000
check "the end alone" part -10 $(((8 << 20) - 10)) 10
check "it is a 206" code 206 -r 0-0 /image
check "and says which part" is "$(header content-range -r 5-9 /image)" "bytes 5-9/$((8 << 20))"
check "beyond the end: 416" code 416 -r 9000000- /image
check "several ranges: all of it" code 200 -r 0-1,5-6 /image
resume() { head -c 3000000 "$src/image" > "$work/resumed"; get -C - -o "$work/resumed" "$url/image"; cmp "$work/resumed" "$src/image"; }
check "a download is taken up again" resume
etag=$(header etag /image)
check "who has it already: 304" code 304 -H "If-None-Match: $etag" /image
check "by its date, too" code 304 -z "$src/image" /image
check "another: 200" code 200 -H 'If-None-Match: "another"' /image
check "a range of another: all of it" code 200 -r 0-1 -H 'If-Range: "another"' /image

# ---- directories

check "a directory ends in a slash" is "$(header location /sub)" /sub/
check "whatever the host" is "$(header location //sub)" /sub/
listing() { get "$url/" | grep -F "$1"; }
check "it is listed" listing '<a href="sub/">sub/</a>'
check "names stay text" listing '<a href="a%20b%26%3Cc%3E%2541.txt">a b&amp;&lt;c&gt;%41.txt</a>'
check "and nothing else is run" is "$(header content-type '/a%20b%26%3Cc%3E%2541.txt')" "text/plain; charset=utf-8"

# ---- together with others

slow() { get --limit-rate 2M -o "$work/slow" "$url/image"; }
slow &
check "9P is served meanwhile" status - 127.0.0.1:$port
wait $!
check "and the slow one has all of it" cmp "$work/slow" "$src/image"
changed() {
    local code
    get --limit-rate 8M -o /dev/null "$url/big" & sleep 2
    truncate -s 63M "$src/big"
    wait $!; code=$?
    echo "curl ended with $code"
    [ "$code" = 18 ]
}
check "a file that changes under way is not delivered" changed
is_new() { [ "$(header content-length -I /big)" = $((63 << 20)) ]; }
check "the new one is there soon" wait_for 20 is_new
stop
serve --http $http_port --max-upload 4M --allow 127.0.0.1
check "with a limit on what is sent a file comes whole" cmp <(get "$url/image") "$src/image"
not_allowed() { ! get --interface 127.0.0.2 "$url/"; }
check "who is not allowed is hung up on" not_allowed
stop

# ---- a machine

boots_by_http() {
    cat > "$src/boot.ipxe" <<END
#!ipxe
kernel http://10.0.2.2:$http_port/vmlinuz console=ttyS0 panic=-1 quiet || poweroff
initrd http://10.0.2.2:$http_port/initrd.img || poweroff
boot
END
    cp "$target/test-kernel/root/boot/vmlinuz-$version" "$src/vmlinuz"
    busybox_tree "$work/root"
    printf '#!/bin/busybox sh\necho "stage one is up"\n/bin/busybox poweroff -f\n' > "$work/root/init"
    chmod 755 "$work/root/init"
    pack "$work/root" "$src/initrd.img"
    serve --http $http_port
    vm machine - -m 512 -boot n,reboot-timeout=2000 -device virtio-net-pci,netdev=n0,bootindex=1 \
        -netdev "user,id=n0,tftp=$work,bootfile=http://10.0.2.2:$http_port/boot.ipxe"
    vm_prints 240 machine '^stage one is up'
}
need_vm /usr/lib/ipxe/qemu/pxe-virtio.rom:ipxe-qemu
debian_kernel linux-image-cloud-amd64 "$target/test-kernel"
if boots_by_http > "$work/boots.log" 2>&1; then
    pass "firmware gets its script, kernel and initrd from the master, and boots"
else
    fail "firmware gets its script, kernel and initrd from the master, and boots" "$work/boots.log" "$(console machine)" "$(log machine)"
fi
stop

# ---- a swarm

serve --metrics $metrics_port
chunks=$(status - 127.0.0.1:$port | sed -n '1s/.* held=[0-9]*\/\([0-9]*\) .*/\1/p')
start swarm - python3 "$repo/tests/many_nodes.py" 127.0.0.1 $port $nodes "$chunks" swarm
check "$nodes nodes join" wait_for 60 grep -q "^$nodes nodes wait" "$work/swarm.out"
url=http://127.0.0.1:$metrics_port
# It never ends its request, which is looked at in the end.
start dawdler - timeout 60 bash -c "exec 3<>/dev/tcp/127.0.0.1/$metrics_port; printf 'GET / HTTP/1.1\r\n' >&3; cat <&3"
check "where metrics are there are no files" code 404 /hello.txt
check "but a page" is "$(header location /)" /.xget/

cat > "$work/parse.py" <<'END'
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
families = {family.name: family for family in text_string_to_metric_families(sys.stdin.read())}
total = sum(sample.value for sample in families["xget_nodes"].samples)
ratios = [sample.value for sample in families["xget_node_held_ratio"].samples]
print(len(families), "families,", total, "nodes,", len(ratios), "ratios")
sys.exit(not (total == len(ratios) == int(sys.argv[1]) and all(0 <= ratio <= 1 for ratio in ratios)))
END
parses() { get "$url/metrics" | /usr/bin/python3 "$work/parse.py" "$nodes"; }
check "Prometheus' own parser reads the metrics" parses
note "$(cat "$work/check.out")"
check "their type is OpenMetrics" is "$(header content-type /metrics)" "application/openmetrics-text; version=1.0.0; charset=utf-8"
json() { get "$url/.xget/status.json" | jq -e ".nodes | length == $nodes"; }
check "the status as JSON has all nodes" json
watched() { timeout 5 "$xget" --status --watch -n "127.0.0.1:$port" > "$work/watched"; [ "$(grep -c '^generation ' "$work/watched")" -ge 2 ]; }
check "who watches sees it again and again" watched
note "$(sed -n 2p "$work/watched")"

# A status is made at most twice a second: in one of three tries both requests get the same one.
shared() { local i; for i in 1 2 3; do cmp <(get "$url/.xget/status.json") <(get "$url/.xget/status.json") && return; done; false; }
check "viewers share one status" shared

# ---- the page in a browser, driven by WebDriver (w3.org/TR/webdriver2)

need chromium:chromium chromedriver:chromium-driver
driver_port=20182
debug_port=20183
# driver METHOD PATH [JSON]: prints the value of the answer; fails if that is false, null or an error
driver() {
    get -X "$1" -H 'Content-Type: application/json' ${3:+-d "$3"} "http://127.0.0.1:$driver_port/$2" |
        jq -e -c '.value | if type == "object" and has("error") then error(.message) else . end'
}
# js SCRIPT: runs it in the page, and prints what it returns
js() { driver POST "session/$session/execute/sync" "$(jq -n --arg script "$prelude $1" '{$script, args: []}')"; }
devtools() { driver POST "session/$session/goog/cdp/execute" "{\"cmd\": \"Emulation.$1\", \"params\": $2}"; }
window() { devtools setDeviceMetricsOverride "{\"width\": $1, \"height\": 900, \"deviceScaleFactor\": 1, \"mobile\": false}"; }
scheme() { devtools setEmulatedMedia "{\"features\": [{\"name\": \"prefers-color-scheme\", \"value\": \"$1\"}]}"; }
open_page() { driver POST "session/$session/url" "{\"url\": \"$url/.xget/\"}"; }
picture() { driver GET "session/$session/screenshot" | jq -r . | base64 -d > "$1"; [ -s "$1" ]; }

browser_up() {
    # Not started by its driver, so that it ends with the other processes.
    start browser - chromium --headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run \
        --disable-background-networking --disable-component-update --disable-sync \
        --user-data-dir="$work/chromium" --remote-debugging-port=$debug_port about:blank
    wait_for 60 get "http://127.0.0.1:$debug_port/json/version" || return
    start driver - chromedriver --port=$driver_port
    wait_for 20 driver GET status || return
    session=$(driver POST session "{\"capabilities\": {\"alwaysMatch\":
        {\"goog:chromeOptions\": {\"debuggerAddress\": \"127.0.0.1:$debug_port\"}}}}" | jq -r .sessionId)
    [ -n "$session" ]
}

# For the scripts below. A figure is its value and its label, as in "1 node".
prelude='
    const all = (selector) => [...document.querySelectorAll(selector)];
    const figures = () => all("#figures div").map(({ children: [label, value] }) => `${value.textContent} ${label.textContent}`);
    // How many points a curve has, and at how many different heights.
    const points = (selector) => all(selector).flatMap((path) => path.getAttribute("d").match(/[\d.]+,[\d.]+/g) ?? []);
    const heights = (selector) => new Set(points(selector).map((point) => point.split(",")[1])).size;
    const page = document.documentElement;
    const fits = (element) => element.scrollWidth <= element.clientWidth;
    const rows = () => new Set(all("#figures div").map((f) => f.offsetTop)).size;
    // The contrast of a text with the page (WCAG 2.2, 1.4.3).
    const channels = (color) => color.match(/[\d.]+/g).slice(0, 3).map((c) => c / 255);
    const light = (color) => channels(color)
        .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = () => getComputedStyle(document.body).backgroundColor;
    const contrast = (element) => {
        const style = getComputedStyle(element);
        const [a, b] = [light(element instanceof SVGElement ? style.fill : style.color), light(ground())];
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    };
    const texts = "h1, h2, p, #legend span, figcaption span, figcaption b, svg text, dt, dd, th button, td";
    const worst = () => Math.min(...all(texts).map(contrast));
'

if browser_up > "$work/browser_up.log" 2>&1; then pass "a browser starts"; else
    fail "a browser starts" "$work/browser_up.log" "$(log browser)" "$(log driver)"
    finish
fi
window 1280 > /dev/null
open_page > /dev/null
all_nodes() { js "return new Set(all('tbody td.node').map((cell) => cell.textContent)).size === $nodes"; }
check "the page has one row per node" wait_for 30 all_nodes
check "and one cell per node" js "return all('#grid .cell[title]').length === $nodes"
check "what a node reports stays text" js '
    const said = all("td.problem").filter((cell) => cell.textContent.startsWith("<b>127.77.9.9:20004</b>: sent chunks"));
    return said.length > 0 && all("#grid b, table b").length === 0'
check "a report on another node does not mark the one that reports it" js '
    const telling = (text) => all("tr").filter((row) => row.lastElementChild.textContent.startsWith(text));
    const [own, another] = [telling("<b>"), telling("127.77.9.9:20004: timed out")];
    return own.some((row) => row.className === "bad") && another.length > 0 && another.every((row) => row.className !== "bad")'
check "the page reports no problem" js 'return document.querySelector("#problem").textContent === ""'

has_points() { js 'return heights("#rates .curve.received") > 1 && heights("#counts .curve.all") > 1'; }
check "the charts show the rate and the nodes" wait_for 30 has_points
check "each chart has a text alternative" js '
    return all("svg").every((svg) => svg.getAttribute("role") === "img" && /now: \d/i.test(svg.getAttribute("aria-label")))'
open_page > /dev/null
# There is one sample every 2 s.
older_than_the_page() { js 'return points("#rates .curve.received").length * 2000 > performance.now() + 4000'; }
check "a page that is opened later shows the earlier samples" wait_for 10 older_than_the_page

# The longest values that occur.
longest='const most = ["16384", "16384", "16384", "16384", "64+", "100 %", "119 min",
        "1023 MiB/s", "1023 MiB/s", "1023 GiB", "1023 GiB", "65536"];
    all("#figures dd").forEach((value, i) => { value.textContent = most[i]; });'
check "the figures fit into one row at 1280 pixels, also the longest" js "$longest return rows() === 1 && all('#figures div').every(fits)"
for width in 1280 800 400; do
    window $width > /dev/null
    check "the page fits into $width pixels" js "$longest return fits(page) && all('#figures div, figure').every(fits)"
done
window 1280 > /dev/null

grounds=()
for scheme in light dark; do
    scheme $scheme > /dev/null
    grounds+=("$(js 'return ground()')")
    check "all text has enough contrast in the $scheme scheme" js '
        if (worst() < 4.5) return false;
        return worst()'
    note "least contrast: $(cat "$work/check.out")"
done
check "the colours follow the system's scheme" [ "${grounds[*]}" = '"rgb(255, 255, 255)" "rgb(21, 24, 28)"' ]
scheme light > /dev/null
check "a screenshot is taken" picture "${SCREENSHOT:-$work/page.png}"
check "who does not end a request is hung up on" wait_for 40 grep -q 'no complete HTTP request for 30 s' "$(log master)"
end KILL swarm
unset 'pid[swarm]'
stop

# ---- one node and one chunk

src=$work/one
mkdir "$src"
random_file "$src/chunk" 64K
serve --metrics $metrics_port --rescan 1
open_page > /dev/null
# shows FIGURE...: the page has each
shows() { js "return $(jq -n -c '$ARGS.positional' --args "$@").every((figure) => figures().includes(figure))"; }
check "the label of one chunk is singular" wait_for 10 shows "0 nodes" "1 chunk not on any node yet" "– share of the image"
check "also in the line on the image" js 'return document.querySelector("#image").textContent.includes("in 1 chunk of 64.0 KiB")'
check "the page says that no node has joined" js 'return document.querySelector("#nobody").checkVisibility()'
start one - "$xget" -p $((port + 1)) --listen 127.0.0.1 --serve forever -n "127.0.0.1:$port" . "$work/got"
check "the label of one node is singular" wait_for 20 shows \
    "1 node" "1 whole" "0 fetching" "100 % share of the image" "0 chunks not on any node yet"
check "no plural follows a 1" js '
    return !/\b1 (nodes|chunks|sources|directories|links)\b/.test([document.body.textContent, ...figures()].join(" "))'
check "all bytes that the node received are counted" jq -e \
    '.received_bytes == 65536 and .sent_bytes == 65536 and .wanted_chunks == 1' <(get "$url/.xget/overview.json")
check "the charts show the fetch" wait_for 10 js 'return heights("#rates .curve.received") > 1 && heights("#counts .curve.whole") > 1'
random_file "$src/chunk" 64K
check "the charts mark a change of the tree" wait_for 20 js 'return all("#charts .mark").length === 2'
finish
