# Completion of ostlerctl for fish.

# What a manager says of itself; nothing, and soon, if none answers at the socket that the line names.
function __ostlerctl_status
    set -l socket
    set -l words (commandline -opc)
    for i in (seq (count $words))
        if test $words[$i] = --socket; and set -q words[(math $i + 1)]
            set socket --socket $words[(math $i + 1)]
        else if string match -q -- '--socket=*' $words[$i]
            set socket $words[$i]
        end
    end
    timeout 1 ostlerctl $socket --json status 2>/dev/null </dev/null
end

function __ostlerctl_pools
    __ostlerctl_status | string match -ar '"([a-z][a-z0-9_-]*)":\{"state":' | string match -r '^[a-z].*'
end

function __ostlerctl_workers
    __ostlerctl_status | string match -ar '"worker":"([^"\\\\]*)"' | string match -rv '^"'
end

# The words behind the options: the command and its arguments.
function __ostlerctl_words
    set -l skip no
    for word in (commandline -opc)[2..]
        if test $skip = yes
            set skip no
        else if test $word = --socket
            set skip yes
        else if not string match -q -- '-*' $word
            echo $word
        end
    end
end

# Whether the words so far are COMMAND... and nothing else.
function __ostlerctl_at
    test "$(__ostlerctl_words | string join ' ')" = "$argv"
end

# Whether the words so far are COMMAND and one of the following, or more.
function __ostlerctl_in
    set -l words (__ostlerctl_words)
    set -q words[1]; and contains -- $words[1] $argv
end

complete -c ostlerctl -f
complete -c ostlerctl -l socket -r -F -d 'the manager\'s control socket'
complete -c ostlerctl -l json -d 'print what the control API answers, as it is'
complete -c ostlerctl -s h -l help -d 'print a summary'
complete -c ostlerctl -n __ostlerctl_at -l version -d 'print the version'

complete -c ostlerctl -n __ostlerctl_at -a status -d 'a table of pools and workers'
complete -c ostlerctl -n __ostlerctl_at -a reload -d 'read the configuration again and replace the workers'
complete -c ostlerctl -n __ostlerctl_at -a restart -d 'replace the workers without reading the configuration'
complete -c ostlerctl -n __ostlerctl_at -a scale -d 'change how many workers a pool should have'
complete -c ostlerctl -n __ostlerctl_at -a recycle -d 'replace one worker, its successor ready first'
complete -c ostlerctl -n __ostlerctl_at -a drain -d 'stop one worker when it has finished what is in flight'
complete -c ostlerctl -n __ostlerctl_at -a kill -d 'SIGKILL one worker'
complete -c ostlerctl -n __ostlerctl_at -a stop -d 'stop the manager when all workers have drained'
complete -c ostlerctl -n __ostlerctl_at -a events -d 'what happened of late'
complete -c ostlerctl -n __ostlerctl_at -a reopen -d 'open log files anew'
complete -c ostlerctl -n __ostlerctl_at -a version -d 'the versions of ostlerctl and of the manager'
complete -c ostlerctl -n __ostlerctl_at -a config -d 'look at configurations'

complete -c ostlerctl -n '__ostlerctl_in reload' -l no-wait -d 'do not wait for the outcome'
complete -c ostlerctl -n '__ostlerctl_in stop' -l now -d 'kill the workers'
complete -c ostlerctl -n '__ostlerctl_in events' -l follow -d 'what happens from now on, as it happens'

for command in status reload restart scale
    complete -c ostlerctl -n "__ostlerctl_at $command" -a '(__ostlerctl_pools)' -d pool
end
for command in recycle drain kill
    complete -c ostlerctl -n "__ostlerctl_at $command" -a '(__ostlerctl_workers)' -d worker
end
complete -c ostlerctl -n '__ostlerctl_in scale; and test (count (__ostlerctl_words)) = 2' -a 'auto reset'
complete -c ostlerctl -n '__ostlerctl_at config' -a check -d 'read a configuration file and say every fault'
complete -c ostlerctl -n '__ostlerctl_at config' -a show -d 'the configuration that is in force'
complete -c ostlerctl -n '__ostlerctl_at config' -a init -d 'write a commented configuration to start from'
complete -c ostlerctl -n '__ostlerctl_at config check' -F
complete -c ostlerctl -n '__ostlerctl_at config init' -F
