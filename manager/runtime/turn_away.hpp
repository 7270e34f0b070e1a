// Takes a tcp socket that listens out of the kernel's lookup, and puts it back.
//
// The socket is bound to a network interface that does not exist. From that moment on no new
// connection finds it: it goes to another socket that has the address, if there is one, and else is
// refused at once. What waits in the queue stays there, handshakes that have begun end in it, and
// connections that were accepted are not touched. Anybody may do that to a socket that is bound to
// no interface (Linux 5.7); to take it back needs CAP_NET_RAW.
#pragma once

namespace ostler::runtime {

// Both return 0 or errno.
[[nodiscard]] int hide_from_lookup(int fd);
[[nodiscard]] int show_to_lookup(int fd);

}  // namespace ostler::runtime
