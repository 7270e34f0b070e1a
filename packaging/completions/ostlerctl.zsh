#compdef ostlerctl
# Completion of ostlerctl for zsh.

# What a manager says of itself; nothing, and soon, if none answers at the socket that the line names.
_ostlerctl_status() {
  local -a socket=(${(Q)opt_args[--socket]:-$given_socket})
  socket=(${socket:+--socket} $socket)
  timeout 1 ostlerctl $socket --json status 2>/dev/null </dev/null
}

_ostlerctl_pools() {
  local -a pools
  pools=(${(f)"$(_ostlerctl_status | grep -oE '"[a-z][a-z0-9_-]*":\{"state":' | cut -d'"' -f2)"})
  _describe -t pools pool pools
}

_ostlerctl_workers() {
  local -a workers
  workers=(${(f)"$(_ostlerctl_status | grep -oE '"worker":"[^"\\]*"' | cut -d'"' -f4)"})
  _describe -t workers worker workers
}

_ostlerctl_commands() {
  local -a commands=(
    'status:a table of pools and workers'
    'reload:read the configuration again and replace the workers'
    'restart:replace the workers without reading the configuration'
    'scale:change how many workers a pool should have'
    'recycle:replace one worker, its successor ready first'
    'drain:stop one worker when it has finished what is in flight'
    'kill:SIGKILL one worker'
    'stop:stop the manager when all workers have drained'
    'events:what happened of late'
    'reopen:open log files anew'
    'version:the versions of ostlerctl and of the manager'
    'config:look at configurations'
  )
  _describe -t commands command commands
}

_ostlerctl_config_commands() {
  local -a commands=(
    'check:read a configuration file and say every fault'
    'show:the configuration that is in force'
    'init:write a commented configuration to start from'
  )
  _describe -t commands command commands
}

_ostlerctl() {
  local context state state_descr line
  typeset -A opt_args
  local -a common=(
    "--socket=[the manager's control socket]:path:_files"
    '--json[print what the control API answers, as it is]'
    '(- *)'{-h,--help}'[print a summary]'
  )
  _arguments -C $common '(- *)--version[print the version]' \
    '(-)1:command:_ostlerctl_commands' '(-)*::argument:->arguments'
  [[ $state == arguments ]] || return
  local given_socket=${(Q)opt_args[--socket]}  # before the command; those behind it are read below

  case $words[1] in
    status | restart) _arguments $common '1:pool:_ostlerctl_pools' ;;
    reload) _arguments $common '--no-wait[do not wait for the outcome]' '1:pool:_ostlerctl_pools' ;;
    scale) _arguments $common '1:pool:_ostlerctl_pools' '2:workers:(auto reset)' ;;
    recycle | drain | kill) _arguments $common '1:worker:_ostlerctl_workers' ;;
    stop) _arguments $common '--now[kill the workers]' ;;
    events) _arguments $common '--follow[what happens from now on, as it happens]' ;;
    config)
      _arguments -C $common '(-)1:command:_ostlerctl_config_commands' '(-)*::argument:->config'
      [[ $state == config ]] || return
      case $words[1] in
        check | init) _arguments $common '1:file:_files' ;;
        *) _arguments $common ;;
      esac ;;
    *) _arguments $common ;;
  esac
}

_ostlerctl "$@"
