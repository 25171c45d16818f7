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
        esac
    done
    case $path in
    "") offers="scan serve pull sense mirror --version --help" ;;
    " scan") offers="--root --dbpath --format --help" ;;
    " serve") offers="--listen --root --dbpath --state-dir --rescan-interval --reactive-scan --reactive-debounce --reactive-max-delay --reactive-burst --reactive-refill --transaction-timeout --allow-cid --conn-deadline --tls-cert --tls-key --tls-client-ca --safety-poll --config --help" ;;
    " pull") offers="--known --wait --tls-cert --tls-key --tls-ca --format --help" ;;
    " sense") offers="--vm --roster --deliver --token-file --ca-file --tls-cert --tls-key --tls-ca --state-dir --poll-interval --refresh-interval --rate --burst --config --help" ;;
    " mirror") offers="--help" ;;
    esac
    # The value of a flag, and any other word, is a file for all that is known here.
    mapfile -t COMPREPLY < <(compgen -W "$offers" -- "$word")
}
complete -o default -F _afferent afferent
