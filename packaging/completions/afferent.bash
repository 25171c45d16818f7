# Completion of afferent for bash, written from its help.
_afferent() {
    local word=${COMP_WORDS[COMP_CWORD]} path='' part offers
    for part in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "$path $part" in
        " scan") path=" scan" ;;
        " serve") path=" serve" ;;
        " pull") path=" pull" ;;
        " sense") path=" sense" ;;
        " mirror") path=" mirror" ;;
        " mirror run") path=" mirror run" ;;
        " mirror plan") path=" mirror plan" ;;
        " mirror apply") path=" mirror apply" ;;
        " mirror explain") path=" mirror explain" ;;
        " mirror dump") path=" mirror dump" ;;
        " mirror load") path=" mirror load" ;;
        " mirror drift") path=" mirror drift" ;;
        " mirror audit") path=" mirror audit" ;;
        " mirror check") path=" mirror check" ;;
        " mirror compact") path=" mirror compact" ;;
        " mirror begin-anew") path=" mirror begin-anew" ;;
        " mirror approve") path=" mirror approve" ;;
        " mirror login") path=" mirror login" ;;
        " fleet") path=" fleet" ;;
        " fleet find") path=" fleet find" ;;
        " fleet versions") path=" fleet versions" ;;
        " fleet show") path=" fleet show" ;;
        " fleet changes") path=" fleet changes" ;;
        " fleet diff") path=" fleet diff" ;;
        " fleet export") path=" fleet export" ;;
        " fleet login") path=" fleet login" ;;
        " rescan") path=" rescan" ;;
        " status") path=" status" ;;
        " check-config") path=" check-config" ;;
        esac
    done
    case $path in
    "") offers="scan serve pull sense mirror fleet rescan status check-config --version --help" ;;
    " scan") offers="--root --dbpath --format --output --help" ;;
    " serve") offers="--listen --root --dbpath --state-dir --rescan-interval --reactive-scan --reactive-debounce --reactive-max-delay --reactive-burst --reactive-refill --transaction-timeout --allow-cid --conn-deadline --repo-cpe --repo-cpe-token-file --repo-cpe-ca-file --require-mapping --tls --tls-cert --tls-key --tls-client-ca --tls-name-from --tls-ca-source --tls-ca-timeout --tls-client-cn --safety-poll --damaged-max-age --damaged-max-count --config --help" ;;
    " pull") offers="--known --wait --tls-cert --tls-key --tls-ca --tls-name-from --format --output --help" ;;
    " sense") offers="--vm --roster --discover --kube-cluster --kube-namespace --kube-node --kubeconfig --dial --kube-tls --kube-port --deliver --events --reports-from --token-file --ca-file --sbom-departed --tls-cert --tls-key --tls-ca --tls-name-from --sensor-id --state-dir --fleet --fleet-history --fleet-history-size --fleet-listen --fleet-tls-cert --fleet-tls-key --fleet-host --fleet-token-file --damaged-max-age --damaged-max-count --poll-interval --refresh-interval --spread --repo-cpe --rate --burst --metrics --config --help" ;;
    " mirror") offers="run plan apply explain dump load drift audit check compact begin-anew approve login --help" ;;
    " mirror run") offers="--once --plan --plan-out --apply --interval --metrics --mirror-listen --mirror-tls-cert --mirror-tls-key --mirror-host --mirror-token-file --audit-max-age --audit-max-size --state-dir --core --org --site-id --token-file --ca-file --connect-timeout --request-deadline --core-deadline --core-list-cap --observed --observe-dpus --observe-trays --observe-endpoints --profile --identity --empty --legacy --labels --names --duplicates --unknown-position --clear --max-deletes --max-delete-percent --delete-grace --damaged-max-age --damaged-max-count --approve-deletes --config --json --help" ;;
    " mirror plan") offers="--plan-out --kind --code --limit --cursor --state-dir --core --org --site-id --token-file --ca-file --connect-timeout --request-deadline --core-deadline --core-list-cap --observed --observe-dpus --observe-trays --observe-endpoints --profile --identity --empty --legacy --labels --names --duplicates --unknown-position --clear --max-deletes --max-delete-percent --delete-grace --damaged-max-age --damaged-max-count --approve-deletes --config --json --help" ;;
    " mirror apply") offers="--state-dir --core --org --site-id --token-file --ca-file --connect-timeout --request-deadline --core-deadline --core-list-cap --observed --observe-dpus --observe-trays --observe-endpoints --profile --identity --empty --legacy --labels --names --duplicates --unknown-position --clear --max-deletes --max-delete-percent --delete-grace --damaged-max-age --damaged-max-count --approve-deletes --config --json --help" ;;
    " mirror explain") offers="--limit --cursor --state-dir --core --org --site-id --token-file --ca-file --connect-timeout --request-deadline --core-deadline --core-list-cap --observed --observe-dpus --observe-trays --observe-endpoints --profile --identity --empty --legacy --labels --names --duplicates --unknown-position --clear --max-deletes --max-delete-percent --delete-grace --damaged-max-age --damaged-max-count --approve-deletes --config --json --help" ;;
    " mirror dump") offers="--limit --cursor --state-dir --json --help" ;;
    " mirror load") offers="--state-dir --json --help" ;;
    " mirror drift") offers="--kind --rack --code --since --limit --cursor --state-dir --json --help" ;;
    " mirror audit") offers="--run --row --since --until --kind --rack --code --limit --cursor --checkpoint --follow --state-dir --json --help" ;;
    " mirror check") offers="--state-dir --json --help" ;;
    " mirror compact") offers="--state-dir --json --help" ;;
    " mirror begin-anew") offers="--state-dir --json --help" ;;
    " mirror approve") offers="--state-dir --json --help" ;;
    " mirror login") offers="--state-dir --json --help" ;;
    " fleet") offers="find versions show changes diff export login --sort --state --os --state-dir --json --help" ;;
    " fleet find") offers="--arch --os --not --running --state-dir --json --help" ;;
    " fleet versions") offers="--os --state-dir --json --help" ;;
    " fleet show") offers="--at --state-dir --json --help" ;;
    " fleet changes") offers="--since --vm --package --follow --state-dir --json --help" ;;
    " fleet diff") offers="--state-dir --json --help" ;;
    " fleet export") offers="--format --output --vm --state-dir --json --help" ;;
    " fleet login") offers="--state-dir --json --help" ;;
    " rescan") offers="--vm --state-dir --no-wait --json --help" ;;
    " status") offers="--state-dir --json --dead --vm --state --retry --drop --drop-sink --bundle --help" ;;
    " check-config") offers="--show serve sense mirror --help" ;;
    esac
    case "$path ${COMP_WORDS[COMP_CWORD-1]}" in
    " scan --format") offers="table json tsv cyclonedx spdx" ;;
    " serve --reactive-scan") offers="on off" ;;
    " serve --require-mapping") offers="on off" ;;
    " serve --tls") offers="off files kubevirt" ;;
    " pull --format") offers="table json cyclonedx spdx" ;;
    " sense --dial") offers="api node" ;;
    " sense --kube-tls") offers="true false auto" ;;
    " sense --sbom-departed") offers="keep remove" ;;
    " sense --fleet") offers="on off" ;;
    " sense --spread") offers="on off" ;;
    " mirror run --profile") offers="natural-key host-mac" ;;
    " mirror run --identity") offers="pair host-mac" ;;
    " mirror run --empty") offers="skip authoritative guarded" ;;
    " mirror run --legacy") offers="exempt delete" ;;
    " mirror run --labels") offers="required optional" ;;
    " mirror run --names") offers="unique free" ;;
    " mirror run --duplicates") offers="last both" ;;
    " mirror run --clear") offers="clear preserve" ;;
    " mirror plan --profile") offers="natural-key host-mac" ;;
    " mirror plan --identity") offers="pair host-mac" ;;
    " mirror plan --empty") offers="skip authoritative guarded" ;;
    " mirror plan --legacy") offers="exempt delete" ;;
    " mirror plan --labels") offers="required optional" ;;
    " mirror plan --names") offers="unique free" ;;
    " mirror plan --duplicates") offers="last both" ;;
    " mirror plan --clear") offers="clear preserve" ;;
    " mirror apply --profile") offers="natural-key host-mac" ;;
    " mirror apply --identity") offers="pair host-mac" ;;
    " mirror apply --empty") offers="skip authoritative guarded" ;;
    " mirror apply --legacy") offers="exempt delete" ;;
    " mirror apply --labels") offers="required optional" ;;
    " mirror apply --names") offers="unique free" ;;
    " mirror apply --duplicates") offers="last both" ;;
    " mirror apply --clear") offers="clear preserve" ;;
    " mirror explain --profile") offers="natural-key host-mac" ;;
    " mirror explain --identity") offers="pair host-mac" ;;
    " mirror explain --empty") offers="skip authoritative guarded" ;;
    " mirror explain --legacy") offers="exempt delete" ;;
    " mirror explain --labels") offers="required optional" ;;
    " mirror explain --names") offers="unique free" ;;
    " mirror explain --duplicates") offers="last both" ;;
    " mirror explain --clear") offers="clear preserve" ;;
    " fleet export --format") offers="json csv cyclonedx" ;;
    esac
    # The value of a flag, and any other word, is a file for all that is known here.
    mapfile -t COMPREPLY < <(compgen -W "$offers" -- "$word")
}
complete -o default -F _afferent afferent
