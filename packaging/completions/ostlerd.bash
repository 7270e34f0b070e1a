# Completion of ostlerd for bash. Made by docs/generate.py from config/schema/ostler.schema.json; do not edit.

_ostlerd() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} i words
  COMPREPLY=()
  # After -- there is a command: its name, then files.
  for ((i = 1; i < COMP_CWORD; i++)); do
    [[ ${COMP_WORDS[i]} == -- ]] || continue
    compopt -o filenames
    if ((i == COMP_CWORD - 1)); then
      mapfile -t COMPREPLY < <(compgen -A command -- "$cur"; compgen -A file -- "$cur")
    else
      mapfile -t COMPREPLY < <(compgen -A file -- "$cur")
    fi
    return
  done
  # "=" is a word of its own, as bash splits the line.
  if [[ $cur == = ]]; then
    cur=''
  elif [[ $prev == = ]]; then
    prev=${COMP_WORDS[COMP_CWORD-2]}
  fi
  words=''
  case $prev in
    --workers) words='auto' ;;
    --workers-by) words='busy backlog' ;;
    --inherit-env) words='true false' ;;
    --accept) words='shared reuseport dispatch' ;;
    --dispatch) words='least_connections round_robin random' ;;
    --socket-protocol) words='systemd fastcgi' ;;
    --spawn) words='exec' ;;
    --ready) words='auto notify listening' ;;
    --worker-class) words='sync threads async' ;;
    --worker-access-log) words='off common json' ;;
    --timeouts-heartbeat) words='off' ;;
    --timeouts-request) words='off' ;;
    --stop-signal) words='TERM INT QUIT HUP USR1 USR2 WINCH' ;;
    --leave-behind) words='true false' ;;
    --sandbox-no-new-privileges) words='true false' ;;
    --recycle) words='off' ;;
    --health) words='off' ;;
    --output) words='forward inherit null' ;;
    --log-level) words='trace debug info warning error' ;;
    --log-format) words='text json' ;;
    --log-output) words='stderr journald syslog' ;;
    --user)
      mapfile -t COMPREPLY < <(compgen -A user -- "$cur")
      return ;;
    --group)
      mapfile -t COMPREPLY < <(compgen -A group -- "$cur")
      return ;;
    --directory)
      compopt -o filenames
      mapfile -t COMPREPLY < <(compgen -A directory -- "$cur")
      return ;;
    --set | --listen | --workers-min | --workers-max | --workers-target | --workers-up-after | --workers-down-after | --env | --umask | --worker-threads | --worker-connections | --worker-keepalive | --worker-header-limit | --worker-body-limit | --worker-header-timeout | --worker-body-timeout | --worker-write-timeout | --worker-trusted-proxies | --timeouts-start | --timeouts-stop | --replace-surge | --replace-settle | --replace-attempts | --restart-backoff | --restart-backoff-max | --restart-burst | --restart-reset-after | --recycle-requests | --recycle-requests-jitter | --recycle-lifetime | --recycle-lifetime-jitter | --recycle-memory | --health-request | --health-host | --health-headers | --health-expect | --health-exec | --health-interval | --health-timeout | --health-failures | --warmup)
      return ;;
  esac
  if [[ $prev == @(--config|--trace|--env-file|--output|--socket|--log-output|-c) ]]; then
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur"; compgen -A file -- "$cur")
    return
  fi
  [[ -n $words ]] || words='--config --check --print-config --set --trace --help --version --listen --workers --workers-min --workers-max --workers-by --workers-target --workers-up-after --workers-down-after --directory --env --env-file --inherit-env --user --group --umask --accept --dispatch --socket-protocol --spawn --ready --worker-class --worker-threads --worker-connections --worker-keepalive --worker-header-limit --worker-body-limit --worker-header-timeout --worker-body-timeout --worker-write-timeout --worker-access-log --worker-trusted-proxies --timeouts-start --timeouts-heartbeat --timeouts-request --timeouts-stop --stop-signal --leave-behind --sandbox-no-new-privileges --replace-surge --replace-settle --replace-attempts --restart-backoff --restart-backoff-max --restart-burst --restart-reset-after --recycle --recycle-requests --recycle-requests-jitter --recycle-lifetime --recycle-lifetime-jitter --recycle-memory --health --health-request --health-host --health-headers --health-expect --health-exec --health-interval --health-timeout --health-failures --warmup --output --socket --log-level --log-format --log-output --'
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _ostlerd ostlerd
