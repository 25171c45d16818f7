#!/usr/bin/env bash
# Checks what cargo does not: scripts, units, alert rules, dashboard, man pages, completions, the spec.
set -euo pipefail
cd "$(dirname "$0")/.."
packaging/install-deps.sh lint
PATH=$PWD/target/tools/bin:$PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "lint: scripts"
mapfile -t scripts < <(git ls-files -co --exclude-standard '*.sh' .ci/run)
shellcheck "${scripts[@]}"
mapfile -t python < <(git ls-files -co --exclude-standard '*.py')
[ ${#python[@]} = 0 ] || PYTHONPYCACHEPREFIX=$work /usr/bin/python3 -m py_compile "${python[@]}"

echo "lint: units"
# The exposure that each unit may have, times ten.
for limit in serve:15 sense:22 mirror:20; do
    unit=afferent-${limit%:*}.service
    # verify wants the program to be there, and it is not installed on this machine.
    sed 's,/usr/bin/afferent,/usr/bin/true,' "packaging/systemd/$unit" >"$work/$unit"
    systemd-analyze verify --man=no "$work/$unit"
    systemd-analyze security --no-pager --offline=true --threshold="${limit#*:}" "$work/$unit" | tail -1
done
# With its drop-in for libvirt the sensor may read more, and is still a valid unit.
mkdir "$work/afferent-sense.service.d"
cp packaging/systemd/sense-libvirt.conf "$work/afferent-sense.service.d/libvirt.conf"
systemd-analyze verify --man=no "$work/afferent-sense.service"
# Every hardening line stands under a comment that says what it denies (a second line of one setting may share it).
awk '
    FNR == 1 { on = 0; comment = 0; last = "" }
    /^DynamicUser=/ { on = 1 }
    /^\[Install\]/ { on = 0 }
    /^#/ { comment = 1; next }
    on && /^[A-Z]/ {
        split($0, part, "=")
        if (!comment && part[1] != last && part[1] !~ /^(CapabilityBoundingSet|AmbientCapabilities|DevicePolicy)$/) {
            print FILENAME ": " $0 ": does not say what it denies"; bad = 1
        }
        comment = 0; last = part[1]
    }
    END { exit bad }
' packaging/systemd/*.service

echo "lint: alert rules, dashboard, manual pages, completions"
promtool check rules packaging/prometheus/afferent.rules.yml | grep -v '^$'
promtool test rules packaging/prometheus/afferent.rules.test.yml | grep -v '^$'
/usr/bin/python3 - packaging/grafana/afferent.json <<'END'
import json, sys
board = json.load(open(sys.argv[1]))
assert "id" not in board and board["uid"], "a dashboard that is imported has a uid and no id"
panels = [(panel["id"], panel["datasource"]["uid"]) for panel in board["panels"]]
assert len({number for number, _ in panels}) == len(panels), "two panels with one id"
assert {source for _, source in panels} == {"${datasource}"}, "a panel is bound to one machine's data source"
END
mandoc -T lint -W warning packaging/man/*
bash -n packaging/completions/afferent.bash
zsh -n packaging/completions/_afferent
fish -n packaging/completions/afferent.fish
# What the shells offer after a command line: a word that is chosen, and the rest of a flag.
# shellcheck disable=SC2016
offered() {
    bash -c '. packaging/completions/afferent.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _afferent; echo "${COMPREPLY[@]}"' - "$@"
    fish --no-config -c 'source packaging/completions/afferent.fish; complete -C "$argv"' "$*" | cut -f1 | paste -sd' '
}
for case in 'serve --reactive-scan |on off' 'mirror run --identity |host-mac pair' 'mirror ap|apply approve' 'serve --reactive-b|--reactive-burst' 'serve --tls |off files kubevirt' 'fleet ex|export' 'fleet export --format |json csv cyclonedx'; do
    read -ra line <<<"afferent ${case%|*}"
    [[ $case != *' |'* ]] || line+=("")
    while read -ra words; do
        found=$(printf '%s\n' "${words[@]}" | sort | paste -sd' ')
        wanted=$(tr ' ' '\n' <<<"${case#*|}" | sort | paste -sd' ')
        [ "$found" = "$wanted" ] || { echo "completion of '${line[*]}': '$found', not '$wanted'" >&2; exit 1; }
    done < <(offered "${line[@]}")
done

echo "lint: spec"
license=$(/usr/bin/python3 packaging/bill-of-materials.py --license)
grep -qxF "License:        $license" packaging/rpm/afferent.spec ||
    { echo "afferent.spec: what is linked in asks for the line License: $license" >&2; exit 1; }
rpmlint --strict -c packaging/rpm/rpmlint.toml packaging/rpm/afferent.spec | tail -2
