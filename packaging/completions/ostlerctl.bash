# Completion of ostlerctl for bash.

# What a manager says of itself; nothing, and soon, if none answers at the socket that the line names.
_ostlerctl_status() {
  local i socket=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    [[ ${COMP_WORDS[i]} == --socket ]] || continue
    # "=" is a word of its own, as bash splits the line.
    [[ ${COMP_WORDS[i+1]} == = ]] && ((i++))
    socket=(--socket "${COMP_WORDS[i+1]}")
  done
  timeout 1 ostlerctl "${socket[@]}" --json status 2>/dev/null </dev/null
}

_ostlerctl_pools() { _ostlerctl_status | grep -oE '"[a-z][a-z0-9_-]*":\{"state":' | cut -d'"' -f2; }

_ostlerctl_workers() { _ostlerctl_status | grep -oE '"worker":"[^"\\]*"' | cut -d'"' -f4; }

_ostlerctl() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} i command='' sub='' args=0
  COMPREPLY=()
  if [[ $cur == = ]]; then
    cur=''
  elif [[ $prev == = ]]; then
    prev=${COMP_WORDS[COMP_CWORD-2]}
  fi
  if [[ $prev == --socket ]]; then
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -A file -- "$cur")
    return
  fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      --socket)
        ((i++))
        [[ ${COMP_WORDS[i]} == = ]] && ((i++)) ;;
      -*) ;;
      *)
        if [[ -z $command ]]; then
          command=${COMP_WORDS[i]}
        elif [[ $command == config && -z $sub ]]; then
          sub=${COMP_WORDS[i]}
        else
          ((args++))
        fi ;;
    esac
  done

  local words=''
  if [[ $cur == -* ]]; then
    words='--socket --json --help'
    case $command in
      '') words+=' --version' ;;
      reload) words+=' --no-wait' ;;
      stop) words+=' --now' ;;
      events) words+=' --follow' ;;
    esac
  else
    case $command in
      '') words='status reload restart scale recycle drain kill stop events reopen version config' ;;
      status | reload | restart) ((args)) || words=$(_ostlerctl_pools) ;;
      scale)
        case $args in
          0) words=$(_ostlerctl_pools) ;;
          1) words='auto reset' ;;
        esac ;;
      recycle | drain | kill) ((args)) || words=$(_ostlerctl_workers) ;;
      config)
        case $sub in
          '') words='check show init' ;;
          check | init)
            ((args)) && return
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -A file -- "$cur")
            return ;;
        esac ;;
    esac
  fi
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _ostlerctl ostlerctl
